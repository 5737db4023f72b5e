"""Write models as files of every kind, verify each on pictures, and print the table.

    python tools/verify_exports.py NAME... --data DATA [--fresh] [--format onnx,openvino] [--most 16] [--out TABLE.md]

NAME is a release, a file of weights, or FILE=PRESET for one that doesn't say what it is; with --fresh a preset, built
with fresh weights. As these are they answer nearly the same to every picture, and any file would do: the batch norms
are fitted to the first picture, and the score heads drawn so that scores spread. Where nothing scores over 0.3 the best
100 answers for each picture are compared.

Of --data's `val` split so many pictures are taken, evenly spread. "Off by" is the most that a stage hands on is off, of
its values' root mean square; "upside down" the share of PyTorch's own answers that have a counterpart, by the same
measure, in what it answers to the same picture standing on its head: what a comparison that shows nothing would find.
Leaves with 1 when a file is not verified, or "upside down" is more than a tenth.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from detr.bands import Bands
from detr.data.opening import open_split
from detr.data.sources import find_split
from detr.export import (
    SUFFIXES,
    SURE,
    TOLERANCES,
    Form,
    Verdict,
    agreement,
    any_sure,
    form_for,
    open_runner,
    verify,
    write,
)
from detr.export.about import about_of
from detr.export.divergence import trace
from detr.export.passing import by_network
from detr.files import write_text
from detr.image_file import read_image
from detr.layers.conv import FrozenBatchNorm2d
from detr.models import Network, build_model, load_model

HEAD = ["model", "file", "takes and gives", "detections", "matched", "least IoU", "score differs by"]
HEAD += ["off by", "upside down", "seconds", ""]
ALIKE = 0.1  # as much as answers to another picture may be the same by chance


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
        network = _fresh(name, pictures[0]) if fresh else _network(name)
        alike = _upside_down(network, pictures[0])
        sound = sound and alike <= ALIKE
        for format in formats.split(","):
            for form in [form_for(network)] + [Form(preprocessing=True, max_det=300)] * whole:
                started = time.perf_counter()
                verdict, error = _verified(network, format, form, pictures)
                seconds = time.perf_counter() - started
                said = "verified" if verdict.ok else verdict.where
                model = Path(name.partition("=")[0]).stem
                proof = [f"{error:.0e}", f"{alike:.0%}", f"{seconds:.0f}", said]
                rows.append([model, format, _in_words(form), *_numbers(verdict), *proof])
                click.echo(" | ".join(rows[-1]), err=True)
                sound = sound and verdict.ok
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    click.echo(table)
    if out is not None:
        write_text(out, f"{table}\n")
    sys.exit(not sound)


def _network(name: str) -> Network:
    path, _, model = name.partition("=")
    return load_model(path, model or None)


def _fresh(preset: str, picture: Bands) -> Network:
    torch.manual_seed(0)
    network = build_model(preset).eval()
    norms = [each for each in network.modules() if isinstance(each, (nn.BatchNorm2d, FrozenBatchNorm2d))]
    handles = [each.register_forward_pre_hook(_fitted) for each in norms]
    by_network(network, picture, about_of(network, form_for(network)))
    for handle in handles:
        handle.remove()
    for name, values in network.named_parameters():
        if ".score_head" in name and values.ndim > 1:
            nn.init.normal_(values, std=values.shape[1] ** -0.5)
        elif ".score_head" in name:
            nn.init.constant_(values, -2)
    return network


@torch.no_grad()
def _fitted(norm: Any, given: tuple[torch.Tensor, ...]) -> None:
    variance, mean = torch.var_mean(given[0], (0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp(min=1e-4))


def _upside_down(network: Network, picture: Bands) -> float:
    about = about_of(network, form_for(network))
    both = [by_network(network, np.ascontiguousarray(each), about).found for each in (picture, picture[::-1])]
    sure = SURE if any(any_sure(each) for each in both) else None
    return agreement(*both, TOLERANCES["float32"], sure=sure).share


def _pictures(data: Path, most: int) -> list[Bands]:
    dataset = open_split(find_split(data, "val"))
    indices = np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int).tolist()
    return [read_image(dataset.file(index)) for index in indices]


def _verified(network: Network, format: str, form: Form, pictures: list[Bands]) -> tuple[Verdict, float]:
    """And the most that a stage is off, of the first picture. Selection's is in logits, postprocessing's a share."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"network{SUFFIXES[format]}"
        write(format, network, path, form=form)
        runner = open_runner(path)
        verdict = verify(network, runner, pictures)
        stages = trace(network, runner, pictures[0], verdict.tolerance).stages
        return verdict, max(each.error for each in stages if each.name in ("backbone", "encoder", "decoder"))


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
