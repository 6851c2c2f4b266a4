"""Retraining: models of the masks that were saved since, trained beside the server."""
