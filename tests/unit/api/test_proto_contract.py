"""The proto may grow; it may not break who has a client already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from services.api._generated.expertmesh.v1 import inference_pb2
from services.api.bodies import CompletionBody
from services.api.proto_contract import contract

HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"


def test_nothing_released_is_gone_or_changed() -> None:
    released = (HERE / "inference_contract.txt").read_text().splitlines()
    assert set(released) - set(contract()) == set()


def test_what_is_new_is_written_down() -> None:
    released = (HERE / "inference_contract.txt").read_text().splitlines()
    assert contract() == released, (
        "python -m services.api.proto_contract > tests/unit/api/inference_contract.txt"
    )


def test_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    out = tmp_path / "set.pb"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--descriptor_set_out={out}"]
    pytest.importorskip("grpc_tools")
    subprocess.run([*protoc, "expertmesh/v1/inference.proto"], check=True)
    pool = DescriptorPool()
    pool.Add(FileDescriptorSet.FromString(out.read_bytes()).file[0])
    assert contract(pool.FindFileByName("expertmesh/v1/inference.proto")) == contract(), "make proto"


HTTP_ONLY = {
    # A method of its own, or always sent, on gRPC.
    "stream", "stream_options",
    # OpenAI's older or second names for something that gRPC has once.
    "best_of", "safety_identifier", "service_tier", "suffix",
    # Accepted on HTTP without effect.
    "prompt_cache_key",
}  # fmt: skip


def test_grpc_has_every_field_that_http_has() -> None:
    messages = (
        inference_pb2.TextRequest,
        inference_pb2.Sampling,
        inference_pb2.AnswerForm,
        inference_pb2.Options,
    )
    known = {field.name for message in messages for field in message.DESCRIPTOR.fields}
    http = set(CompletionBody.__struct_fields__) - HTTP_ONLY - {"prompt"}
    assert http <= known
