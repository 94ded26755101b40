"""The diagram of the README as code: five `.bind()` lines, and a sixth where an embedding model is set (a test holds
both together).

gateway → cache → priority queue → expert-parallel MoE shards → postprocess
"""

from ray.serve import Application

from services.cache.deployment import cache_deployment
from services.config import GraphConfig
from services.embedding.deployment import embedding_deployment
from services.experts.deployment import experts_deployment
from services.gateway.deployment import gateway_deployment
from services.postprocess.deployment import postprocess_deployment
from services.queue.deployment import queue_deployment


def mesh(config: GraphConfig) -> Application:
    """Bind one mesh. Runs before `ray.init`: nothing here may touch a cluster."""
    cache = cache_deployment(config).bind(config)
    queue = queue_deployment(config).bind(config.queue)
    experts = experts_deployment(config).bind(config, queue)
    postprocess = postprocess_deployment(config).bind(config)
    embeddings = embedding_deployment(config).bind(config.embedding) if config.embedding.model else None
    return gateway_deployment(config).bind(config, cache, queue, experts, postprocess, embeddings)
