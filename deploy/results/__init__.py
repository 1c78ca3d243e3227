"""Runs put together over their seeds: tables, curves, and what was published beside them."""
