"""What a graph's options name is looked at before anything starts: a wrong word here would otherwise be a traceback of
a replica, half a minute later.

Rules: each raises ConfigError naming the setting; nothing is changed, nothing is connected to.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from services.config import (
    AuditConfig,
    ConversationsConfig,
    EmbeddingConfig,
    OidcConfig,
    PostprocessConfig,
    RemoteConfig,
)
from services.conversations.factory import check as check_conversations
from services.embedding.factory import served_name
from services.errors import ConfigError
from services.experts import weight_files
from services.postprocess.policy import configured_policy

from .options import Options


def cache(redis_url: str, semantic_model: str) -> None:
    """Where answers are kept, and what embeds questions. A store that does not answer is no error."""
    if redis_url and not redis_url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigError("EXPERTMESH_REDIS_URL (redis_url) must begin with redis://, rediss:// or unix://")
    if semantic_model not in ("minilm", "e5", "off") and not Path(semantic_model).is_dir():
        raise ConfigError(
            f"EXPERTMESH_SEMANTIC_MODEL (semantic_model) is {semantic_model!r}: "
            "neither minilm, e5 nor off, nor a folder"
        )


def embedding(model: str) -> EmbeddingConfig:
    """What `/v1/embeddings` serves; nothing where the setting is empty."""
    if not model:
        return EmbeddingConfig()
    if model != "minilm" and not (Path(model) / "tokenizer.json").is_file():
        raise ConfigError(
            f"EXPERTMESH_EMBEDDING_MODEL (embedding_model) is {model!r}: neither minilm nor a folder with a model and "
            "its tokenizer.json"
        )
    return EmbeddingConfig(model=model if model == "minilm" else resolved(model), name=served_name(model))


def postprocess(options: Options) -> PostprocessConfig:
    """The chain's settings, with a list of words that can be read, or none."""
    config = PostprocessConfig(
        blocked_words_file=resolved(options.blocked_words_file),
        label_text=options.label_text,
        label_producer=options.label_producer,
    )
    configured_policy(config)
    return config


def model_folder(model: str) -> str:
    """The folder that `make run` serves instead of the embedded model."""
    weight_files.refuse_encrypted(Path(model))
    if not (Path(model) / "config.json").is_file():
        raise ConfigError(
            f"no model: {model} is neither exact nor sparse, nor a folder of weights with a config.json"
        )
    return model


def context_of(folder: str) -> int:
    """Tokens of prompt and answer that the model was made for; a lot where its config.json does not say."""
    try:
        found = json.loads((Path(folder) / "config.json").read_text()).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"no model: {folder} holds no readable config.json ({error})") from error
    return found if isinstance(found, int) and found > 0 else 2**31


def adapters(folder: str) -> str:
    """The folder of LoRA adapters, absolute, for replicas that start elsewhere; "" where none are served."""
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"no adapters: {folder} is no folder")
    return resolved(folder)


def oidc(file: str) -> OidcConfig | None:
    """Whose tokens are taken, as the file says; None where there is none."""
    if not file:
        return None
    try:
        found = OidcConfig.model_validate_json(Path(file).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"EXPERTMESH_OIDC (oidc): {file}: {where}: {first['msg']}") from None
    except OSError as error:
        raise ConfigError(f"EXPERTMESH_OIDC (oidc): {file} cannot be read: {error.strerror}") from None
    if "://" in found.jwks:
        return found
    if not Path(found.jwks).is_file():
        raise ConfigError(f"EXPERTMESH_OIDC (oidc): the signing keys {found.jwks} are no file")
    return found.model_copy(update={"jwks": resolved(found.jwks)})


def audit(directory: str, on_failure: Literal["refuse", "serve"], keep_days: int) -> AuditConfig:
    """Whether it can be written is found out on the gateways' hosts, when they start."""
    return AuditConfig(directory=resolved(directory), on_failure=on_failure, keep_days=keep_days)


def remote(options: Options) -> RemoteConfig:
    """The server that takes overflow, if any. Its key is looked for on the gateways' hosts. Raises ConfigError."""
    try:
        return RemoteConfig(
            url=options.remote_url,
            model=options.remote_model,
            key_file=resolved(options.remote_key_file),
            ca_file=resolved(options.remote_ca),
            when=options.remote_when,
            max_concurrent=options.remote_max_requests,
            connect_timeout_s=options.remote_connect_ms / 1000.0,
            first_timeout_s=options.remote_first_s,
            idle_timeout_s=options.remote_idle_s,
            pause_s=options.remote_pause_s,
        )
    except ValidationError as error:
        wrong = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"EXPERTMESH_REMOTE_URL and EXPERTMESH_REMOTE_MODEL: {wrong}") from None


def conversations(options: Options) -> ConversationsConfig:
    """Which responses are kept, and for how long. Raises ConfigError: several gateways, and no Redis for them."""
    config = ConversationsConfig(
        store=options.store_responses, keep_s=options.store_responses_days * 86_400.0
    )
    check_conversations(config, options.redis_url, options.gateways)
    return config


def resolved(path: str) -> str:
    """An absolute path for processes that start elsewhere; "" and "-" stay."""
    return path if path in ("", "-") else str(Path(path).resolve())
