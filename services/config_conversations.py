"""The section `conversations` of config.py, which re-exports it: responses that are kept and continued.

Rules: as config.py. docs/adr/0039 says why it is as it is.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ConversationsConfig(BaseModel):
    """Responses (`/v1/responses`) that are kept on the server, so that `previous_response_id` can continue them. They
    live in the response cache's Redis, sealed, one secret per tenant, person and response; without one in the memory of
    the only gateway, and are gone with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Literal["off", "asked", "unless_refused"] = Field(
        default="off",
        description="off: nothing is kept; asked: what says `store: true`; unless_refused: OpenAI's own default, all "
        "but what says `store: false`",
    )
    keep_s: float = Field(default=30 * 86_400.0, gt=0, description="from its end; OpenAI's 30 days")
    max_record_bytes: int = Field(
        default=2 * 1024 * 1024, ge=1024, description="of one response with what was new in its input"
    )
    max_conversation_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="of all earlier turns that one request continues"
    )
    max_turns: int = Field(default=512, ge=1, description="that one request continues")
    max_tenant_bytes: int = Field(
        default=256 * 1024 * 1024, ge=1024, description="of one tenant's responses; then it must delete some"
    )
    timeout_s: float = Field(default=0.25, gt=0, description="a reading of the store")
