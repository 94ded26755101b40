"""What the answer's form is bound to: `response_format` and vLLM's `guided_*`, checked before an engine sees
them.

Rules: pure. A schema is refused here when it is malformed, huge, deep, refers outside itself, or repeats
without bound: grammar compilers take it on trust and some have died of it (vLLM CVE-2025-48942, -48943,
-48944, CVE-2026-34756). One constraint per request.
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from ..config import LimitsConfig
from ..request import GuidedDecoding
from .bodies import ResponseFormat, SamplingBody
from .fields import invalid
from .json_body import check_depth, decode_embedded, shown
from .regex_bound import check_regex

MAX_SCHEMAS = 2000
MAX_COUNT = 10_000
"""Largest minLength, maxItems and the like."""
MAX_ENUM = 1000
MAX_CHOICES = 1000

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_PAIRS = (
    ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"), ("minimum", "maximum"),
)  # fmt: skip
_ONE = (
    "items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "additionalItems",
    "contains", "propertyNames", "not", "if", "then", "else",
)  # fmt: skip
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


_UNBOUND = (None,) * 5


def guided_decoding(
    body: SamplingBody, response_format: ResponseFormat | None, limits: LimitsConfig
) -> GuidedDecoding | None:
    """The one constraint of a request, or None. Raises RequestError naming the field."""
    given = (response_format, body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar)
    if given == _UNBOUND:
        return None
    found: list[tuple[str, GuidedDecoding]] = []
    if response_format is not None and response_format.type != "text":
        found.append(("response_format", _from_response_format(response_format, limits)))
    if body.guided_json is not None:
        schema = body.guided_json
        if isinstance(schema, str):
            schema = decode_embedded(schema, "guided_json", limits.max_schema_bytes, limits.max_json_depth)
        found.append(("guided_json", _schema("guided_json", schema, limits)))
    if body.guided_regex is not None:
        found.append(("guided_regex", _regex("guided_regex", body.guided_regex)))
    if body.guided_choice is not None:
        found.append(("guided_choice", _choice(body.guided_choice)))
    if body.guided_grammar is not None:
        if not 1 <= len(body.guided_grammar) <= limits.max_schema_bytes:
            raise invalid("guided_grammar", f"must have 1 to {limits.max_schema_bytes} characters")
        found.append(("guided_grammar", GuidedDecoding("grammar", body.guided_grammar)))
    if len(found) > 1:
        raise invalid(found[1][0], f"cannot be combined with {found[0][0]}")
    return found[0][1] if found else None


def check_name(name: str, param: str) -> str:
    """Names of schemas and functions: 1 to 64 of letters, digits, '_' and '-'."""
    if not _NAME.fullmatch(name):
        raise invalid(param, "must have 1 to 64 letters, digits, '_' or '-'")
    return name


def check_schema(schema: object, param: str, limits: LimitsConfig) -> bytes:
    """Check a JSON schema and return it as compact JSON. Raises RequestError (INVALID_FIELD) naming
    `param`."""
    if not isinstance(schema, dict | bool):
        raise invalid(param, "must be a JSON schema: an object")
    check_depth(schema, param, limits.max_json_depth)
    encoded = msgspec.json.encode(schema)
    if len(encoded) > limits.max_schema_bytes:
        raise invalid(param, f"has {len(encoded)} bytes, {limits.max_schema_bytes} are allowed")
    todo: list[object] = [schema]
    num_schemas = 0
    while todo:
        one = todo.pop()
        if isinstance(one, bool):
            continue
        if not isinstance(one, dict):
            raise invalid(param, "is not a valid JSON schema: a subschema is neither an object nor a boolean")
        num_schemas += 1
        if num_schemas > MAX_SCHEMAS:
            raise invalid(param, f"has more than {MAX_SCHEMAS} subschemas")
        todo.extend(_check_one(cast("dict[str, Any]", one), schema, param))
    return encoded


def _from_response_format(response_format: ResponseFormat, limits: LimitsConfig) -> GuidedDecoding:
    if response_format.type == "json_object":
        if response_format.json_schema is not None:
            raise invalid("response_format.json_schema", "belongs to the type 'json_schema'")
        return GuidedDecoding("json_object")
    named = response_format.json_schema
    if named is None:
        raise invalid("response_format.json_schema", "is required")
    check_name(named.name, "response_format.json_schema.name")
    if named.schema_ is None:
        raise invalid("response_format.json_schema.schema", "is required")
    return _schema("response_format.json_schema.schema", named.schema_, limits)


def _schema(param: str, schema: object, limits: LimitsConfig) -> GuidedDecoding:
    return GuidedDecoding("json_schema", check_schema(schema, param, limits).decode())


def _regex(param: str, pattern: str) -> GuidedDecoding:
    if broken := check_regex(pattern):
        raise invalid(param, broken)
    return GuidedDecoding("regex", pattern)


def _choice(choices: list[str]) -> GuidedDecoding:
    if not 1 <= len(choices) <= MAX_CHOICES:
        raise invalid("guided_choice", f"must have 1 to {MAX_CHOICES} entries")
    if not all(choices) or sum(map(len, choices)) > 4096:
        raise invalid("guided_choice", "entries must not be empty and have 4096 characters together")
    return GuidedDecoding("regex", "(" + "|".join(re.escape(choice) for choice in choices) + ")")


def _check_one(schema: dict[str, Any], root: object, param: str) -> list[object]:
    """Check the keywords of one schema object; returns its subschemas."""
    kinds = schema.get("type")
    if kinds is not None:
        names = cast("list[object]", kinds if isinstance(kinds, list) else [kinds])
        for name in names or [None]:
            if not isinstance(name, str) or name not in _TYPES:
                raise invalid(param, f"is not a valid JSON schema: unknown type '{shown(str(name))}'")
    _check_numbers(schema, param)
    required = schema.get("required")
    if required is not None and not (
        isinstance(required, list) and all(isinstance(name, str) for name in cast("list[object]", required))
    ):
        raise invalid(param, "is not a valid JSON schema: required must be a list of names")
    enum = schema.get("enum")
    if enum is not None and not (isinstance(enum, list) and 1 <= len(cast("list[object]", enum)) <= MAX_ENUM):
        raise invalid(param, f"is refused: enum must be a list of 1 to {MAX_ENUM} values")
    patterns = [schema["pattern"]] if "pattern" in schema else []
    inner: list[object] = [schema[keyword] for keyword in _ONE if keyword in schema and keyword != "items"]
    items = schema.get("items")
    if items is not None:
        inner.extend(cast("list[object]", items) if isinstance(items, list) else [items])
    for keyword in _MANY:
        if keyword in schema:
            several = schema[keyword]
            if not isinstance(several, list) or not several:
                raise invalid(param, f"is not a valid JSON schema: {keyword} must be a list with entries")
            inner.extend(cast("list[object]", several))
    for keyword in _NAMED:
        if keyword in schema:
            named = schema[keyword]
            if not isinstance(named, dict):
                raise invalid(param, f"is not a valid JSON schema: {keyword} must be an object")
            inner.extend(cast("dict[str, object]", named).values())
            if keyword == "patternProperties":
                patterns.extend(cast("dict[str, object]", named))
    for pattern in patterns:
        broken = check_regex(pattern) if isinstance(pattern, str) else "must be a string"
        if broken:
            raise invalid(param, f"is refused: a pattern {broken}")
    if "$ref" in schema:
        _check_ref(schema["$ref"], root, param)
    return inner


def _check_numbers(schema: dict[str, Any], param: str) -> None:
    """Counts and bounds are numbers of a sane size, and no lower one is above its upper one."""
    for keyword in _COUNTS:
        count = schema.get(keyword)
        if count is not None and (type(count) is not int or not 0 <= count <= MAX_COUNT):
            raise invalid(param, f"is refused: {keyword} must be an integer between 0 and {MAX_COUNT}")
    for keyword in _BOUNDS:
        bound = schema.get(keyword)
        if bound is not None and (type(bound) not in (int, float) or not -(2**63) < bound < 2**63):
            raise invalid(param, f"is refused: {keyword} must be a number of at most 63 bits")
    for low, high in _PAIRS:
        if low in schema and high in schema and (schema[low] or 0) > (schema[high] or 0):
            raise invalid(param, f"is refused: {low} is above {high}")
    if schema.get("multipleOf") is not None and schema["multipleOf"] <= 0:
        raise invalid(param, "is refused: multipleOf must be above 0")


def _check_ref(ref: object, root: object, param: str) -> None:
    """Only references into the same document, and only ones that lead somewhere."""
    target: object = root
    if isinstance(ref, str) and (ref == "#" or ref.startswith("#/")):
        for step in ref.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if (
                isinstance(target, list)
                and name.isdecimal()
                and int(name[:9]) < len(cast("list[object]", target))
            ):
                target = cast("list[object]", target)[int(name[:9])]
            elif isinstance(target, dict) and name in target:
                target = cast("dict[str, object]", target)[name]
            else:
                break
        else:
            return
    raise invalid(param, f"is refused: $ref '{shown(str(ref))}' does not lead to a part of it")
