"""Importers: public and private layouts into a dataset folder."""
