"""A person's data: where it is, why and how long (places.py), and its deletion in the Cache's process, the stores and
all gateways (at_cache.py). gateway/erasure.py runs it and records it.
"""
