"""Studies: every arm trained and evaluated under one protocol that was written down before."""
