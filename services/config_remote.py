"""The section `gateway.remote` of config.py, which re-exports it: a server elsewhere that takes what we refuse.

Rules: as config.py. docs/hybrid.md says who may leave, and what an answer from there loses.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class RemoteConfig(BaseModel):
    """An OpenAI-compatible server. Off while `url` is empty. `when`: overflow is what our own queue refuses as
    overloaded or too late, and what comes while no engine of ours moves. Bounds are those of one gateway."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="", description="up to /v1: https, or http to this host alone")
    model: str = Field(default="", description="what it is asked for, for requests to our own first model")
    key_file: str = Field(
        default="", description="its API key, on each gateway's host; read again when it changes"
    )
    ca_file: str = Field(
        default="", description="PEM: only its certificates count; empty: the public authorities"
    )
    when: Literal["overflow"] = "overflow"
    max_concurrent: int = Field(default=32, ge=1, description="requests there at a time")
    connect_timeout_s: float = Field(default=2.0, gt=0)
    first_timeout_s: float = Field(default=10.0, gt=0, description="to its first text, connecting included")
    idle_timeout_s: float = Field(default=15.0, gt=0, description="between two pieces of text")
    pause_s: float = Field(
        default=10.0, gt=0, description="it is left alone for so long when it does not work"
    )

    @property
    def enabled(self) -> bool:
        return bool(self.url)

    @property
    def host(self) -> str:
        """As the audit log names it."""
        return urlsplit(self.url).netloc

    @field_validator("url")
    @classmethod
    def _safe(cls, value: str) -> str:
        if not value:
            return value
        url = urlsplit(value)
        if (
            url.scheme not in ("http", "https")
            or not url.hostname
            or url.query
            or url.fragment
            or "@" in url.netloc
        ):
            raise ValueError("it must be an address like https://api.example.com/v1")
        if url.scheme == "http" and url.hostname not in LOOPBACK:
            raise ValueError("prompts leave over https, or over http to this host alone")
        return value.rstrip("/")

    def model_post_init(self, _: object) -> None:
        """Raises ValueError: the model's name there is missing, or nobody is named."""
        if bool(self.url) != bool(self.model):
            raise ValueError("give both the address and the name of the model there")
