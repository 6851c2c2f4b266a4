"""Simulated ultrasound images (phantoms), for demonstrations and tests."""
