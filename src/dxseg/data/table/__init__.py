"""The dataset: `dataset.yaml`, `cases.csv` and the masks that people add.

`Dataset` is the entry. `spec` validates `dataset.yaml`, `cases` validates `cases.csv`, and
`annotations` saves drawn masks.
"""
