"""Annotations of other tools: polygons and run lengths that become masks.

Each format has a reader of its own, a page of code. Datumaro reads COCO, CVAT, VOC and YOLO, but
neither LabelMe's JSON nor VIA nor Label Studio, and an installation brings older pandas and Pillow
than ours; supervision reads COCO, YOLO and VOC only. What is hard to get right, filling and run
lengths, is shared with DICOM contours and the exporters.
"""
