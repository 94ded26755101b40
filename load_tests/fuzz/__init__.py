"""Odd input against a running mesh: HTTP from our own OpenAPI document, gRPC from our own proto. `make fuzz`."""
