"""Seeded hostile request bodies: valid ones, damaged in the ways that parsers of peers have fallen to."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "u"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "3", "tool_call_id": "c"},
    ],
    "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "n": 2, "stream": True, "stop": ["a"],
    "seed": 1,
    "stream_options": {"include_usage": True}, "presence_penalty": 0.1, "frequency_penalty": 0.1,
    "logit_bias": {"5": 1},
    "logprobs": True, "top_logprobs": 2, "user": "u", "metadata": {"k": "v"}, "top_k": 5, "min_p": 0.1,
    "tools": [{"type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}}, "service_tier": "auto",
    "confidence": True,
}  # fmt: skip
GUIDED: dict[str, Any] = {
    "model": "m", "messages": [{"role": "user", "content": "u"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {
        "type": "object", "properties": {"a": {"type": "string", "pattern": "[a-z]{2}", "maxLength": 5},
        "b": {"$ref": "#/$defs/b"}},
        "$defs": {"b": {"anyOf": [{"type": "array", "items": {"enum": [1]}}, True]}}}}},
}  # fmt: skip
TEXT: dict[str, Any] = {
    "model": "m",
    "prompt": ["a", "b"],
    "max_tokens": 5,
    "n": 2,
    "echo": True,
    "best_of": 2,
}
IDS: dict[str, Any] = {"model": "m", "prompt": [[1, 2], [3]], "logprobs": 3, "guided_regex": "(a|b){2,3}"}
PLAIN: dict[str, Any] = {"prompt": "hello", "max_tokens": 5, "temperature": 0.1, "stop": "x", "seed": 3}

RESPONSES: dict[str, Any] = {
    "model": "m", "instructions": "s", "max_output_tokens": 5, "stream": True, "store": False,
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"}, "text": {"format": {"type": "text"}},
    "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"},
}  # fmt: skip

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**63, 2**70, -(2**63), 10**400, 0.0, -0.0, 1e308, 5e-324,
    0.5, "",
    "a", "\x00", "\ufeff", "\u202e", "😀" * 50, "x" * 3000, "{}", "[" * 200, "((((a*)*)*)*)*", "(a{999}){999}",
    "#/", [],
    {}, [[]], [None], [{}], {"": None}, {"type": "image_url"}, {"type": "text", "text": 5},
    {"$ref": "#"}, [1, "a", [2]],
    {"__proto__": 1}, {"role": "system", "content": None},
    {"type": "object", "properties": {"a": {"$ref": "#/x"}}},
]  # fmt: skip
RAW: list[bytes] = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xff"',
    b'"\xed\xa0\x80"',
    b"[" * 5000,
    b'{"a":' * 5000, b"1" * 5000, b"0." + b"1" * 5000, b"01", b"+1", b".5", b"1.", b"0x10", b"'a'", b"tru",
    b'"\\x"', b'"\n"', b"/**/1", b"undefined", b'{"a":1,"a":2}', b"1 2", b"",
]  # fmt: skip


def hostile_bodies(seed: int, count: int) -> Iterator[bytes]:
    """`count` bodies, the same for the same seed."""
    random = Random(seed)
    for _ in range(count):
        body = json.loads(json.dumps(random.choice((CHAT, GUIDED, TEXT, IDS, PLAIN, RESPONSES))))
        for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
            _damage(random, body)
        encoded = json.dumps(body, ensure_ascii=random.random() < 0.5).encode("utf-8", "replace")
        kind = random.random()
        if kind < 0.15:
            encoded = encoded.replace(b'"@@"', random.choice(RAW))
        elif kind < 0.25:
            encoded = encoded[: random.randrange(len(encoded) + 1)]
        elif kind < 0.35:
            at = random.randrange(len(encoded))
            encoded = encoded[:at] + bytes([random.randrange(256)]) + encoded[at + random.randrange(2) :]
        elif kind < 0.4:
            encoded += random.choice((b"x", b"{}", b"\x00", b"]", b"\n\n\n"))
        elif kind < 0.45:
            encoded += b" " * 20_000
        yield encoded


def _damage(random: Random, body: Any) -> None:
    """Change one place of `body`, at any depth."""
    at = body
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = random.choice(keys) if keys else None
        if key is not None and isinstance(at[key], dict | list) and at[key] and random.random() < 0.7:
            at = at[key]
            continue
        value = "@@" if random.random() < 0.2 else copy.deepcopy(random.choice(VALUES))
        action = random.random()
        if isinstance(at, list):
            at.insert(random.randrange(len(at) + 1), value)
        elif action < 0.15 and key is not None:
            del at[key]
        elif action < 0.3:
            at[random.choice(("x", "type", "$ref", "stream", "content", "a" * 2000, "\x00"))] = value
        elif key is not None:
            at[key] = value
        return
