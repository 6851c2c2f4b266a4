"""Phantoms: simulated ultrasound images for the demo and the tests."""
