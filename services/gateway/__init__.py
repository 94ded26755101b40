"""The gateway owns the request: it knows the tenant, the token ids and the client; engines only borrow it."""
