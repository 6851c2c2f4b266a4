"""Deployment: exported models."""
