"""Importers: public and private layouts into a dataset folder.

One module per layout finds images, labels and masks; all end in `image_dataset.write_dataset` or,
for volumes, `volume_dataset.write_volumes`.
"""
