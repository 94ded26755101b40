"""Ranges of everything that shapes sampling, in one place for HTTP and gRPC.

Rules: pure; takes a body of bodies.py whose types are right, gives a SamplingParams, or raises RequestError
with `param`. Comparisons are written as `not low <= x <= high`, which refuses NaN too (gRPC can carry it,
JSON cannot).
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from ..config import LimitsConfig
from ..errors import RequestError
from ..outcome import Reason
from ..request import GuidedDecoding, SamplingParams
from .bodies import GenerateBody, SamplingBody
from .headers import check_band
from .json_body import shown

MAX_DIMENSIONS = 65_536
MAX_MAX_TOKENS = 1_000_000_000
"""A number no context reaches; the model's own limit is applied once the prompt's tokens are counted."""
MAX_TOP_K = 1_000_000
MAX_REPETITION_PENALTY = 10.0
MAX_LOGIT_BIAS = 1024
MAX_STOP_TOKEN_IDS = 128
MAX_TOKEN_ID = 2**32 - 1
MAX_NAME_CHARS = 256
MAX_TEMPLATE_KWARGS = 16
TEMPLATE_NAME = "[A-Za-z_][A-Za-z0-9_]{0,63}"
MAX_TEMPLATE_INT = 2**63 - 1
MAX_METADATA = 16
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_VALUE_CHARS = 512

_TEMPLATE_NAME = re.compile(TEMPLATE_NAME)
_TIER_BANDS = {"auto": "", "default": "", "standard": "", "flex": "batch", "priority": "vip"}


class Described(Protocol):
    """The fields that only describe a request, of any body."""

    priority_band: str | None
    service_tier: None
    metadata: None
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: None


def invalid(param: str, rule: str) -> RequestError:
    """The refusal of a value: names the field, says the rule, never repeats the value at length."""
    return RequestError(Reason.INVALID_FIELD, f"{param} {rule}", param=param)


def unsupported(param: str, detail: str = "is not supported by this server") -> RequestError:
    """The refusal of something that OpenAI has and this server does not."""
    return RequestError(Reason.UNSUPPORTED_FIELD, f"{param} {detail}", param=param)


def check_int(value: int | None, param: str, low: int, high: int, default: int) -> int:
    """`value` when low ≤ value ≤ high, `default` when not given."""
    if value is None:
        return default
    if not low <= value <= high:
        raise invalid(param, f"must be between {low} and {high}")
    return value


def check_float(value: float | None, param: str, low: float, high: float, default: float) -> float:
    """`value` when low ≤ value ≤ high, `default` when not given. NaN is refused."""
    if value is None:
        return default
    if not low <= value <= high:
        raise invalid(param, f"must be between {low:g} and {high:g}")
    return value


def check_text(value: str | None, param: str, max_chars: int = MAX_NAME_CHARS) -> str:
    """A short text; "" when not given."""
    if value is None:
        return ""
    if len(value) > max_chars:
        raise invalid(param, f"has {len(value)} characters, {max_chars} are allowed")
    return value


def check_model(model: str) -> str:
    """A model's name, not empty. Whether it exists is decided later (MODEL_NOT_FOUND)."""
    if 1 <= len(model) <= MAX_NAME_CHARS:
        return model
    if not model:
        raise invalid("model", "must not be empty")
    return check_text(model, "model")


def check_max_tokens(value: int | None, param: str, limits: LimitsConfig) -> int:
    """Tokens to generate at most; the configured default when not given."""
    return check_int(value, param, 1, MAX_MAX_TOKENS, limits.default_max_tokens)


def check_stop(stop: str | list[str] | None, limits: LimitsConfig) -> tuple[str, ...]:
    """Stop strings: few, short, none empty."""
    if stop is None:
        return ()
    if isinstance(stop, str):
        stop = [stop]
    if len(stop) > limits.max_stop:
        raise invalid("stop", f"has {len(stop)} strings, {limits.max_stop} are allowed")
    for i, text in enumerate(stop):
        if not 1 <= len(text) <= limits.max_stop_chars:
            raise invalid(f"stop.{i}", f"must have 1 to {limits.max_stop_chars} characters")
    return tuple(stop)


def check_seed(seed: int | None) -> int | None:
    """Any signed 64-bit integer; bigger ones are refused, never rounded."""
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise invalid("seed", "must be a signed 64-bit integer")
    return seed


