"""Datasets: tables of cases, readers, importers, splits, cache and batches."""
