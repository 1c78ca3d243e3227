"""The learning process: segments, arena, world-model losses, imagination, behavior, checkpoints."""
