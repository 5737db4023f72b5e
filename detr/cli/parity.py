"""`detr parity`: one AP, whichever way it is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import print_json
from detr.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detr.data.coco import CocoDataset
    from detr.evaluation.predictions import DetectionArrays
    from detr.export import Agreement
    from detr.models import Network
    from detr.records import Detections
    from detr.runtime.runner import Runner

_SAME = 1e-9  # of one program's AP, measured in two ways
_RECORDED = 1e-3  # of one that was measured on another machine, or with images in other batches
_ANY = float("inf")


@dataclass(frozen=True)
class Row:
    """One way, and how far it is from `detr val`."""

    way: str
    ap: float
    difference: float = 0.0
    allowed: float = 0.0
    share: float | None = None  # of the detections that have a counterpart
    detections: int | None = None  # above 0.3, on either side
    least_iou: float | None = None  # of a detection and its counterpart
    score_difference: float | None = None  # the most that two scores differ

    @property
    def ok(self) -> bool:
        return abs(self.difference) <= self.allowed and (self.share is None or self.share >= 0.99)


@click.command(cls=Verb, context_settings={"show_default": True})
@click.argument("weights", metavar="MODEL")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data set: COCO, YOLO or VOC.")
@flags.model
@flags.split
@click.option("--format", "formats", metavar="NAME,...", help="Exports to measure, or none.  [default: all installed]")
@click.option("--recorded", is_flag=True, help="What training recorded must agree: this is the split it measured.")
@click.option("--batch", default=1, type=click.IntRange(min=1), help="Images at once.")
@flags.as_json("The rows")
def command(weights: str, data: Path, formats: str | None, as_json: bool, **options: Any) -> None:
    """Measure MODEL on --data in every way there is: as training recorded it, by `detr val`, by what `detr predict
    --save-json` writes, and by each kind of exported file that can be made here. Leaves with 1 where they don't agree;
    what training recorded, perhaps of another split, counts with --recorded.

    \b
      detr parity runs/train/train/best.safetensors --data my-data
    """
    from detr.data.opening import open_split
    from detr.data.sources import find_split
    from detr.export import require_weights

    require_weights(weights)
    dataset = open_split(find_split(data, options["split"], images=options["images"]))
    rows = []
    for row in _rows(weights, dataset, _wanted(formats), **options):
        rows.append(row)
        click.echo(f"{row.way}: AP {row.ap:.6f}", err=True)
    click.echo(_table(rows), err=as_json)
    if as_json:
        print_json({"weights": weights, "data": str(data), "ways": [_as_json(row) for row in rows]})
    if wrong := [row for row in rows if not row.ok]:
        hint = f"; is {data} the split that training measured?" if wrong[0].way == "training" else ""
        raise InputError(f"more than allowed from detr val: {', '.join(row.way for row in wrong)}{hint}")


def _as_json(row: Row) -> dict[str, Any]:
    told = asdict(row)
    allowed = None if row.allowed == _ANY else row.allowed
    return {"way": told.pop("way"), "AP": told.pop("ap"), **told, "allowed": allowed, "ok": row.ok}


def _wanted(formats: str | None) -> list[str]:
    """The kinds of files to make; without a word about it those whose packages are there."""
    from detr.export import SUFFIXES, require_format

    if formats is not None:
        names = [name.strip() for name in formats.split(",") if name.strip() not in ("", "none")]
        for name in names:
            require_format(name)
        return names
    names = []
    for name in SUFFIXES:
        try:
            require_format(name)
            names.append(name)
        except UsageError as problem:
            click.echo(f"note: {name} is left out: {problem}", err=True)
    return names


def _rows(
    weights: str, dataset: CocoDataset, formats: list[str], *, model: str | None, recorded: bool, batch: int, **_: Any
) -> Iterator[Row]:
    from detr.export import TOLERANCES, form_for, open_runner, write
    from detr.models.loading import read_network
    from detr.runtime.runner import TorchRunner

    checkpoint, network = read_network(weights, model)
    network = network.eval()
    ap, found = _validated(TorchRunner(network), dataset, batch)
    in_training = (checkpoint.metadata.get("metrics") or {}).get("AP")
    if in_training is not None:
        yield Row("training", in_training, in_training - ap, _RECORDED if recorded else _ANY)
    elif recorded:
        raise UsageError(f"--recorded: {weights} holds no number of a training")
    yield Row("val", ap)
    other, theirs = _predicted(network, dataset, batch)
    yield _compared("predict --save-json", ap, found, other, theirs, _SAME)
    for name in formats:
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"network{_suffix(name)}"
            write(name, network, path, form=form_for(network))
            other, theirs = _validated(open_runner(path), dataset, batch)
        yield _compared(name, ap, found, other, theirs, TOLERANCES["float32"].ap)


def _suffix(format: str) -> str:
    from detr.export import SUFFIXES

    return SUFFIXES[format]


def _validated(runner: Runner, dataset: CocoDataset, batch: int) -> tuple[float, DetectionArrays]:
    from detr.evaluation.validate import validate

    metrics, found = validate(runner, dataset, batch_size=batch)
    return metrics.ap, found


def _predicted(network: Network, dataset: CocoDataset, batch: int) -> tuple[float, DetectionArrays]:
    """By way of a file, as a reader of `detr predict --save-json` has it."""
    from detr.engine.detector import Detector
    from detr.engine.predict import predict
    from detr.engine.saving import Wanted
    from detr.evaluation.evaluate import evaluate
    from detr.evaluation.predictions import read_predictions
    from detr.video.sources import find_sources

    known = dataset.annotations
    detector = Detector(network, device="cpu")
    files = find_sources([str(dataset.file(index)) for index in range(len(dataset))])
    with TemporaryDirectory() as folder:
        settings = detector.settings(conf=0.0, max_det=300)
        wanted = Wanted(images=False, videos=False, json=True)
        predict(detector, files, settings, Path(folder), wanted=wanted, batch=batch, quiet=True, say=lambda line: None)
        found = read_predictions(Path(folder) / "predictions.json", known)
    return evaluate(known, found).ap, found


def _compared(way: str, ap: float, ours: DetectionArrays, other: float, theirs: DetectionArrays, allowed: float) -> Row:
    from detr.export import SURE, TOLERANCES, Agreement, agreement, any_sure

    tolerance = TOLERANCES["float32"]
    pairs = list(zip(_by_image(ours), _by_image(theirs), strict=True))
    sure = SURE if any(any_sure(side) for pair in pairs for side in pair) else None
    total: Agreement = sum((agreement(a, b, tolerance, sure=sure) for a, b in pairs), Agreement())
    return Row(way, other, other - ap, allowed, total.share, total.counted, total.worst_iou, total.worst_score)


def _by_image(found: DetectionArrays) -> Iterator[Detections]:
    import numpy as np
    import torch

    from detr.records import Detections

    for index in range(len(found.image_ids)):
        here = np.flatnonzero(found.image_indices == index)
        boxes = found.boxes[here]
        corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)
        yield Detections(*(torch.from_numpy(each) for each in (corners, found.scores[here], found.labels[here])))


def _table(rows: list[Row]) -> str:
    """Markdown, its columns aligned."""
    lines = [["way", "AP", "difference", "allowed", "detections", "matched", "least IoU", "score differs by", ""]]
    for row in rows:
        seen = ["-"] * 4
        if row.share is not None:
            seen = [f"{row.detections:,}", f"{row.share:.2%}", f"{row.least_iou:.4f}", f"{row.score_difference:.1e}"]
        allowed = "-" if row.way == "val" else "any" if row.allowed == _ANY else f"{row.allowed:.0e}"
        verdict = "" if allowed in ("-", "any") else "same" if row.ok else "DIFFERS"
        lines.append([row.way, f"{row.ap:.6f}", f"{row.difference:+.1e}", allowed, *seen, verdict])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(f"{word:>{width}}" for word, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
