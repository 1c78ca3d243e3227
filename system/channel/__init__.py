"""The policy channel: protocol, in memory, on Redis."""
