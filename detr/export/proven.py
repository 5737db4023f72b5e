"""A network written as a file that gets its name when it finds what PyTorch finds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from detr import export
from detr.bands import Bands
from detr.data.coco import CocoDataset
from detr.data.opening import open_split
from detr.data.shapes import draw_shapes
from detr.data.sources import find_splits
from detr.errors import InputError, UsageError
from detr.evaluation.validate import validate
from detr.export.file_runner import FileRunner
from detr.export.verifying import Verdict
from detr.image_file import read_image
from detr.models import Network
from detr.runtime.runner import Runner, TorchRunner

_DRAWN = 16  # generated pictures, where no data is given


def write_proven(
    format: str,
    network: Network,
    path: Path,
    *,
    verify: bool = True,
    dataset: CocoDataset | None = None,
    called: str = "generated pictures",
    most: int = 64,
    say: Callable[[str], None],
    **how: Any,
) -> dict[str, Any]:
    """Write it, and compare it with the network on `most` pictures of the data set, or generated ones -> a report.

    `how` is what `detr.export.write` takes besides. Until both find the same it is called NAME.unverified; InputError
    where they don't, and it keeps that name. `called` is what the data is called in what is said.
    """
    aside = path.with_name(f"{path.stem}.unverified{path.suffix}") if verify else path
    export.write(format, network, aside, **how)
    report: dict[str, Any] = {"file": str(path), "format": format, "bytes": _bytes(aside), "verified": None}
    if not verify:
        say(f"{path}: {report['bytes'] / 1e6:.1f} MB, not verified")
        return report
    runner = export.open_runner(aside)
    verdict = export.verify(network, runner, _pictures(dataset, most, network.config.input.channels))
    problem = None if verdict.ok else verdict.text
    if dataset is not None and problem is None:
        report["AP"] = _average_precision(network, runner, dataset)
        problem = _of_ap(report["AP"], verdict)
    if problem is not None:
        raise InputError(f"{aside} does not find what PyTorch finds in {called}: {problem}; it keeps that name")
    export.renamed(aside, path)
    say(f"{path}: {report['bytes'] / 1e6:.1f} MB; {called}: {verdict.text}")
    if "AP" in report:
        say(_in_words(report["AP"]))
    return report | {"verified": True, "share": verdict.agreement.share, "detections": verdict.agreement.counted}


def path_for(source: str, format: str, out: Path | None, *, half: bool, int8: bool) -> Path:
    """Where the file goes: `out`, or into that folder, or here under the name of the weights. UsageError for a folder
    where a file is to be, or a name of another kind of file."""
    suffix = export.SUFFIXES[format]
    if out is not None and out.suffix in export.SUFFIXES.values() and out.suffix != suffix:
        raise UsageError(f"--out {out}: a file of {format} ends in {suffix}; name a folder for several formats")
    if out is None or out.suffix != suffix:
        stem = Path(source).stem + ("-half" if half else "") + ("-int8" if int8 else "")
        out = (Path() if out is None else out) / f"{stem}{suffix}"
    if out.is_dir():
        raise UsageError(f"{out} is a folder; expected a file to write, or a folder without a suffix")
    return out


def calibration_of(data: str | os.PathLike[str]) -> export.Calibration:
    """The images of a data set's `train` split, or of the first that it has."""
    splits = find_splits(data)
    return export.Calibration(open_split(splits.get("train") or next(iter(splits.values()))))


def _bytes(path: Path) -> int:
    parts = [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]
    return sum(part.stat().st_size for part in parts)


def _pictures(dataset: CocoDataset | None, most: int, channels: int) -> Iterator[Bands]:
    """Of the data, evenly spread, or generated ones of several sizes."""
    if dataset is None:
        if channels != 3:
            raise UsageError(f"generated pictures are RGB; this model takes {channels} channels: verify it with --data")
        for index in range(_DRAWN):
            yield draw_shapes(0, "val", index, size=240 + 40 * (index % 4))[0]
        return
    count = min(most, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist():
        yield read_image(dataset.file(index), channels=channels)


def _average_precision(network: Network, runner: FileRunner, dataset: CocoDataset) -> dict[str, float]:
    sides: dict[str, Runner] = {"PyTorch": TorchRunner(network), "file": runner}
    return {name: validate(each, dataset, batch_size=1)[0].ap for name, each in sides.items()}


def _of_ap(ap: dict[str, float], verdict: Verdict) -> str | None:
    """What is wrong with the file's AP, if anything is."""
    if ap["file"] >= ap["PyTorch"] - verdict.tolerance.ap:
        return None
    return f"{_in_words(ap)}, allowed are {verdict.tolerance.ap:.4f} less"


def _in_words(ap: dict[str, float]) -> str:
    return f"AP {ap['PyTorch']:.4f} by PyTorch, {ap['file']:.4f} by the file ({ap['file'] - ap['PyTorch']:+.4f})"
