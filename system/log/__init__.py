"""The log of Chunks: protocol, in memory, on Redis, and the writer that loses nothing."""
