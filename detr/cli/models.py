"""`detr models`: what can be built, how large and how good it is, and which weights there are."""

from __future__ import annotations

import json
from typing import Any

import click

from detr.cli import flags
from detr.cli.plain import print_json


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@flags.as_json("The rows")
def command(as_json: bool) -> None:
    """List the models: size and arithmetic as measured, accuracy and speed as published, and where the weights are.

    \b
      PARAMETERS  millions, for COCO's 80 classes
      GFLOPS      for one image of 640 x 480, at the size INPUT
      AP %        on COCO val2017, in percent as the authors publish it
      T4 MS       milliseconds on an NVIDIA T4 (TensorRT, 16 bits), by the authors
      WEIGHTS     embedded, cached on this machine, a download, or by hand with a
                  browser
    """
    rows = model_rows()
    if as_json:
        print_json({"models": rows})
        return
    cells = [
        ["NAME", "PARAMETERS", "GFLOPS", "INPUT", "AP %", "T4 MS", "WEIGHTS"],
        *([*as_columns(row), _places(row)] for row in rows),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        aligned = [
            cell.rjust(width) if 0 < column < 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(aligned).rstrip())


def model_rows() -> list[dict[str, Any]]:
    """A row for each preset, in the order of the releases. InputError where one was never measured."""
    from detr.config import recipe_names
    from detr.errors import InputError
    from detr.files import shipped
    from detr.releases import RELEASES, where

    measured = json.loads((shipped("weights") / "models.json").read_text(encoding="utf-8"))
    order = {name: index for index, name in enumerate(RELEASES)}
    rows = []
    for name in sorted(recipe_names(), key=lambda name: order.get(name, len(order))):
        if name not in measured:
            raise InputError(f"weights/models.json lacks {name}; run: python tools/write_models_table.py")
        release = RELEASES.get(name)
        height, width = measured[name]["input"]
        rows.append(
            {
                "name": name,
                **measured[name],
                "input": {"height": height, "width": width},
                "AP": fraction(release.ap) if release else None,
                "AP50": fraction(release.ap50) if release else None,
                "t4_ms": release.latency if release else None,
                "published_gflops": release.gflops if release else None,
                "weights": {key: where(key) for key, each in RELEASES.items() if each.model == name},
            }
        )
    return rows


def as_columns(row: dict[str, Any]) -> list[str]:
    """Name, parameters, GFLOPs, input, AP and latency, as people read them."""
    return [
        row["name"],
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['gflops']:.1f}",
        f"{row['input']['width']} x {row['input']['height']}",
        percent(row["AP"]),
        "-" if row["t4_ms"] is None else str(row["t4_ms"]),
    ]


def fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 5)


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _places(row: dict[str, Any]) -> str:
    """Where the weights of the model's own name are, then those of other names."""
    places = [place if name == row["name"] else f"{name} ({place})" for name, place in row["weights"].items()]
    return ", ".join(places) or "none"
