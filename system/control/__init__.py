"""The control plane: protocol, in memory, on Redis."""
