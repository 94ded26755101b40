"""The multiplexed stream between two of our processes: one connection per pair, one frame per event-loop turn."""
