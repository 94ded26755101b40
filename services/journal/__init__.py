"""The journal: answers that outlive the gateway that makes them, so that a client may come back anywhere
(docs/adr/0020).

One authority (authority.py, in the Cache's process) keeps, per tenant and idempotency key, who makes the answer and
the tokens so far. A gateway asks it over a link (client.py): it owns the answer, or follows whoever does, and takes
over when that one is gone. What is decided is in book.py; what must outlive the authority is in a store (store.py).
"""
