"""The labeling interface that Label Studio shows for a dataset."""

from __future__ import annotations

from html import escape

LOCAL_FILES = "/data/local-files/?d="
"""URL under which Label Studio serves files of its own disk."""


def labeling_config(mask_classes: list[str]) -> str:
    """Write a labeling interface with a brush for each class.

    Args:
        mask_classes: Their names.
    """
    labels = "\n".join(f'    <Label value="{escape(name)}"/>' for name in mask_classes)
    return f"""<View>
  <Header value="$label"/>
  <Image name="image" value="$image" zoom="true" zoomControl="true" contrastControl="true"/>
  <BrushLabels name="mask" toName="image">
{labels}
  </BrushLabels>
</View>
"""
