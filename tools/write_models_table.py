"""Measure every preset (weights/models.json), and write the tables of models and releases in the two READMEs.

    python tools/write_models_table.py [--only NAME]

Parameters and GFLOPs are measured here, on shapes alone; what is published comes from detr/published.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import torch

from detr.cli.models import as_columns, model_rows
from detr.engine.cost import TYPICAL, flops_of, parameters_of
from detr.models import build_model, models
from detr.published import RELEASES, Release

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "weights" / "models.json"
MODELS_BEGIN = "<!-- models: tools/write_models_table.py -->\n"
RELEASES_BEGIN = "<!-- releases: tools/write_models_table.py -->\n"
END = "<!-- end of table -->"


def measured(name: str) -> dict[str, Any]:
    """What `weights/models.json` says of a preset."""
    with torch.device("meta"):
        network = build_model(name)
    height, width = network.config.input.size_of(*TYPICAL)
    return {
        "parameters": parameters_of(network),
        "gflops": round(flops_of(network) / 1e9, 3),
        "input": [height, width],
        "queries": network.config.num_queries,
        "layers": len(network.decoder.layers),
    }


def models_table() -> str:
    """Every model, for README.md."""
    lines = [
        "| model | million parameters | GFLOPs | input | AP in %, published | ms on a T4 | weights |",
        "|---|--:|--:|---|--:|--:|---|",
    ]
    for row in model_rows():
        name, *columns = as_columns(row)
        kinds = {_kind(RELEASES[each]) for each in row["weights"]}
        cells = [f"`{name}`", *columns, ", ".join(sorted(kinds)) or "none"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def releases_table() -> str:
    """Every release of a whole model that others have published, for weights/README.md."""
    lines = ["| release | preset | trained on | AP, AP50 in %, published | where | note |", "|---|---|---|---|---|---|"]
    for name, release in RELEASES.items():
        if release.model is None or release.ap is None:
            continue
        reached = f"{release.ap}, {release.ap50}" if release.ap50 else str(release.ap)
        place = f"[{release.file_name}]({release.page or release.url})"
        where = f"{place}{', by hand' if release.url is None else ''}"
        lines.append(f"| `{name}` | {release.model} | {release.dataset} | {reached} | {where} | {release.note} |")
    return "\n".join(lines) + "\n"


def with_table(text: str, begin: str, table: str) -> str:
    """A README with the table as it should be."""
    before, rest = text.split(begin)
    _, after = rest.split(END, 1)
    return f"{before}{begin}{table}{END}{after}"


def _kind(release: Release) -> str:
    if release.url is None:
        return "embedded" if release.page is None else "by hand"
    return "download"


def _measure(names: Iterable[str]) -> None:
    known = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    known |= {name: measured(name) for name in names}
    kept = {name: known[name] for name in models() if name in known}
    lines = [f'  "{name}": {json.dumps(row)}' for name, row in kept.items()]
    MEASURED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@click.command()
@click.option("--only", multiple=True, help="Measure only this preset; several by repeating.  [default: all]")
def command(only: tuple[str, ...]) -> None:
    """Measure the presets, and write the tables."""
    _measure(only or models())
    for path, begin, table in (
        (ROOT / "README.md", MODELS_BEGIN, models_table()),
        (ROOT / "weights" / "README.md", RELEASES_BEGIN, releases_table()),
    ):
        path.write_text(with_table(path.read_text(encoding="utf-8"), begin, table), encoding="utf-8")


if __name__ == "__main__":
    command()
