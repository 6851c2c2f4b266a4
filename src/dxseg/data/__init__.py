"""Data: the dataset, readers, importers, exporters, splits and batches."""
