"""Files: atomic writes, locks, tables, caches and progress."""
