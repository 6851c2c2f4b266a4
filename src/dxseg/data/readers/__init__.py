"""Readers of images, masks and volumes: files into arrays.

Files may be damaged or hostile: every reader checks the size that a file claims before it takes
memory, and raises `DxsegError` with the file, what is wrong and what to do. Two writers live here
as well (`masks.write_mask`, `nifti_writer`), next to the reader of the same format.
"""
