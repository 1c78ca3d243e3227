"""How processes are put together and put on machines; the only package that imports ray."""
