"""Active learning: which cases to annotate next."""
