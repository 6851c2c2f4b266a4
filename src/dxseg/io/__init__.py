"""Files: atomic writes, locks, tables, caches and progress.

Nothing here depends on images or on models.
"""
