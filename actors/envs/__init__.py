"""Environments: any gymnasium id, dm_control, N copies of them, and what survives a fault."""
