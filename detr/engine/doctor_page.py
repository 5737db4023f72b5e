"""The doctor's page: what was found, with pictures of it, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detr.bands import shown
from detr.data.doctor import Report
from detr.data.doctor_advice import Plan
from detr.data.doctor_boxes import input_sides
from detr.data.doctor_findings import Finding, Shown
from detr.data.doctor_images import Seen
from detr.draw import draw
from detr.engine.page import Section, write_page
from detr.engine.results import write_image
from detr.errors import counted
from detr.image import RGB
from detr.image_file import read_image
from detr.records import Detections

_MOST = 6  # pictures of a finding
_SIDE = 640  # of a picture
_SMALL = 0.05  # of an image's side: boxes below are shown from nearer by
_CLOSEST = 96  # pixels of an image, at least, that are shown
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def write_doctor_page(path: Path, data: str, report: Report, plan: Plan) -> None:
    """`path` is the page; its pictures come into a folder beside it."""
    count = {level: sum(each.level == level for each in report.findings) for level in ("error", "warning", "note")}
    lead = f"{data}: {', '.join(counted(number, level) for level, number in count.items())}."
    pictures = _Pictures(path.parent / "pictures", report)
    sections = [
        Section("What was found", table=_findings(report), words=True),
        Section(
            "What to do", table=[["about", "advice"], *(line.split(": ", 1) for line in report.advice)], words=True
        ),
        *(
            Section(f"{finding.level}: {finding.text}", _listed(finding), pictures=pictures.of(finding))
            for finding in report.findings
            if finding.shown
        ),
        Section("The data", table=list(_table(report.seen, plan))),
        Section("Classes", table=list(_class_table(report))),
        Section("Some of it", "Every box, as training takes it.", pictures=pictures.of_samples()),
    ]
    write_page(path, "The doctor's findings", lead, sections)


class _Pictures:
    """Draws into a folder, and says where."""

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder = folder
        self.seen = {seen.split: seen for seen in report.seen}
        self.names = report.classes.as_dict()

    def of(self, finding: Finding) -> list[tuple[str, str]]:
        readable = [each for each in finding.shown if self.seen[each.split].looks[each.image].problem is None]
        stem = f"{finding.kind}-{finding.split.replace(' ', '-')}" if finding.split else finding.kind
        return [self._one(shown, f"{stem}-{number}") for number, shown in enumerate(readable[:_MOST], 1)]

    def of_samples(self) -> list[tuple[str, str]]:
        seen = next(iter(self.seen.values()))
        indices = np.unique(np.linspace(0, len(seen.paths) - 1, _MOST).round().astype(int)).tolist()
        shown = [Shown(seen.split, index) for index in indices if seen.looks[index].problem is None]
        return [self._one(each, f"sample-{number}") for number, each in enumerate(shown, 1)]

    def _one(self, shown: Shown, stem: str) -> tuple[str, str]:
        seen = self.seen[shown.split]
        picture = self._drawn(seen, shown.image, shown.rows)
        if shown.other is not None:
            split, image = shown.other
            picture = _side_by_side(picture, self._drawn(self.seen[split], image))
        file = self.folder / f"{stem}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_image(file, picture)
        words = f" ({shown.caption})" if shown.caption else ""
        return os.path.join(self.folder.name, file.name), f"{shown.split}: {seen.paths[shown.image].name}{words}"

    def _drawn(self, seen: Seen, image: int, rows: Sequence[int] = ()) -> RGB:
        """With the boxes of those rows, or with all that it has; of a small box, what is around it."""
        pixels = shown(read_image(seen.paths[image], channels=None))
        window = (0, 0, pixels.shape[1], pixels.shape[0])
        if rows:
            window = _window(seen.annotations.boxes[rows[0]].tolist(), *window[2:])
        else:
            rows = np.flatnonzero(seen.annotations.image_indices == image).tolist()
        left, top, right, bottom = window
        factor = _SIDE / max(right - left, bottom - top)
        size = max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor))
        part = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=window)
        boxes = torch.from_numpy((seen.annotations.boxes[list(rows)] - (left, top, 0, 0)) * factor)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        labels = torch.from_numpy(seen.annotations.labels[list(rows)])
        return draw(np.asarray(part), Detections(boxes, torch.ones(len(boxes)), labels), self.names, scores=False)


def _window(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """xyxy of what is shown of an image: all, or ten times as much as a box that would be lost in it."""
    x, y, w, h = box
    side = max(10 * max(w, h), _CLOSEST)
    if max(w, h) > _SMALL * max(width, height) or side >= min(width, height):
        return 0, 0, width, height
    left, top = (
        round(min(max(start + length / 2 - side / 2, 0), most - side))
        for start, length, most in ((x, w, width), (y, h, height))
    )
    return left, top, left + round(side), top + round(side)


def _findings(report: Report) -> list[list[str]]:
    return [["level", "what"], *([each.level, each.text] for each in report.findings)]


def _advice(report: Report) -> list[list[str]]:
    return [["about", "advice"], *(line.split(": ", 1) for line in report.advice)]


def _side_by_side(one: RGB, other: RGB) -> RGB:
    """Both at the height of the lower one, with a gap."""
    height = min(one.shape[0], other.shape[0])
    same = [
        np.asarray(Image.fromarray(each).resize((max(1, round(each.shape[1] * height / each.shape[0])), height)))
        for each in (one, other)
    ]
    return np.concatenate([same[0], np.full((height, 6, 3), 255, np.uint8), same[1]], 1)


def _listed(finding: Finding) -> str:
    """The images that can't be shown, by what is wrong with them."""
    return "; ".join(each.caption for each in finding.shown[:_MOST]) if finding.kind == "unreadable" else ""


def _table(seen: Sequence[Seen], plan: Plan) -> Iterator[list[str]]:
    height, width = plan.input.frame
    numbers = [f"{share:.0%}" for share in _QUANTILES]
    yield ["split", "", *numbers]
    for each in seen:
        known = each.annotations
        objects = np.bincount(known.image_indices[~known.crowd], minlength=len(each.paths))
        sides = input_sides(each, plan.input)
        images, boxes = counted(len(each.paths), "image"), counted(len(known.boxes), "box", "boxes")
        yield [f"{each.split}: {images}, {boxes}", *[""] * 6]
        for what, values in (
            ("image width", each.sizes[:, 1]),
            ("image height", each.sizes[:, 0]),
            ("objects of an image", objects),
            (f"side of a box at {width} x {height}", sides[np.isfinite(sides)]),
        ):
            cells = [f"{value:.0f}" for value in np.quantile(values, _QUANTILES)] if len(values) else [""] * 5
            yield ["", what, *cells]


def _class_table(report: Report) -> Iterator[list[str]]:
    yield ["class", *(seen.split for seen in report.seen)]
    counts = [seen.annotations.counts().tolist() for seen in report.seen]
    for index, name in enumerate(report.classes.names):
        yield [name, *(f"{count[index]:,}" for count in counts)]
