"""`detr data`: make the generated set, look into any other, and write it in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detr.cli import flags
from detr.cli.help import Verb
from detr.cli.plain import SEED, print_json, to_stderr, to_stdout
from detr.errors import InputError, counted

if TYPE_CHECKING:
    from detr.data.check import SplitReport

_MOST_SHOWN = 20  # problems of images listed one by one


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, look at and convert data sets."""


@command.command(cls=Verb)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--images", default=2000, show_default=True, help="Training images.")
@click.option("--val-images", default=500, show_default=True, help="Validation images.")
@click.option("--size", default=320, show_default=True, help="About the side of an image, in pixels.")
@click.option("--seed", default=0, type=SEED, show_default=True, help="Another seed makes another set.")
@click.option("--no-video", is_flag=True, help="Leave out the moving picture.")
@click.option("--overwrite", is_flag=True, help="Write to OUT although it holds something.")
def shapes(out: Path, images: int, val_images: int, size: int, seed: int, no_video: bool, overwrite: bool) -> None:
    """Make the `shapes` detection set in the folder OUT.

    Ten classes of textured, overlapping shapes on cluttered scenes, and a video with ground truth.
    The same seed gives the same files.
    """
    from detr.data.shapes import make_shapes
    from detr.runtime.progress import progress

    make_shapes(
        out,
        images=images,
        val_images=val_images,
        size=size,
        seed=seed,
        video=not no_video,
        overwrite=overwrite,
        progress=progress,
    )
    video = "" if no_video else f", {out / 'video' / 'moving.mp4'}"
    click.echo(f"{out}: {images:,} training and {counted(val_images, 'validation image')}{video}")


@command.command(cls=Verb)
@click.argument("data", type=click.Path(path_type=Path))
@flags.images
@click.option("--quick", is_flag=True, help="Do not decode the images.")
@click.option("--strict", is_flag=True, help="A box without width or height is an error, not a note.")
@flags.as_json("The report")
def check(data: Path, images: Path | None, quick: bool, strict: bool, as_json: bool) -> None:
    """Show what DATA holds and what is wrong with it.

    DATA is a folder in a layout of COCO, YOLO, Pascal VOC or Roboflow, a COCO file, or a YAML. Images are all decoded;
    exit code 1 if one is damaged or not of the size that is said.
    """
    from detr.data.check import check_split
    from detr.data.sources import find_splits
    from detr.runtime.progress import progress, told_if_long

    reports: dict[str, SplitReport] = {}
    with told_if_long(f"reading {data}"):
        sources = find_splits(data, images=images)
        for split, source in sources.items():
            if any(source == report.source for report in reports.values()):
                continue
            classes = next(iter(reports.values())).classes if reports else None
            reports[split] = check_split(source, classes=classes, strict=strict, decode=not quick, progress=progress)
    if as_json:
        print_json({"splits": {split: report.to_json() for split, report in reports.items()}})
    else:
        for report in reports.values():
            _print(" and ".join(split for split, source in sources.items() if source == report.source), report)
    wrong = sum(len(report.problems) for report in reports.values())
    if wrong:
        raise InputError(f"{data}: {counted(wrong, 'image is', 'images are')} damaged or not of the size that is said")


@command.command(cls=Verb)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--to", "format", required=True, help="coco, yolo or voc.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write, new or empty.")
@flags.images
@click.option("--copy", is_flag=True, help="Copy the images instead of making hard links to them.")
@click.option("--val", type=float, help="Share of the images that become val, where DATA has none: 0.2.")
@flags.as_json("What was written")
def convert(
    data: Path, format: str, out: Path, images: Path | None, copy: bool, val: float | None, as_json: bool
) -> None:
    """Write DATA in another format: the same images, boxes and names.

    \b
      detr data convert my-coco --to yolo --out my-yolo
      detr data convert cvat-export --to coco --out my-data --val 0.2
      detr data convert VOCdevkit/VOC2007 --to coco --out voc-as-coco --copy

    With --val every fifth image, say, is set aside to measure on, of each class as many; the same ones each time.
    Classes keep their order. Outlines aren't kept; boxes are cut to their image for YOLO and VOC, which have no crowds
    (YOLO: left out; VOC: written as difficult).
    """
    from detr.data.conversion import convert as convert_data
    from detr.runtime.progress import progress

    done = convert_data(data, format.lower(), out, images=images, copy=copy, val=val, progress=progress)
    for note in done.notes:
        to_stderr(f"note: {note}")
    if as_json:
        print_json(done.to_json(out))
        return
    splits = [
        f"{split} {counted(count, 'image')} with {counted(done.boxes[split], 'box', 'boxes')}"
        for split, count in done.images.items()
    ]
    click.echo(f"{out}: {'; '.join(splits)}; {counted(len(done.classes), 'class', 'classes')}")


def _print(splits: str, report: SplitReport) -> None:
    to_stdout(f"{splits}: {report.source.annotations}, images in {report.source.images}")
    to_stdout(
        f"{counted(report.num_images, 'image')} ({report.num_empty:,} without boxes), "
        f"{counted(report.num_boxes, 'box', 'boxes')}, {counted(report.num_crowds, 'crowd')}, "
        f"{counted(len(report.classes), 'class', 'classes')}"
    )
    to_stdout(report.classes.table(report.counts))
    for note in report.notes:
        to_stdout(f"note: {note}")
    for problem in report.problems[:_MOST_SHOWN]:
        to_stdout(f"problem: {problem}")
    if len(report.problems) > _MOST_SHOWN:
        to_stdout(f"problem: ... and {len(report.problems) - _MOST_SHOWN:,} more")
    to_stdout("")
