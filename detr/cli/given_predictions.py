"""`detr val --predictions`: what others found, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detr.cli.measured import noted, show, tell_why
from detr.errors import InputError
from detr.files import new_run, write_text

if TYPE_CHECKING:
    from detr.data.annotations import Annotations
    from detr.data.coco import CocoDataset


def measure_predictions(predictions: Path, data: Path, **options: Any) -> None:
    """Say the numbers of a COCO results file, and leave them in a folder where one is named, or --why asked."""
    from detr.evaluation.evaluate import evaluate
    from detr.evaluation.predictions import read_predictions, write_predictions

    annotations = noted(_truth(data, options["split"]))
    found = read_predictions(predictions, annotations, allow_extra_images=options["allow_extra_images"])
    metrics = evaluate(annotations, found, max_dets=options["max_dets"], evaluator=options["evaluator"])
    report = {"predictions": str(predictions), "data": str(data), **metrics.to_json()}
    show(metrics, report, as_json=options["as_json"])
    if options["save_json"]:
        write_predictions(Path(options["save_json"]), found, annotations.classes)
    if options["name"] or options["why"]:
        folder = new_run("val", options["name"], project=options["project"], overwrite=options["overwrite"])
        write_text(folder / "metrics.json", json.dumps(report, indent=2) + "\n")
        from detr.evaluation.album import draw_charts

        files = ["metrics.json", *(path.name for path in draw_charts(folder, annotations, metrics, found))]
        if options["why"]:
            from detr.diagnose.diagnosis import diagnose

            seen = diagnose(annotations, found, num_queries=None, places="predictions are boxes only")
            files += tell_why(seen, metrics, folder, _pictured(data, annotations, **options), **options)
        click.echo(f"{folder}: {', '.join(files)}", err=True)


def _pictured(data: Path, annotations: Annotations, **options: Any) -> CocoDataset | str:
    """The data set with its images, or why there are none."""
    from detr.data.coco import CocoDataset
    from detr.data.sources import find_split

    try:
        return CocoDataset(annotations, find_split(data, options["split"], images=options["images"]).images)
    except InputError as problem:
        return f"the images were not found ({problem})"


def _truth(data: Path, split: str) -> Annotations:
    """Of a COCO file alone: neither torch nor the images are needed for that, so these need not be found."""
    if data.suffix.lower() == ".json":
        from detr.data.coco_file import read_annotations

        return read_annotations(data)
    from detr.data.sources import find_split

    return find_split(data, split).read()
