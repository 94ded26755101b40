"""Texts as vectors: the embedder port with its adapters, and the service that embeds for clients (`/v1/embeddings`).

Rules: a model runs offline, from files on this machine. The response cache embeds questions with the same adapters,
in its own process. desk.py decides (pure), service.py runs the model in a thread, deployment.py is Ray's.
"""
