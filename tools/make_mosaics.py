"""A COCO set of few large pictures, each put together from many photographs of another set: something to slice.

    python tools/make_mosaics.py --data coco/val2017 --out mosaics --cell 320 --columns 10 --rows 6
    detr val --weights deimv2-atto --data mosaics
    detr val --weights deimv2-atto --data mosaics --slice 320 --overlap 0.4

Each photograph is scaled to fit its cell, which is grey where it doesn't; its boxes go along. Photographs that are left
over when no full picture can be made of them are not used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from detr.data.annotations import Annotations
from detr.data.sources import find_split
from detr.image_file import read_image

GREY = 114


@click.command()
@click.option("--data", required=True, help="Data set with a val split.")
@click.option("--images", type=click.Path(path_type=Path), help="Image folder, where --data is an annotation file.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--cell", default=320, show_default=True, help="Side of a photograph's place, in pixels.")
@click.option("--columns", default=10, show_default=True)
@click.option("--rows", default=6, show_default=True)
def main(data: str, images: Path | None, out: Path, cell: int, columns: int, rows: int) -> None:
    source = find_split(data, "val", images=images)
    known = source.read()
    each = columns * rows
    (out / "val").mkdir(parents=True)
    pictures: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for number in range(len(known.image_ids) // each):
        canvas = np.full((rows * cell, columns * cell, 3), GREY, np.uint8)
        for place in range(each):
            corner = (place % columns * cell, place // columns * cell)
            records += _put(canvas, corner, cell, number, known, number * each + place, Path(source.images))
        Image.fromarray(canvas).save(out / "val" / f"{number}.jpg", quality=95)
        size = {"height": canvas.shape[0], "width": canvas.shape[1]}
        pictures.append({"id": number, "file_name": f"{number}.jpg", **size})
    classes = zip(known.classes.ids, known.classes.names, strict=True)
    tree = {
        "images": pictures,
        "annotations": [{"id": id, **record} for id, record in enumerate(records, start=1)],
        "categories": [{"id": id, "name": name} for id, name in classes],
    }
    (out / "val.json").write_text(json.dumps(tree))
    click.echo(f"{out}: {len(pictures)} pictures of {columns * cell} x {rows * cell}, {len(records)} objects")


def _put(
    canvas: np.ndarray[Any, Any],
    corner: tuple[int, int],
    cell: int,
    number: int,
    known: Annotations,
    index: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """The photograph into its place -> its annotations there."""
    left, top = corner
    photograph = Image.fromarray(read_image(folder / known.file_names[index]))
    scale = cell / max(photograph.size)
    size = (round(photograph.width * scale), round(photograph.height * scale))
    canvas[top : top + size[1], left : left + size[0]] = np.asarray(photograph.resize(size, Image.Resampling.LANCZOS))
    mine = np.flatnonzero(known.image_indices == index)
    return [
        {
            "image_id": number,
            "category_id": known.classes.ids[int(known.labels[row])],
            "bbox": (known.boxes[row] * scale + (left, top, 0, 0)).tolist(),
            "area": float(known.areas[row]) * scale**2,
            "iscrowd": int(known.crowd[row]),
        }
        for row in mine
    ]


if __name__ == "__main__":
    main()
