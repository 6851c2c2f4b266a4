"""Commands: what the command line runs, as functions."""
