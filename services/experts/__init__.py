"""Expert-parallel shards: engines behind one port, ranks in gangs."""
