"""Annotations of other tools: polygons and run lengths that become masks.

Each format has a reader of its own, a page of code. Datumaro reads COCO, CVAT, VOC and YOLO, but
neither LabelMe's JSON nor VIA nor Label Studio, needs pandas below 3, Pillow below 13, OpenCV and
PyArrow, and repairs in silence what is wrong; supervision reads COCO, YOLO and VOC only, and
rounds corners to whole pixels. What is hard to get right, filling and run lengths, is shared with
DICOM contours and the exporters.
"""