def sampling_params(
    body: SamplingBody,
    limits: LimitsConfig,
    *,
    max_tokens: int,
    logprobs: int | None,
    guided: GuidedDecoding | None,
) -> SamplingParams:
    """Check every sampling field of `body`; the three that differ by kind of body are given checked. Most fields of
    most requests are not given, and that is seen here: a call for each would cost more than the rest of the parsing."""
    repetition, top_p, top_k = body.repetition_penalty, body.top_p, body.top_k
    if repetition is not None:
        check_float(repetition, "repetition_penalty", 0.01, MAX_REPETITION_PENALTY, 1.0)
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise invalid("top_p", "must be above 0 and at most 1")
    if top_k is not None:
        check_int(top_k, "top_k", -1, MAX_TOP_K, 0)
    temperature, min_p, seed, stop = body.temperature, body.min_p, body.seed, body.stop
    ids, presence, frequency, bias = (
        body.stop_token_ids, body.presence_penalty, body.frequency_penalty, body.logit_bias
    )  # fmt: skip
    return SamplingParams(
        max_tokens,
        1.0 if temperature is None else check_float(temperature, "temperature", 0.0, 2.0, 1.0),
        1.0 if top_p is None else top_p,
        0 if top_k is None or top_k == -1 else top_k,
        0.0 if min_p is None else check_float(min_p, "min_p", 0.0, 1.0, 0.0),
        None if seed is None else check_seed(seed),
        () if stop is None else check_stop(stop, limits),
        () if ids is None else _stop_token_ids(ids),
        0.0 if presence is None else check_float(presence, "presence_penalty", -2.0, 2.0, 0.0),
        0.0 if frequency is None else check_float(frequency, "frequency_penalty", -2.0, 2.0, 0.0),
        1.0 if repetition is None else repetition,
        None if bias is None else _logit_bias(bias),
        logprobs,
        0 if body.min_tokens is None else check_int(body.min_tokens, "min_tokens", 0, max_tokens, 0),
        body.ignore_eos or False,
        guided,
    )


def generate_params(body: GenerateBody, limits: LimitsConfig) -> SamplingParams:
    """The few settings of POST /generate."""
    top_p = body.top_p
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise invalid("top_p", "must be above 0 and at most 1")
    return SamplingParams(
        check_max_tokens(body.max_tokens, "max_tokens", limits),
        check_float(body.temperature, "temperature", 0.0, 2.0, 1.0),
        1.0 if top_p is None else top_p,
        seed=check_seed(body.seed),
        stop=check_stop(body.stop, limits),
    )


def band_wish(body: SamplingBody | Described, header_band: str) -> str:
    """The wished band: the field `priority_band`, else the header, else what `service_tier` stands for."""
    if body.priority_band:
        return check_band(body.priority_band, "priority_band")
    tier = body.service_tier
    if tier is None:
        return header_band
    band = _TIER_BANDS.get(tier)
    if band is None:
        raise unsupported("service_tier", f"'{shown(tier)}' is not supported by this server")
    return header_band or band


def check_annotations(body: SamplingBody | Described) -> str:
    """Check the fields that only describe a request; returns the person it is made for ("" when unknown)."""
    if body.metadata is not None:
        if len(body.metadata) > MAX_METADATA:
            raise invalid("metadata", f"has more than {MAX_METADATA} entries")
        for key, value in body.metadata.items():
            if len(key) > MAX_METADATA_KEY_CHARS or len(value) > MAX_METADATA_VALUE_CHARS:
                raise invalid("metadata", "keys may have 64 characters, values 512")
    key, safety, user = body.prompt_cache_key, body.safety_identifier, body.user
    if key is None and safety is None and user is None:
        return ""
    check_text(key, "prompt_cache_key")
    safety = check_text(safety, "safety_identifier")
    return check_text(user, "user") or safety


def template_kwargs(kwargs: dict[str, Any] | None) -> dict[str, bool | int | float | str] | None:
    """What the chat template is to be told; whether it knows these names only the model can say. None stands for "not
    given" here too."""
    if not kwargs:
        return None
    if len(kwargs) > MAX_TEMPLATE_KWARGS:
        raise invalid("chat_template_kwargs", f"has {len(kwargs)} entries, {MAX_TEMPLATE_KWARGS} are allowed")
    for name, value in kwargs.items():
        if not _TEMPLATE_NAME.fullmatch(name):
            raise invalid("chat_template_kwargs", "names must be up to 64 letters, digits and '_'")
        if not isinstance(value, bool | int | float | str | None):
            raise invalid(f"chat_template_kwargs.{name}", "must be a text, a number, true or false")
        if isinstance(value, str) and len(value) > MAX_METADATA_VALUE_CHARS:
            raise invalid(f"chat_template_kwargs.{name}", f"may have {MAX_METADATA_VALUE_CHARS} characters")
        if isinstance(value, int | float) and not -MAX_TEMPLATE_INT <= value <= MAX_TEMPLATE_INT:
            raise invalid(f"chat_template_kwargs.{name}", "must be a number of 64 bits")
    return {name: value for name, value in kwargs.items() if value is not None} or None


def _stop_token_ids(ids: list[int]) -> tuple[int, ...]:
    if len(ids) > MAX_STOP_TOKEN_IDS:
        raise invalid("stop_token_ids", f"has {len(ids)} entries, {MAX_STOP_TOKEN_IDS} are allowed")
    for i, token_id in enumerate(ids):
        if not 0 <= token_id <= MAX_TOKEN_ID:
            raise invalid(f"stop_token_ids.{i}", f"must be between 0 and {MAX_TOKEN_ID}")
    return tuple(ids)


def _logit_bias(bias: dict[int, float] | None) -> dict[int, float] | None:
    if not bias:
        return None
    if len(bias) > MAX_LOGIT_BIAS:
        raise invalid("logit_bias", f"has {len(bias)} entries, {MAX_LOGIT_BIAS} are allowed")
    for token_id, value in bias.items():
        if not 0 <= token_id <= MAX_TOKEN_ID:
            raise invalid("logit_bias", f"token ids must be between 0 and {MAX_TOKEN_ID}")
        if not -100.0 <= value <= 100.0:
            raise invalid("logit_bias", "values must be between -100 and 100")
    return bias
