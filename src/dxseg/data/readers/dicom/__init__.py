"""DICOM: images, series as volumes, masks, and pseudonyms for who is in them."""
