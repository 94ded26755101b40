"""Who gets the label for people, and what stands in the one for programs."""

from __future__ import annotations

import json

import msgspec
import pytest

from services.config import PostprocessConfig
from services.postprocess.labels import explicit_label, implicit_label
from services.postprocess.policy import configured_policy
from services.request import GuidedDecoding, InferenceRequest, SamplingParams

CHAT = InferenceRequest(kind="chat", model="m", sampling=SamplingParams(8))
BOUND = SamplingParams(8, guided=GuidedDecoding("regex", "a+"))


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({}, "\n\nAI"),
        ({"kind": "generate"}, "\n\nAI"),
        ({"kind": "completion"}, ""),
        ({"tools": ({"type": "function"},)}, ""),
        ({"sampling": BOUND}, ""),
    ],
)
def test_people_are_told_and_programs_are_not_disturbed(change: dict[str, object], label: str) -> None:
    request = msgspec.structs.replace(CHAT, **change)
    assert explicit_label("AI", request) == label and explicit_label("", request) == ""


def test_metadata_is_one_line_of_ascii() -> None:
    said = implicit_label("某公司\r\nx: y", "req-1")
    assert said.isascii() and said.isprintable() and implicit_label("", "req-1") == ""
    assert json.loads(said)["AIGC"] == {
        "Label": "1",
        "ContentProducer": "某公司\r\nx: y",
        "ProduceID": "req-1",
    }


def test_a_label_is_part_of_the_policys_version() -> None:
    configs = (PostprocessConfig(), PostprocessConfig(label_text="AI"), PostprocessConfig(label_producer="p"))
    assert len({configured_policy(config).version for config in configs}) == 3
