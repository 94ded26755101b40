"""What the audit log says: one struct per kind of record, and the words they use.

Rules: plain data, no I/O. Nothing a client wrote stands here as it was written: no prompt, no answer, no message of an
error, no name that was not found, no key. Persons and contents are keyed digests (digest.py). A field at its default is
left out of the line. `seq`, `prev`, `hash` and `sig` are the chain's (chain.py) and stand in no struct.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Event(StrEnum):
    """Kinds of records."""

    CALL = "call"
    ACT = "act"
    KEYS = "keys"
    GAP = "gap"
    BEGIN = "begin"
    CHECKPOINT = "checkpoint"
    END = "end"
    RETIRED = "retired"
    UNMADE = "unmade"
    ERASE = "erase"


SIGNED = frozenset((Event.CHECKPOINT, Event.END))
"""Records that carry a signature."""


class CallRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of a model, refused ones too. `key` is the key's name. `person`, `prompt` and `answer` are digests;
    `answer` is of what was handed to the client's connection, also where the answer was cut off. `reason` is why it did
    not complete. Durations in milliseconds. `remote` is the host that its content was sent to, `left` why (also
    where nothing came of it)."""

    time: str
    event: str
    request_id: str
    outcome: str
    reason: str = ""
    tenant: str = ""
    key: str = ""
    person: str = ""
    address: str = ""
    forwarded_for: str = ""
    protocol: str = ""
    endpoint: str = ""
    kind: str = ""
    model: str = ""
    revision: str = ""
    policy: str = ""
    stream: bool = False
    choices: int = 0
    max_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache: str = ""
    journal: str = ""
    duration_ms: float = 0.0
    prompt: str = ""
    answer: str = ""
    remote: str = ""
    left: str = ""


class ActRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an operator or an auditor did, or was refused. `detail` is what was asked for, a person as a digest."""

    time: str
    event: str
    request_id: str
    outcome: str
    reason: str = ""
    tenant: str = ""
    key: str = ""
    address: str = ""
    forwarded_for: str = ""
    protocol: str = ""
    endpoint: str = ""
    detail: str = ""


class ErasedPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place of an erasure. `state`: erased (looked again, nothing left), kept (`why`, `until`), pending (not done,
    or not shown to be). `found` before and `left` after; -1: it cannot be counted there."""

    place: str
    state: str
    found: int = 0
    left: int = 0
    why: str = ""
    until: str = ""


class EraseRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an erasure of a person's data did (services/erasure). `key` is whose ran it; `person` a digest; `outcome` is
    complete (no place is pending) or incomplete."""

    time: str
    event: str
    request_id: str
    outcome: str
    tenant: str
    person: str
    key: str = ""
    places: tuple[ErasedPlace, ...] = ()


class KeysRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The gateway read the key file again: names of keys that came, went, or may something else than before."""

    time: str
    event: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class GapRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The log could not be written since `since`: `lost` records are missing, `refused` calls were refused for it."""

    time: str
    event: str
    since: str
    why: str
    lost: int = 0
    refused: int = 0


class Seen(msgspec.Struct, frozen=True):
    """A signed record of a chain: what was seen there cannot go unnoticed any more."""

    chain: str
    seq: int
    hash: str


class Torn(msgspec.Struct, frozen=True):
    """Bytes after the last whole record of a file whose process died while writing. They stay where they are."""

    segment: str
    num_bytes: int
    sha256: str


class BeginRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """First of a file. `why` is start (a new chain), restart, crash, rotated, key lost, or damaged (records that had
    been signed are gone). `public_key` is of the key that signs next, number `index`; `continues` the file
    before; `others` what was signed last in the other chains of the directory."""

    time: str
    event: str
    chain: str
    segment: int
    why: str
    index: int
    public_key: str
    continues: str = ""
    torn: Torn | None = None
    others: tuple[Seen, ...] = ()
    version: int = 1


class CheckpointRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Signed: everything up to here. `next_key` is the public key of the next one; the key that signed this is then
    destroyed. `open` calls had begun and not ended. As the event "end": the file is complete."""

    time: str
    event: str
    index: int
    next_key: str
    open: int = 0


class RetiredRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Files up to number `through` are past their time and are deleted next. `at_seq` and `at_hash` are of their last
    record."""

    time: str
    event: str
    through: int
    at_seq: int
    at_hash: str
    keep_days: int


class AnyRecord(msgspec.Struct, frozen=True):
    """Any record, as far as the chain's rules need it."""

    time: str
    event: str
    chain: str = ""
    segment: int = 0
    why: str = ""
    public_key: str = ""
    continues: str = ""
    torn: Torn | None = None
    others: tuple[Seen, ...] = ()
    index: int = -1
    next_key: str = ""
    open: int = 0
    through: int = 0
    at_seq: int = 0
    at_hash: str = ""
    lost: int = 0


encode = msgspec.json.Encoder().encode
"""A struct as the line's inner JSON object."""
