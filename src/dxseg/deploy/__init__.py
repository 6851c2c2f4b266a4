"""Deployment: exported networks, and a model behind HTTP."""
