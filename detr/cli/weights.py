"""`detr weights`: list, download, inspect and convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.models import fraction, percent
from detr.cli.plain import print_json
from detr.errors import UsageError, did_you_mean, listed, shortened


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, download, inspect and convert weights."""


@command.command("list", short_help="Show all releases, their AP, and where they are.")
@flags.as_json("The rows")
def list_releases(as_json: bool) -> None:
    """Show all releases: what they reach on COCO val2017 as published, and where they are."""
    from detr.releases import RELEASES, cached_at, recorded_hash, where

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "model": release.model,
            "AP": fraction(release.ap),
            "AP50": fraction(release.ap50),
            "trained_on": release.dataset,
            "where": where(name),
            "url": release.url,
            "sha256": recorded_hash(name),
            "file": str(cached_at(name)) if where(name) == "cached" else None,
            "note": release.note,
        }
        for name, release in RELEASES.items()
    ]
    if as_json:
        print_json({"releases": rows})
    else:
        cells = [
            [row["name"], row["model"], percent(row["AP"]), percent(row["AP50"]), row["trained_on"], row["where"]]
            for row in rows
        ]
        click.echo(_table(cells, ["NAME", "MODEL", "AP %", "AP50 %", "DATA", "WHERE"]))


@command.command(cls=Verb, short_help="Fetch releases, or check those that are there.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@flags.as_json("Where they are")
def download(names: tuple[str, ...], as_json: bool) -> None:
    """Fetch releases into the cache, or check those that are there."""
    from detr.releases import RELEASES, resolve

    for name in names:
        if name not in RELEASES:
            nearest = did_you_mean(name, RELEASES) or "; `detr weights list` shows them"
            raise UsageError(f"no release is called {name!r}{nearest}")
    files = []
    for name in names:
        files.append({"name": name, "file": str(resolve(name))})
        click.echo(files[-1]["file"], err=as_json)
    if as_json:
        print_json({"files": files})


@command.command(cls=Verb, short_help="Say what a file is, and whether it is whole.")
@click.argument("file")
@click.option("--model", help="The preset it is for, where the file does not say.")
@flags.as_json("The report")
def inspect(file: str, model: str | None, as_json: bool) -> None:
    """Say what FILE (or a release) is: its format, model, classes, parameters, metadata, and whether it is whole.

    An exported file says which weights it was made of: their NUMBERS are the same. A .pt2 or .engine is a program; look
    at none that you don't trust.
    """
    from detr.export import is_exported
    from detr.models.inspection import inspect as inspected

    report = _of_exported(file) if is_exported(file) else inspected(file, model)
    if as_json:
        print_json(report)
        return
    classes = report["classes"]
    lines = {
        "file": f"{report['file']} ({report['bytes'] / 1e6:,.1f} MB)",
        "format": f"{report['format']}{f', names of {names}' if (names := report['names']) else ''}",
        "model": report["model"] or f"none of ours: {report['problem']}",
        "classes": f"{len(classes)}: {listed([row['name'] for row in classes])}" if classes else "not said",
        "parameters": f"{report['parameters']:,}" if report["parameters"] else "",
        "tensors": f"{report['tensors']:,} ({', '.join(report['dtypes'])})" if report["tensors"] else "",
        "metadata": listed([f"{key} {_short(value)}" for key, value in report["metadata"].items()], most=8),
        "sha256": report["sha256"] or "a folder has none",
        "numbers": report["numbers"] or "",
        "checked": report["checked"],
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        if text:
            click.echo(f"{name.ljust(width)}  {text}")


def _of_exported(file: str) -> dict[str, Any]:
    """The same report, as far as an exported file tells."""
    from detr.export import held_against, open_runner
    from detr.releases import file_sha256

    path, runner = Path(file), open_runner(file)
    about = runner.about
    return {
        "file": file,
        "bytes": path.stat().st_size,
        "format": runner.name,
        "names": None,
        "model": about.config.arch,
        "problem": None,
        "classes": about.classes.rows(),
        "parameters": None,
        "tensors": None,
        "dtypes": [runner.number],
        "metadata": {},
        "sha256": file_sha256(path),
        "numbers": about.numbers,
        "checked": held_against(path),
    }


@command.command(cls=Verb, short_help="Write weights in another format.")
@click.argument("file")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", help="The preset FILE is for, where it does not say.")
@click.option(
    "--to",
    type=click.Choice(["detr", "official", "hf"]),
    default="detr",
    show_default=True,
    help="Ours; the authors' .pth; or a folder for Hugging Face's transformers.",
)
@click.option("--half", is_flag=True, help="Store 16 bits a number: half the size, about three digits.")
@flags.as_json("What was written")
def convert(file: str, out: Path, model: str | None, to: Any, half: bool, as_json: bool) -> None:
    """Read FILE (or a release) strictly and write it to OUT in another format."""
    from detr import hugging_face
    from detr.models.loading import read_network
    from detr.models.saving import save_model

    checkpoint, network = read_network(file, model)
    metadata = {key: value for key, value in checkpoint.metadata.items() if key != "config"}
    metadata["converted_from"] = checkpoint.path.name
    save_model(network.half() if half else network, out, to, metadata=metadata)
    if to == "hf" and (note := hugging_face.note_on(network.config.arch)):
        click.echo(f"note: {note}", err=True)
    count = len(network.state_dict())
    if as_json:
        print_json({"file": str(out), "from": str(checkpoint.path), "to": to, "tensors": count})
    click.echo(f"{out}: {count:,} tensors from {checkpoint.path}", err=as_json)


def _table(rows: list[list[Any]], head: list[str]) -> str:
    cells = [head, *[["-" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _short(value: Any) -> str:
    return shortened(" ".join(str(value).split()))
