"""The gRPC contract as lines of text, one promise a line, so that a test can hold the past to the present.

Rules: pure. `python -m services.api.proto_contract` prints the lines; those that were ever released stand in
tests/unit/api/inference_contract.txt, and a line may be added there but none may change or go.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from ._generated.expertmesh.v1 import inference_pb2


def contract(file: FileDescriptor = inference_pb2.DESCRIPTOR) -> list[str]:
    """Every method, field and enum value, in a form that changes when its meaning on the wire does."""
    lines: list[str] = []
    for service in file.services_by_name.values():
        for method in service.methods:
            kinds = [
                "stream " if streams else "" for streams in (method.client_streaming, method.server_streaming)
            ]
            lines.append(
                f"rpc {method.full_name} ({kinds[0]}{method.input_type.full_name})"
                f" returns ({kinds[1]}{method.output_type.full_name})"
            )
    for message in file.message_types_by_name.values():
        lines.extend(_fields(message))
    for enum in file.enum_types_by_name.values():
        lines.extend(f"enum {enum.full_name} {value.name} = {value.number}" for value in enum.values)
    return sorted(lines)


def _fields(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        presence = "repeated " if field.is_repeated else "optional " if field.has_presence else ""
        oneof = field.containing_oneof
        group = f" of {oneof.name}" if oneof is not None and not oneof.name.startswith("_") else ""
        yield f"field {message.full_name}.{field.name} = {field.number} {presence}{_kind(field)}{group}"
    for nested in message.nested_types:
        yield from _fields(nested)


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.full_name
    if field.enum_type is not None:
        return field.enum_type.full_name
    return {
        value: name.removeprefix("TYPE_").lower()
        for name, value in vars(FieldDescriptor).items()
        if name.startswith("TYPE_")
    }[field.type]


if __name__ == "__main__":
    sys.stdout.write("\n".join(contract()) + "\n")
