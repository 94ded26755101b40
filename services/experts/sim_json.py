"""An instance of a JSON schema, chosen by a hash: what the simulated model says under guided decoding.

Rules: pure. The text is always valid for the schema, or the schema is refused by naming the keyword that the
simulation cannot follow; it never answers something invalid (`oneOf` is read as `anyOf`, as xgrammar does). Spaces
after the value fill the last token.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import cast

import orjson

from ..request import GuidedDecoding
from ..sim_tokenizer import pad

_REFUSED = ("pattern", "format", "not", "if", "patternProperties", "propertyNames", "dependentRequired",
            "dependentSchemas", "uniqueItems", "contains", "multipleOf", "prefixItems", "minProperties",
            "unevaluatedProperties", "allOf")  # fmt: skip
_CHOOSING = ("$ref", "anyOf", "oneOf")
_SHAPING = ("properties", "required", "items", "minimum", "maximum", "minLength", "maxLength", "minItems")
_MAX_DEPTH = 32
_MAX_NODES = 4096
_ANYTHING: dict[str, object] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["answer", "count"],
}

Schema = dict[str, object]


class CannotFollow(Exception):
    """The simulated model cannot follow this grammar; the message names what it cannot."""


def instance(guided: GuidedDecoding, seed: bytes) -> bytes:
    """JSON text of whole tokens that is valid for `guided`, the same for the same (guided, seed).

    Raises CannotFollow for regular expressions, grammars, and keywords in `_REFUSED`."""
    if guided.kind == "json_object":
        schema: object = _ANYTHING
    elif guided.kind == "json_schema":
        try:
            schema = orjson.loads(guided.spec)
        except orjson.JSONDecodeError as error:
            raise CannotFollow(f"the schema is not JSON: {error}") from error
    else:
        raise CannotFollow(f"guided decoding by {guided.kind}")
    return pad(orjson.dumps(_Writer(schema, seed + guided.spec.encode()).value(schema, 0)))


class _Writer:
    def __init__(self, root: object, seed: bytes) -> None:
        self._root = root
        self._seed = blake2b(seed, digest_size=16).digest()
        self._drawn = 0
        self._nodes = 0

    def value(self, schema: object, depth: int) -> object:
        if schema is True or schema == {}:
            return self._word()
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            raise CannotFollow("schema false, or recursion without an end")
        node = cast(Schema, schema)
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise CannotFollow("a schema without an instance of reasonable size")
        for keyword in _REFUSED:
            if keyword in node:
                raise CannotFollow(f"schema keyword {keyword!r}")
        if any(word in node for word in _CHOOSING) and any(word in node for word in _SHAPING):
            raise CannotFollow("a choice of schemas beside properties of its own")
        if "$ref" in node:
            return self.value(self._resolve(str(node["$ref"])), depth + 1)
        if "const" in node:
            return node["const"]
        for choice in ("enum", "anyOf", "oneOf"):
            if choice in node:
                options = cast(list[object], node[choice])
                if not options:
                    raise CannotFollow(f"empty {choice!r}")
                if choice == "enum":
                    return options[self._draw(len(options))]
                # Deep down take the first, which by convention is the plain one: recursion must end.
                return self.value(options[self._draw(len(options)) if depth < 4 else 0], depth + 1)
        return self._typed(node, depth)

    def _typed(self, node: Schema, depth: int) -> object:
        kind = node.get("type", "object" if "properties" in node else "string")
        if isinstance(kind, list):
            kind = cast(list[object], kind)[self._draw(len(cast(list[object], kind)))]
        match kind:
            case "object":
                return self._object(node, depth)
            case "array":
                least = _bound(node, "minItems", 0)
                most = _bound(node, "maxItems", max(least, 3))
                wanted = least + self._draw(most - least + 1) if depth < 4 else least
                return [self.value(node.get("items", True), depth + 1) for _ in range(wanted)]
            case "string":
                return self._string(node)
            case "integer" | "number":
                return self._number(node, whole=kind == "integer")
            case "boolean":
                return bool(self._draw(2))
            case "null":
                return None
            case _:
                raise CannotFollow(f"type {kind!r}")

    def _object(self, node: Schema, depth: int) -> object:
        properties = cast(Schema, node.get("properties", {}))
        required = cast(list[str], node.get("required", []))
        chosen: Schema = {}
        for name, inner in properties.items():
            if name in required or (depth < 4 and self._draw(2)):
                chosen[name] = self.value(inner, depth + 1)
        for name in required:
            if name not in chosen:
                chosen[name] = self.value(node.get("additionalProperties", True), depth + 1)
        return chosen

    def _string(self, node: Schema) -> str:
        least = _bound(node, "minLength", 0)
        most = _bound(node, "maxLength", max(least, 24))
        if most < least:
            raise CannotFollow(f"maxLength {most} below minLength {least}")
        text = " ".join(self._word() for _ in range(1 + self._draw(4)))
        while len(text) < least:
            text += " " + self._word()
        return text[:most]

    def _number(self, node: Schema, *, whole: bool) -> object:
        low = _number(node, "minimum", "exclusiveMinimum", 1)
        high = _number(node, "maximum", "exclusiveMaximum", -1)
        if low is None:
            low = 0.0 if high is None or high >= 0 else high - 1000
        if high is None:
            high = low + 1000
        if high < low or (whole and int(high // 1) < -int(-low // 1)):
            raise CannotFollow("an empty range of numbers")
        if whole:
            first = -int(-low // 1)
            return first + self._draw(int(high // 1) - first + 1)
        return low + (high - low) * self._draw(1 << 16) / (1 << 16)

    def _word(self) -> str:
        letters = "bdfgklmnprstvz"
        return "".join(letters[self._draw(14)] + "aeiou"[self._draw(5)] for _ in range(2 + self._draw(2)))

    def _draw(self, below: int) -> int:
        self._drawn += 1
        if below < 1 or self._drawn > 64 * _MAX_NODES:
            raise CannotFollow("a schema without an instance of reasonable size")
        digest = blake2b(self._drawn.to_bytes(4, "little"), digest_size=8, key=self._seed).digest()
        return int.from_bytes(digest, "little") % below

    def _resolve(self, reference: str) -> object:
        if not reference.startswith("#"):
            raise CannotFollow(f"reference {reference!r}")
        found = self._root
        for part in reference[1:].strip("/").split("/") if reference != "#" else []:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise CannotFollow(f"reference {reference!r}")
            found = cast(Schema, found)[name]
        return found


def _bound(node: Schema, name: str, default: int) -> int:
    value = node.get(name, default)
    if not isinstance(value, int) or value < 0 or value > _MAX_NODES:
        raise CannotFollow(f"{name} {value!r}")
    return value


def _number(node: Schema, inclusive: str, exclusive: str, inward: int) -> float | None:
    value = node.get(inclusive)
    if isinstance(value, int | float):
        return value
    value = node.get(exclusive)
    return value + inward if isinstance(value, int | float) else None
