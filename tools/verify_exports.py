"""Write models as files of every kind, verify each on pictures, and print the table.

    python tools/verify_exports.py NAME... --data DATA [--fresh] [--format onnx,openvino] [--most 16] [--out TABLE.md]

NAME is a release, a file of weights, or FILE=PRESET for one that doesn't say what it is; with --fresh a preset, whose
fresh weights find nothing in particular: then the best 100 answers for each picture are compared. Of --data's `val`
split so many pictures are taken, evenly spread. Leaves with 1 when a file is not verified.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from detr.bands import Bands
from detr.data.opening import open_split
from detr.data.sources import find_split
from detr.export import SUFFIXES, Form, Verdict, form_for, open_runner, verify, write
from detr.files import write_text
from detr.image import read_image
from detr.models import build_model, load_model

HEAD = ["model", "file", "takes and gives", "detections", "matched", "least IoU", "score differs by", "seconds", ""]


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--fresh", is_flag=True, help="The names are presets, to be built with fresh weights.")
@click.option("--format", "formats", default="onnx,openvino,torch-export")
@click.option("--whole", is_flag=True, help="Also with preprocessing and postprocessing inside.")
@click.option("--most", default=16, help="Pictures.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the table here.")
def main(
    names: tuple[str, ...], data: Path, fresh: bool, formats: str, whole: bool, most: int, out: Path | None
) -> None:
    """Verify NAMES as files of every kind."""
    pictures = _pictures(data, most)
    rows, sound = [HEAD, ["---"] * len(HEAD)], True
    for name in names:
        network = _network(name, fresh)
        for format in formats.split(","):
            for form in [form_for(network)] + [Form(preprocessing=True, max_det=300)] * whole:
                started = time.perf_counter()
                verdict = _verified(network, format, form, pictures)
                seconds = time.perf_counter() - started
                said = "verified" if verdict.ok else verdict.where
                model = Path(name.partition("=")[0]).stem
                rows.append([model, format, _in_words(form), *_numbers(verdict), f"{seconds:.0f}", said])
                click.echo(" | ".join(rows[-1]), err=True)
                sound = sound and verdict.ok
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    click.echo(table)
    if out is not None:
        write_text(out, f"{table}\n")
    sys.exit(not sound)


def _network(name: str, fresh: bool) -> Any:
    if fresh:
        return build_model(name).eval()
    path, _, model = name.partition("=")
    return load_model(path, model or None)


def _pictures(data: Path, most: int) -> list[Bands]:
    dataset = open_split(find_split(data, "val"))
    indices = np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int).tolist()
    return [read_image(dataset.file(index)) for index in indices]


def _verified(network: Any, format: str, form: Form, pictures: list[Bands]) -> Verdict:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"network{SUFFIXES[format]}"
        write(format, network, path, form=form)
        return verify(network, open_runner(path), pictures)


def _in_words(form: Form) -> str:
    if form.preprocessing:
        return "pictures to detections"
    return "images of any size" if form.open_size else "images"


def _numbers(verdict: Verdict) -> list[str]:
    found = verdict.agreement
    what = f"{found.counted:,}" if verdict.sure is not None else f"{found.counted:,} (the best)"
    return [what, f"{found.share:.2%}", f"{found.worst_iou:.4f}", f"{found.worst_score:.1e}"]


if __name__ == "__main__":
    main()
