"""Exporters: a dataset into the layouts of other tools."""
