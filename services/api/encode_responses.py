"""Answers in the shape of OpenAI's Responses API: one object, or its events with names and numbers.

Rules: pure, synchronous; one object per answer. The output is a list of items, each opened, told in pieces and closed:
what was thought, a message, a call. Items and their events are made in one place (`Output`), so that the whole answer
and the streamed one cannot differ. There are no event ids, and no [DONE]: the last event says how it ended.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..answer import AnswerHead, AnswerTail, Delta, ToolCallDelta
from ..errors import MeshError
from ..request import Usage
from .encode_parts import dumps, error_fields

Json = dict[str, object]
Event = tuple[str, Mapping[str, object]]
"""Its name and its fields, without type and number."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Output:
    """The items of one answer as they come."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._closed: list[Json] = []
        self._open: _Item | None = None
        self.finish = "stop"

    @property
    def items(self) -> list[Json]:
        """Those that are closed."""
        return self._closed

    def add(self, delta: Delta) -> list[Event]:
        """One more piece."""
        events: list[Event] = []
        if delta.reasoning:
            self._say(events, "reasoning", delta.reasoning)
        if delta.text:
            self._say(events, "message", delta.text)
        for piece in delta.tool_calls:
            if piece.name:
                self._begin(events, "function_call", piece)
            if piece.arguments and self._open is not None:
                events.append(self._open.say(piece.arguments))
        if delta.finish is not None:
            self.finish = delta.finish
        return events

    def close(self) -> list[Event]:
        """The answer is over. One that said nothing is an empty message."""
        events: list[Event] = []
        if self._open is None and not self._closed:
            self._begin(events, "message")
        self._end(events, "incomplete" if self.finish in _INCOMPLETE else "completed")
        return events

    @property
    def incomplete_details(self) -> Json | None:
        reason = _INCOMPLETE.get(self.finish)
        return None if reason is None else {"reason": reason}

    def _say(self, events: list[Event], kind: str, text: str) -> None:
        if self._open is None or self._open.kind != kind:
            self._begin(events, kind)
        assert self._open is not None
        events.append(self._open.say(text))

    def _begin(self, events: list[Event], kind: str, call: ToolCallDelta | None = None) -> None:
        self._end(events, "completed")
        self._open = _Item(kind, len(self._closed), self._request_id, call)
        events += self._open.begin()

    def _end(self, events: list[Event], status: str) -> None:
        if self._open is not None:
            events += self._open.end(status)
            self._closed.append(self._open.whole(status))
            self._open = None


class _Item:
    """One item that is being told. The names of its events begin with `response.`."""

    def __init__(self, kind: str, index: int, request_id: str, call: ToolCallDelta | None) -> None:
        self.kind, self._index, self._call = kind, index, call
        self._id = f"{_PREFIXES[kind]}{request_id}-{index}"
        self._texts: list[str] = []

    def begin(self) -> list[Event]:
        added = ("output_item.added", {"output_index": self._index, "item": self._shown("in_progress", "")})
        if self._call is not None:
            return [added]
        return [added, ("content_part.added", {**self._place(), "part": self._part("")})]

    def say(self, text: str) -> Event:
        self._texts.append(text)
        if self._call is not None:
            return "function_call_arguments.delta", {**self._place(), "delta": text}
        if self.kind == "reasoning":
            return "reasoning_text.delta", {**self._place(), "delta": text}
        return "output_text.delta", {**self._place(), "delta": text, "logprobs": []}

    def end(self, status: str) -> list[Event]:
        text, place = "".join(self._texts), self._place()
        done = ("output_item.done", {"output_index": self._index, "item": self.whole(status)})
        if self._call is not None:
            told = {**place, "name": self._call.name, "arguments": text}
            return [("function_call_arguments.done", told), done]
        part = ("content_part.done", {**place, "part": self._part(text)})
        if self.kind == "reasoning":
            return [("reasoning_text.done", {**place, "text": text}), part, done]
        return [("output_text.done", {**place, "text": text, "logprobs": []}), part, done]

    def whole(self, status: str) -> Json:
        return self._shown(status, "".join(self._texts), open_=False)

    def _place(self) -> Json:
        place: Json = {"item_id": self._id, "output_index": self._index}
        return place if self._call is not None else {**place, "content_index": 0}

    def _part(self, text: str) -> Json:
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _shown(self, status: str, text: str, *, open_: bool = True) -> Json:
        item: Json = {"type": self.kind, "id": self._id, "status": status}
        if self._call is not None:
            return {**item, "call_id": self._call.call_id, "name": self._call.name, "arguments": text}
        content = [] if open_ else [self._part(text)]
        if self.kind == "reasoning":
            return {**item, "summary": [], "content": content}
        return {**item, "role": "assistant", "content": content}


_PREFIXES = {"reasoning": "rs_", "message": "msg_", "function_call": "fc_"}


def response_fields(
    told: Mapping[str, object], head: AnswerHead, status: str, output: Output | None, usage: Usage | None
) -> Json:
    """The response object, at any time of its life. `told` is what it repeats of its request."""
    return {
        "id": f"resp_{head.request_id}",
        "object": "response",
        "created_at": head.created,
        "status": status,
        "error": None,
        "incomplete_details": output.incomplete_details if output is not None else None,
        "model": head.model,
        "output": output.items if output is not None else [],
        "usage": None if usage is None else _usage(usage),
        **told,
    }


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


class ResponsesUnaryEncoder:
    """One response object."""

    def __init__(self, told: Mapping[str, object]) -> None:
        self._told = told
        self._head = AnswerHead("", "", 0)
        self._output = Output("")

    def head(self, head: AnswerHead) -> None:
        """Known before the first token."""
        self._head, self._output = head, Output(head.request_id)

    def delta(self, delta: Delta) -> None:
        """One more piece."""
        self._output.add(delta)

    def tail(self, tail: AnswerTail) -> bytes:
        """The body."""
        self._output.close()
        status = status_of(self._output)
        return dumps(response_fields(self._told, self._head, status, self._output, tail.usage))


class ResponsesStreamEncoder:
    """Server-sent events, each with its name and the number of its place."""

    def __init__(self, told: Mapping[str, object]) -> None:
        self._told = told
        self._head = AnswerHead("", "", 0)
        self._output = Output("")
        self._number = 0

    def head(self, head: AnswerHead) -> bytes:
        """The events that open the stream."""
        self._head, self._output = head, Output(head.request_id)
        response = response_fields(self._told, head, "in_progress", None, None)
        return self._event("created", {"response": response}) + self._event(
            "in_progress", {"response": response}
        )

    def delta(self, delta: Delta) -> bytes:
        """The events of one delta; most often one."""
        return b"".join([self._event(*event) for event in self._output.add(delta)])

    def around(self, choice: int) -> None:
        """Every event has a number of its own: there is no short way."""

    def had(self, delta: Delta) -> None:
        """A stream that was cut is had again whole (responses.py refuses to resume): nobody has a part of it."""
        raise AssertionError("the Responses API does not resume")

    def tail(self, tail: AnswerTail) -> bytes:
        """What ends the stream."""
        events = [self._event(*event) for event in self._output.close()]
        status = status_of(self._output)
        response = response_fields(self._told, self._head, status, self._output, tail.usage)
        return b"".join(events) + self._event(status, {"response": response})

    def error(self, error: MeshError) -> bytes:
        """The response failed, as its last event says."""
        failed = response_fields(self._told, self._head, "failed", self._output, None)
        told = error_fields(error)["error"]
        assert isinstance(told, dict)
        failed["error"] = {"code": told["code"], "message": told["message"]}
        return self._event("failed", {"response": failed})

    def _event(self, name: str, fields: Mapping[str, object]) -> bytes:
        number, self._number = self._number, self._number + 1
        told = dumps({"type": f"response.{name}", "sequence_number": number, **fields})
        return b"event: response.%b\ndata: %b\n\n" % (name.encode(), told)


def status_of(output: Output) -> str:
    """Of an answer that is over."""
    return "incomplete" if output.incomplete_details is not None else "completed"
