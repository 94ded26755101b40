"""Conversations: responses that are kept, so that the next request names the last one instead of repeating them all.

A record is one turn (record.py): what was new in the input, what was answered, and which turns came before. The shelf
(shelf.py) files it under a key that only its tenant's requests can make, in a store (store.py) that seals it as the
response cache does, and joins a chain of turns again. What does not fit the model is dropped from the oldest turn on
(turns.py), where the client asked for that.
"""
