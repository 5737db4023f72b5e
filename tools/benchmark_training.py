"""A training step of RT-DETR by us and by transformers, side by side: the same weights, images, boxes and optimizer.

    python tools/benchmark_training.py --out tools/results/training.md

A step is forward with denoising, matching and losses, backward, clipping, and AdamW. Both networks have the same
weights before the first turn, and no time is shown of one whose first loss is of another size than the first one's
(they draw different noise).
Ways take turns (A B A B ...). transformers keeps the norms of its backbone frozen as its own configuration says.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import torch
from benchmark_peers import filled, footer, missing_of, pictures, transformers_model
from torch import Tensor, nn

from detr.criterion import criterion_for
from detr.models import Network, build_model
from detr.records import Target
from detr.training.learning.compiling import compile_parts
from detr.training.learning.recomputing import recompute

Step = Callable[[], float]  # takes one, answers with its loss
OBJECTS = 8  # of each image
SAME_SIZE = 0.25  # by how much the losses may differ


@click.command()
@click.argument("name", default="rtdetr-r18")
@click.option("--batch", default=4, show_default=True)
@click.option("--size", default=640, show_default=True, help="Side of the images, in pixels.")
@click.option("--rounds", default=5, show_default=True, help="Turns that count.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="On a CPU.")
@click.option("--compile", is_flag=True, help="Compiled ways, too: minutes more.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file, and a .json, too.")
def main(name: str, batch: int, size: int, rounds: int, device: str, threads: int, compile: bool, out: Path) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = pictures(batch, size).to(device)
    targets = [Target(torch.randint(80, (OBJECTS,)), torch.rand(OBJECTS, 4) * 0.3 + 0.3).to(device) for _ in images]
    with tempfile.TemporaryDirectory() as folder:
        ways = ways_of(filled(build_model(name)), images, targets, Path(folder), compile)
    losses, refused = sound(ways)
    times = alternate({title: ways[title] for title in losses}, rounds, torch.device(device))
    lines = [f"# A training step of {name}, {size} x {size}, batch {batch}, {device}", ""]
    lines += [*table(times, losses, refused, batch), *footer(Path(__file__).name, threads, device)]
    print("\n".join(lines))
    if out:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        out.with_suffix(".json").write_text(json.dumps(times) + "\n", encoding="utf-8")


def ways_of(network: Network, images: Tensor, targets: list[Target], folder: Path, compile: bool) -> dict[str, Step]:
    """transformers first, where it is installed: the others are compared with the first."""
    missing = missing_of("transformers")
    if missing:
        print(f"not installed, left out: {missing}", file=sys.stderr)
    theirs = None if missing else transformers_model(network, folder)
    labels = [{"class_labels": target.labels, "boxes": target.boxes} for target in targets]
    criterion = criterion_for(network)

    def their_loss(model: nn.Module) -> Tensor:
        return model(images, labels=labels).loss

    as_it_lies = images.contiguous(memory_format=torch.channels_last)

    def our_loss(model: nn.Module, images: Tensor = images) -> Tensor:
        return torch.stack(list(criterion(model(images, None, targets), targets).values())).sum()

    def prepared(change: Callable[[Any], Any] | None = None) -> Network:
        ours = copy.deepcopy(network)
        if change is not None:
            change(ours)
        return ours

    device = images.device
    ways = {} if theirs is None else {"transformers": stepping(theirs, their_loss, device)}
    ways["detr"] = stepping(prepared(), our_loss, device)
    if theirs is not None:
        ways["transformers, bf16"] = stepping(copy.deepcopy(theirs), their_loss, device, bf16=True)
    ways |= {
        "detr, channels_last": stepping(prepared(channels_last), lambda model: our_loss(model, as_it_lies), device),
        "detr, bf16": stepping(prepared(), our_loss, device, bf16=True),
        "detr, bf16, channels_last": stepping(
            prepared(channels_last), lambda model: our_loss(model, as_it_lies), device, bf16=True
        ),
        "detr, bf16, activation_checkpointing": stepping(prepared(recompute), our_loss, device, bf16=True),
    }
    if compile and theirs is not None:
        ways["transformers, bf16, torch.compile"] = stepping(
            torch.compile(copy.deepcopy(theirs)), their_loss, device, bf16=True
        )
    if compile:
        ways["detr, bf16, compile"] = stepping(prepared(compile_parts), our_loss, device, bf16=True)
    return ways


def channels_last(network: nn.Module) -> None:
    network.to(memory_format=torch.channels_last)


def stepping(model: Any, loss_of: Callable[[Any], Tensor], device: torch.device, *, bf16: bool = False) -> Step:
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=device.type == "cuda")
    precision = (lambda: torch.autocast(device.type, torch.bfloat16)) if bf16 else nullcontext

    def step() -> float:
        with precision():
            loss = loss_of(model)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def sound(ways: dict[str, Step]) -> tuple[dict[str, float], dict[str, str]]:
    """The first losses, and why ways are left out: theirs is of another size than the first one's, or they fail."""
    losses: dict[str, float] = {}
    refused: dict[str, str] = {}
    for title, step in ways.items():
        print(f"first step: {title}", file=sys.stderr, flush=True)
        try:
            loss = step()
        except Exception as problem:  # no memory, an operator that knows no bfloat16: the table says so
            traceback.print_exc()
            refused[title] = f"{type(problem).__name__}: {next(iter(str(problem).splitlines()), '')}"
            continue
        expected = next(iter(losses.values()), loss)
        if abs(loss / expected - 1) <= SAME_SIZE:
            losses[title] = loss
        else:
            refused[title] = f"its loss is {loss:.2f}, the first way's {expected:.2f}"
    if not losses:
        sys.exit("no way of training works here")
    return losses, refused


def alternate(ways: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {title: [] for title in ways}
    for number in range(rounds + 1):
        for title, step in ways.items():
            begun = time.perf_counter()
            step()  # ends with a number on the host
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first turn warms up
                times[title].append(1000 * (time.perf_counter() - begun))
    return times


def table(times: dict[str, list[float]], losses: dict[str, float], refused: dict[str, str], batch: int) -> list[str]:
    base = statistics.median(next(iter(times.values())))
    lines = ["| way | median ms | quartiles | images/s | times as fast | first loss |", "|---|---|---|---|---|---|"]
    for title, each in times.items():
        low, middle, high = statistics.quantiles(each, n=4)
        rate, ratio = 1000 * batch / middle, base / middle
        lines.append(
            f"| {title} | {middle:.0f} | {low:.0f}-{high:.0f} | {rate:.2f} | {ratio:.2f} | {losses[title]:.2f} |"
        )
    lines += [f"| {title} | no time: {why} | | | | |" for title, why in refused.items()]
    return [*lines, "", "`times as fast` as the first way, by medians of turns.", ""]


if __name__ == "__main__":
    main()
