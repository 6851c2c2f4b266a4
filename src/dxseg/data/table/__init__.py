"""The dataset: `dataset.yaml`, `cases.csv` and the masks that people add."""
