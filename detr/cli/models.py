"""`detr models`: what can be built, how large it is, and which weights there are."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the models: parameters, AP on COCO val2017 as published, and the releases with their whereabouts."""
    import torch

    from detr.models.presets import build_model, models, preset
    from detr.releases import RELEASES, where

    rows: list[dict[str, Any]] = []
    for name in models():
        config = preset(name)
        with torch.device("meta"):
            network = build_model(config)
        releases = {key: where(key) for key, release in RELEASES.items() if release.model == name}
        published = RELEASES.get(name)
        rows.append(
            {
                "name": name,
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "input": [config.input.height, config.input.width],
                "queries": config.num_queries,
                "ap": published.ap if published else None,
                "weights": releases,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    click.echo(f"{'NAME'.ljust(width)}  PARAMETERS  INPUT    AP    WEIGHTS")
    for row in rows:
        height, across = row["input"]
        ap = "-" if row["ap"] is None else row["ap"]
        there = ", ".join(f"{name} ({place})" for name, place in row["weights"].items()) or "none"
        click.echo(
            f"{row['name'].ljust(width)}  {row['parameters'] / 1e6:8.2f} M  {height}x{across}  {ap!s:<4}  {there}"
        )
