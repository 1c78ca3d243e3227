"""The page: one process that looks at runs and shows them in a browser."""
