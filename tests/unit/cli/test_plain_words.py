"""What a failed deployment says on the screen."""

from __future__ import annotations

from services.cli.ray_session import plain_words

SERVE = """The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:x() (pid=1)
  File "deployment.py", line 93, in __init__
    await self._rank.start()
services.errors.ConfigError: max_model_len=2048, but the model ends at 1024 tokens"""


def test_what_the_operator_must_change_is_said_alone() -> None:
    assert plain_words(SERVE) == "max_model_len=2048, but the model ends at 1024 tokens"


def test_anything_else_is_shown_whole() -> None:
    assert plain_words("Traceback\nKeyError: 'x'") == "Traceback\nKeyError: 'x'"
