"""One model as a gateway knows it: what its engines are, its tokenizer, its adapters, its name in cache keys.

Rules: everything that needs the model's tokenizer goes through here, so that two models in one mesh never share one.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import msgspec

from ..answer import TokenText
from ..cache.key import ModelIdentity
from ..experts.engine import EngineInfo
from ..request import InferenceRequest, TokenLogprob, unpack_ids
from ..text.reasoning import ReasoningStream
from ..text.tokenizer import Tokenizer, decode_all
from ..text.tool_choice import is_forced
from .adapter_shelf import AdapterShelf


class Model:
    """What is served, once its engines have said what they are."""

    def __init__(
        self, info: EngineInfo, tokenizer: Tokenizer, template: str = "", adapters: AdapterShelf | None = None
    ) -> None:
        self.info, self.tokenizer, self.adapters = info, tokenizer, adapters
        self.identity = ModelIdentity(info.model, info.revision, template)

    @property
    def name(self) -> str:
        return self.info.model

    def identity_of(self, revision: str, adapter: str = "") -> ModelIdentity:
        """The same of another revision, which shares tokenizer and template ("" is the one that loaded first), and with
        an adapter."""
        if not adapter and (not revision or revision == self.identity.revision):
            return self.identity
        return msgspec.structs.replace(
            self.identity, revision=revision or self.identity.revision, adapter=adapter
        )

    async def tokenize(self, request: InferenceRequest, threads: Executor) -> tuple[bytes, ...]:
        """Packed token ids per prompt, rendered with the model's template for a chat. Raises RequestError."""
        tokenizer = self.tokenizer
        if text_chars(request) <= tokenizer.inline_chars:
            return ids_of(tokenizer, request)
        return await asyncio.get_running_loop().run_in_executor(threads, ids_of, tokenizer, request)

    def text_of(self, ids: bytes) -> str:
        """The text of a prompt that came as token ids."""
        return decode_all(self.tokenizer.decoder(), unpack_ids(ids))

    def token_text(self, token_id: int, logprob: TokenLogprob) -> TokenText:
        """Ids and numbers of an engine as the text that clients see."""
        name = self.tokenizer.token_text
        text, raw = name(token_id)
        return TokenText(text, raw, logprob.logprob, tuple([(*name(i), value) for i, value in logprob.top]))

    def reasoning_splitter(self, request: InferenceRequest, prompt: bytes) -> ReasoningStream | None:
        """What takes reasoning out of the text of an answer to that prompt; None where there can be none."""
        if request.kind != "chat":
            return None
        begins = self.tokenizer.reasoning(prompt)
        return None if begins is None else ReasoningStream(inside=begins)


def ids_of(tokenizer: Tokenizer, request: InferenceRequest) -> tuple[bytes, ...]:
    """As `Model.tokenize`, in the calling thread."""
    if request.kind == "chat":
        bound = request.sampling.guided is not None or is_forced(request.tool_choice)
        kwargs = request.template_kwargs
        return (tokenizer.render_chat(request.messages, request.tools, kwargs=kwargs, bound=bound),)
    return tuple([p if isinstance(p, bytes) else tokenizer.encode(p) for p in request.prompts])


def text_chars(request: InferenceRequest) -> int:
    """Roughly how much there is to tokenise."""
    if request.kind == "chat":
        return sum(len(str(message.get("content", ""))) for message in request.messages)
    return sum(map(len, request.prompts))
