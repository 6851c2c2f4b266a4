"""DICOM: images, series as volumes, masks (SEG, RTSTRUCT), and pseudonyms for who is in them.

No message and no dataset holds a value of a header that may identify a patient.
"""
