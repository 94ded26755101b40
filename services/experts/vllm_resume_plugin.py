"""Lets a guided stream go on in another engine. Loaded by vLLM in each of its processes, through the entry point
`expertmesh_resume` of the group `vllm.general_plugins`.

A migrated stream comes as prompt + emitted tokens, all of them prompt to vLLM, so that its grammar would begin
anew. The job says in `extra_args` how many tokens at the prompt's end are the answer's own; after compiling the
grammar those are accepted into it, and decoding continues where the lost engine stopped. Where the grammar does
not take them the request fails (it is a bug of ours or other weights), it never goes on unconstrained.

Rules: one patch, of `StructuredOutputManager._create_grammar` (vLLM 0.26 and 0.32 have it in this form);
`supported()` tells the engine adapter whether it is in place, and without it guided resumption is refused.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

EMITTED_KEY = "expertmesh_emitted_tokens"
_MARK = "_expertmesh_resume"


def register() -> None:
    """Apply the patch. May be called any number of times."""
    from vllm.v1.structured_output import StructuredOutputManager

    shipped = getattr(StructuredOutputManager, "_create_grammar", None)
    if shipped is None:
        log.warning("expertmesh: this vLLM creates grammars elsewhere: guided streams cannot migrate")
        return
    if supported():
        return

    def create(self, request):  # type: ignore[no-untyped-def]  # vLLM's signature
        grammar = shipped(self, request)
        emitted = (request.sampling_params.extra_args or {}).get(EMITTED_KEY, 0)
        if emitted and not grammar.accept_tokens(request.request_id, request.prompt_token_ids[-emitted:]):
            raise ValueError("the emitted tokens do not follow the grammar")
        return grammar

    StructuredOutputManager._create_grammar = create  # type: ignore[method-assign]
    setattr(StructuredOutputManager, _MARK, True)


def supported() -> bool:
    """The patch is in place in this process (vLLM loads plugins in all its processes or in none)."""
    from vllm.v1.structured_output import StructuredOutputManager

    return getattr(StructuredOutputManager, _MARK, False)
