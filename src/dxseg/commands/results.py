"""What commands return where a dictionary, a table or a path is not enough to show itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dxseg.config import DEFAULT_METHOD, stage_title

if TYPE_CHECKING:
    import pandas as pd

    from dxseg.config.schema import RunConfig
    from dxseg.export.quantize import QuantizationReport


class Facts(dict[str, Any]):
    """Names and values; shown as a table."""

    def __init__(self, values: Mapping[str, Any], title: str) -> None:
        super().__init__(values)
        self.title = title

    def __rich__(self) -> Table:
        table = Table("", "", title=self.title, show_header=False)
        for name, value in self.items():
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
        return table


class EvaluationSummary(dict[str, Any]):
    """The content of `evaluation.json`; shown are its figures with their intervals, and counts."""

    def __init__(self, values: Mapping[str, Any], title: str) -> None:
        super().__init__(values)
        self.title = title

    def __rich__(self) -> Group:
        from dxseg.reports.metric_columns import (
            IMAGE_METRICS,
            MASK_METRICS,
            VOLUME_METRICS,
            format_interval,
            format_number,
        )

        units = {name: str(unit).replace("mm2", "mm²") for name, unit in self["units"].items()}
        table = Table("", "value", "95% interval", "key", title=self.title)
        for column in (*VOLUME_METRICS, *MASK_METRICS, *IMAGE_METRICS):
            value = self.get(column.key)
            if value is not None:
                interval = format_interval(self.get(f"{column.key}_ci"), column.decimals)
                shown = format_number(value, column.decimals)
                table.add_row(column.title.format_map(units), shown, interval, column.key)
        counts = self["counts"]
        return Group(
            table,
            Text(
                f"{_describe_volumes(counts)}{counts['images']} images of {counts['groups']} "
                f"patients or groups: {counts['lesion_images']} with a lesion, "
                f"{counts['missed_lesion_images']} of them without any predicted mask, and "
                f"{counts['lesion_free_images']} without. Averaged by {self['averaged_by']}."
            ),
        )


def _describe_volumes(counts: Mapping[str, Any]) -> str:
    """How many volumes were measured; "" where images are no slices."""
    left_out = sum(counts.get("volumes_left_out", {}).values())
    if not left_out and "volumes" not in counts:
        return ""
    text = f"{counts.get('volumes', 0)} volumes, {counts.get('lesion_volumes', 0)} with a lesion"
    return f"{text}, {left_out} left out (not every slice has a known mask).\n"


@dataclass(frozen=True)
class SplitTable:
    """A table of splits.

    Attributes:
        table: One row per case.
        path: The `splits.csv` that was written.
        notes: What the user should know of the split, such as that its unit is a guess.
    """

    table: pd.DataFrame
    path: Path
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = self.table["split"].value_counts()
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        notes = (f"- {note}" for note in self.notes)
        return "\n".join([*notes, listed, f"Written: {self.path}"])


class TrainedRun(dict[str, Any]):
    """The content of `run.json`; shown is what the run learned from, what it cost, and its result.

    Attributes:
        folder: Folder of the run.
    """

    def __init__(self, record: Mapping[str, Any], folder: Path) -> None:
        super().__init__(record)
        self.folder = folder

    def __str__(self) -> str:
        return "\n".join(
            [
                f"Trained {self['method']}, seed {self['seed']}: {self._images()}.",
                *(f"- {line}" for line in self._stages()),
                f"Model: {self.folder / 'model'}, {self._deployed()}",
                f"Next: dxseg evaluate {self.folder}",
            ]
        )

    def _images(self) -> str:
        cases = self["cases"]
        images = (
            f"{cases['train_masks']} training masks, {cases['validation_masks']} validation masks"
        )
        if "train_labels" in cases:  # not in runs of earlier versions
            images += f", {cases['train_labels']} labeled training images"
        learned = self.get("training_images")
        if learned is None:
            return images
        return (
            f"{images}; the student also learned from {learned['teacher_mask']} pseudo-labels and "
            f"{learned['lesion_free']} lesion-free images, {learned['left_out']} images left out"
        )

    def _stages(self) -> list[str]:
        """The cost of each stage that this run trained."""
        lines = []
        for name, spent in self["seconds"].items():
            metrics = self.get(name, {})
            if self.get(f"{name}_from") is None and "step" in metrics:
                # A stage that an earlier call finished took no time in the last one.
                seconds = _duration(max(spent, metrics.get("seconds", 0.0)))
                lines.append(f"{stage_title(name)}: {metrics['step']:.0f} steps, {seconds}")
        return lines

    def _deployed(self) -> str:
        """Which network the model is, and where those that came before it are."""
        *before, last = (name for name in self["seconds"] if name != "stage1")
        teacher = self.get("distilled_from")
        teachers = [] if teacher is None else [teacher, *teacher.get("others", [])]
        runs = [one["run"] for one in teachers]
        for name in before:
            runs.append(self.get(f"{name}_from") or self.folder / name)
        text = f"the network after {stage_title(last).lower()}"
        kept = ", ".join(str(Path(run) / "model") for run in runs)
        return f"{text}; those before it: {kept}" if kept else text


def _duration(seconds: float) -> str:
    """Seconds as "45 s" or "12 min"."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Methods(dict[str, "RunConfig"]):
    """The named methods and their configurations; shown as a table."""

    def __rich__(self) -> Table:
        # 80 characters are enough without lines between the columns and at the edges.
        table = Table(
            *("method", "network", "encoder", "labels", "then"),
            box=box.SIMPLE,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        table.columns[0].no_wrap = True  # a name that is cut cannot be copied
        for column in table.columns:
            column.overflow = "fold"
        for name, config in self.items():
            model, training = config.model, config.self_training
            filters = training is not None and training.label_filter
            learns = model.learns_labels or config.student is not None
            start = "ImageNet" if model.encoder_init == "pretrained" else model.encoder_init
            table.add_row(
                f"{name} (default)" if name == DEFAULT_METHOD else name,
                model.architecture,
                start,
                "yes" if learns or filters else "no",
                ", ".join(config.stages[1:]).replace("_", "-"),
            )
        return table


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: The HTML page.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return f"Report: {self.path}"


@dataclass(frozen=True)
class OnnxExport:
    """An exported file.

    Attributes:
        destination: The file.
        size: Its size, bytes.
        number_format: Of weights and activations, `float32` or `int8`.
        quantization: The cost of int8; None for float32.
    """

    destination: Path
    size: int
    number_format: str
    quantization: QuantizationReport | None = None

    def __str__(self) -> str:
        cost = {} if self.quantization is None else self.quantization.model_dump(exclude_none=True)
        lines = [f"- int8, {name}: {value:.4g}" for name, value in cost.items()]
        size = f"{self.size / 1e6:.1f} MB"
        return "\n".join([*lines, f"Written: {self.destination}, {self.number_format}, {size}"])


@dataclass(frozen=True)
class HubExport:
    """An exported folder with a model card.

    Attributes:
        destination: The folder.
        files: Their names.
        size: Their total size, bytes.
    """

    destination: Path
    files: list[str]
    size: int

    def __str__(self) -> str:
        return (
            f"Written: {self.destination}: {', '.join(self.files)}, {self.size / 1e6:.1f} MB\n"
            "Read the card, README.md, before you pass it on: it repeats your names of dataset and "
            "labels, and has nothing about where the images come from."
        )


@dataclass(frozen=True)
class LabelStudioTasks:
    """An exported folder of tasks.

    Attributes:
        destination: The folder.
        tasks: Number of cases without a mask.
    """

    destination: Path
    tasks: int

    def __str__(self) -> str:
        return f"Written: {self.destination}: {self.tasks} tasks"
