"""Text and token ids: tokenising, incremental decoding, stop strings, tool calls. All of it pure but the
adapters."""
