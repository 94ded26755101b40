"""The mesh's answers → gRPC's messages and statuses.

Rules: pure (protobuf is data). A plain text delta is written as bytes by hand, because building and
serialising the message takes several times as long; a property test holds these bytes to protobuf's own.
"""

from __future__ import annotations

import math

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ..answer import AnswerHead, AnswerTail, Delta, TokenText
from ..errors import MeshError
from ..request import InferenceRequest, Usage
from ._generated.expertmesh.v1 import inference_pb2 as pb
from .encode_parts import MIN_LOGPROB, whole_tool_calls
from .encode_unary import Collected, Collector
from .status import STATUS, GrpcCode

ERROR_DOMAIN = "expertmesh"

_FINISH = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "tool_calls": pb.FINISH_REASON_TOOL_CALLS,
    "content_filter": pb.FINISH_REASON_CONTENT_FILTER,
}
_BYTE = [bytes((i,)) for i in range(128)]


def event_begin(head: AnswerHead) -> bytes:
    """StreamEvent.begin"""
    begin = pb.StreamBegin(
        request_id=head.request_id,
        model=head.model,
        created=head.created,
        cache=head.cache,
        resumable=bool(head.resumable),
        replayed=head.replayed,
        passages=_passages(head),
        aigc=head.aigc,
        served_by=head.served_by,
    )
    return pb.StreamEvent(begin=begin).SerializeToString()


def event_delta(delta: Delta) -> bytes:
    """StreamEvent.delta"""
    if delta.finish is None and delta.logprobs is None and not delta.tool_calls and not delta.reasoning:
        text = delta.text.encode()
        inner = b"\x12" + _varint(len(text)) + text if text else b""
        if delta.choice:
            inner = b"\x08" + _varint(delta.choice) + inner
        return b"\x12" + _varint(len(inner)) + inner
    pieces = [
        pb.ToolCallDelta(index=piece.index, id=piece.call_id, name=piece.name, arguments=piece.arguments)
        for piece in delta.tool_calls
    ]
    message = pb.StreamDelta(
        choice=delta.choice,
        text=delta.text,
        finish_reason=_FINISH[delta.finish],
        tool_calls=pieces,
        logprobs=[_logprob(token) for token in delta.logprobs or ()],
        reasoning_content=delta.reasoning,
    )
    return pb.StreamEvent(delta=message).SerializeToString()


def event_end(tail: AnswerTail) -> bytes:
    """StreamEvent.end"""
    end = pb.StreamEnd(usage=_usage(tail.usage), confidence=tail.confidence or ())
    return pb.StreamEvent(end=end).SerializeToString()


def with_id(event: bytes, event_id: bytes) -> bytes:
    """The same StreamEvent with its `event_id` (protobuf: fields may be appended)."""
    return event + b"\x22" + _varint(len(event_id)) + event_id


class WholeAnswer(Collector):
    """Collects the deltas of a unary call; `tail` gives the serialised ChatResponse or TextResponse."""

    def __init__(self, request: InferenceRequest) -> None:
        super().__init__(request.num_choices)
        self._chat = request.kind == "chat"

    def tail(self, tail: AnswerTail) -> bytes:
        """The response."""
        head = self.answer
        assert head is not None, "head comes before tail"
        scores = tail.confidence or (None,) * len(self.choices)
        scored = list(zip(self.choices, scores, strict=True))
        if self._chat:
            choices = [_chat_choice(i, *each) for i, each in enumerate(scored)]
            response = pb.ChatResponse(choices=choices, passages=_passages(head), served_by=head.served_by)
        else:
            response = pb.TextResponse(choices=[_text_choice(i, *each) for i, each in enumerate(scored)])
        response.request_id, response.model = head.request_id, head.model
        response.created, response.cache, response.aigc = head.created, head.cache, head.aigc
        response.resumable, response.replayed = bool(head.resumable), head.replayed
        response.usage.CopyFrom(_usage(tail.usage))
        return response.SerializeToString()


def _passages(head: AnswerHead) -> list[pb.Passage]:
    return [
        pb.Passage(document=one.document, start=one.start, end=one.end, score=one.score)
        for one in head.passages
    ]


def status_of(error: MeshError) -> tuple[GrpcCode, str, bytes]:
    """(code, message, serialised google.rpc.Status for the trailer `grpc-status-details-bin`)."""
    row = STATUS[error.reason]
    info = ErrorInfo(reason=error.reason.name, domain=ERROR_DOMAIN, metadata={"code": row.code})
    if error.param is not None:
        info.metadata["param"] = error.param
    details = [AnyMessage()]
    details[0].Pack(info)
    if error.retry_after_s is not None and math.isfinite(error.retry_after_s):
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(max(0, round(error.retry_after_s * 1000)))
        details.append(AnyMessage())
        details[1].Pack(retry)
    status = Status(code=int(row.grpc), message=error.message, details=details)
    return row.grpc, error.message, status.SerializeToString()


def models(names: tuple[str, ...], created: int) -> bytes:
    """ListModelsResponse"""
    listed = [pb.Model(id=name, created=created, owned_by="expertmesh") for name in names]
    return pb.ListModelsResponse(models=listed).SerializeToString()


def _chat_choice(index: int, choice: Collected, confidence: float | None) -> pb.ChatChoice:
    calls = [
        pb.ToolCall(id=call.call_id, name=call.name, arguments=call.arguments)
        for call in whole_tool_calls(choice.tool_calls or ())
    ]
    return pb.ChatChoice(
        index=index,
        content=choice.text,
        tool_calls=calls,
        finish_reason=_FINISH[choice.finish or "stop"],
        logprobs=[_logprob(token) for token in choice.logprobs or ()],
        confidence=confidence,
        reasoning_content=choice.reasoning,
    )


def _text_choice(index: int, choice: Collected, confidence: float | None) -> pb.TextChoice:
    return pb.TextChoice(
        index=index,
        text=choice.text,
        finish_reason=_FINISH[choice.finish or "stop"],
        logprobs=[_logprob(token) for token in choice.logprobs or ()],
        confidence=confidence,
    )


def _logprob(token: TokenText) -> pb.TokenLogprob:
    top = [
        pb.TokenLogprob(token=text, raw=raw, logprob=max(logprob, MIN_LOGPROB))
        for text, raw, logprob in token.top
    ]
    return pb.TokenLogprob(token=token.text, raw=token.raw, logprob=max(token.logprob, MIN_LOGPROB), top=top)


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def _varint(value: int) -> bytes:
    """Protobuf's base-128 integer."""
    if value < 128:
        return _BYTE[value]
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
