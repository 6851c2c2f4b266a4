"""Data: the dataset, readers, importers, exporters, splits and batches.

The rooms, from top to bottom; a room imports only from those below it:

- `importers`: other layouts into a dataset folder.
- `exporters`: a dataset into the layouts of other tools.
- `splits` and `batches`: which cases are used for what, and how training reads them.
- `table`: the dataset itself, `dataset.yaml` and `cases.csv`.
- `preprocessing`: from an image of any size to the network's square input, and back.
- `readers`: files into arrays.
"""
