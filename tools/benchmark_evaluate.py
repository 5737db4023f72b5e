"""Measure the evaluator against pycocotools: processor time, peak memory and equality of the numbers, in one run.

    python tools/benchmark_evaluate.py --out tools/results/evaluate.md

Makes a set of the size of COCO val2017 (5,000 images, 36,000 boxes, 80 classes with COCO's gaps in the ids) with about
984,000 detections (duplicates, wrong classes, tied scores), and evaluates it in fresh processes, one after the other.
No speed is printed unless all twelve numbers are equal.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from commit import commit

from detr.classes import COCO as COCO_CLASSES
from detr.data.annotations import Annotations
from detr.evaluation.evaluate import evaluate
from detr.evaluation.predictions import DetectionArrays, read_predictions, write_predictions
from detr.runtime.processor import processor

NUM_IMAGES, NUM_BOXES, NUM_DETECTIONS = 5_000, 36_000, 984_000


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file too.")
@click.option("--images", default=NUM_IMAGES, show_default=True, help="Fewer for a quick look.")
@click.option("--one", nargs=2, hidden=True, help="Run one way on a folder and print what it took.")
def main(out: Path | None, images: int, one: tuple[str, str] | None) -> None:
    if one:
        print(json.dumps(measure(one[0], Path(one[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        num_detections = make_set(Path(folder), num_images=images)
        rows = {way: in_fresh_process(way, folder) for way in WAYS}
    reference = rows["pycocotools, from files"]
    for way, row in rows.items():
        if row["stats"] != reference["stats"]:
            sys.exit(f"{way} gives other numbers than pycocotools: {row['stats']} against {reference['stats']}")
    table = as_table(rows, reference, images=images, num_detections=num_detections)
    print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(table + "\n", encoding="utf-8")


def make_set(folder: Path, *, num_images: int) -> int:
    """Write truth.json, found.json and both as arrays.npz; return the number of detections."""
    draw = np.random.default_rng(0)
    num_boxes = NUM_BOXES * num_images // NUM_IMAGES
    num_classes = len(COCO_CLASSES)
    popular = 1 / np.arange(1, num_classes + 1)
    labels = draw.choice(num_classes, num_boxes, p=popular / popular.sum())
    images = draw.choice(num_images, num_boxes, p=draw.dirichlet(np.full(num_images, 1.5)))
    sizes = np.exp(draw.normal(4.0, 1.0, (num_boxes, 2))).clip(2, 500)
    boxes = np.concatenate((draw.uniform(0, 1, (num_boxes, 2)) * (640 - sizes), sizes), 1).round(2)
    areas = boxes[:, 2] * boxes[:, 3] * draw.uniform(0.4, 1.0, num_boxes)
    crowd = draw.random(num_boxes) < 0.012

    copies = draw.poisson(6, num_boxes)
    source = np.repeat(np.arange(num_boxes), copies)
    jitter = draw.normal(0, 0.12, (len(source), 4)) * boxes[source][:, [2, 3, 2, 3]]
    near = boxes[source] + jitter
    near_labels = np.where(draw.random(len(source)) < 0.15, draw.integers(0, num_classes, len(source)), labels[source])
    near_scores = draw.beta(3, 3, len(source))
    num_far = NUM_DETECTIONS * num_images // NUM_IMAGES - len(source)
    far_sizes = np.exp(draw.normal(4.0, 1.0, (num_far, 2))).clip(1, 640)
    far = np.concatenate((draw.uniform(0, 640, (num_far, 2)) - far_sizes / 2, far_sizes), 1)
    far_labels = draw.choice(num_classes, num_far, p=popular / popular.sum())
    found = np.concatenate((near, far))
    found[:, 2:] = found[:, 2:].clip(0.5)
    found_images = np.concatenate((images[source], draw.integers(0, num_images, num_far)))
    found_labels = np.concatenate((near_labels, far_labels))
    scores = np.concatenate((near_scores, draw.beta(1, 6, num_far)))
    scores = np.where(found_images % 5 == 0, scores.round(2), scores)  # every fifth image has tied scores
    order = draw.permutation(len(scores))

    ids = tuple(draw.choice(np.arange(1, 600_000), num_images, replace=False).tolist())
    annotations = Annotations(
        COCO_CLASSES, ids, tuple(f"{id:012}.jpg" for id in ids), np.full(num_images, 640), np.full(num_images, 640),
        images, labels, boxes, areas, crowd,
    )  # fmt: skip
    detections = DetectionArrays(ids, found_images[order], found_labels[order], found[order], scores[order])
    (folder / "truth.json").write_text(json.dumps(coco_json(annotations)))
    write_predictions(folder / "found.json", detections, COCO_CLASSES)
    stored = detections.canonical()
    np.savez(
        folder / "arrays.npz", ids=ids, images=images, labels=labels, boxes=boxes, areas=areas, crowd=crowd,
        found_images=stored.image_indices, found_labels=stored.labels, found=stored.boxes, scores=stored.scores,
    )  # fmt: skip
    return len(scores)


def coco_json(annotations: Annotations) -> dict[str, Any]:
    names = zip(annotations.image_ids, annotations.file_names, strict=True)
    return {
        "images": [{"id": id, "file_name": name, "width": 640, "height": 640} for id, name in names],
        "categories": annotations.classes.to_json(),
        "annotations": [
            {
                "id": n + 1,
                "image_id": annotations.image_ids[annotations.image_indices[n]],
                "category_id": annotations.classes.ids[annotations.labels[n]],
                "bbox": annotations.boxes[n].tolist(),
                "area": float(annotations.areas[n]),
                "iscrowd": int(annotations.crowd[n]),
            }
            for n in range(len(annotations.labels))
        ],
    }


def detr_from_arrays(folder: Path) -> list[float]:
    at = np.load(folder / "arrays.npz")
    ids = tuple(at["ids"].tolist())
    zeros = np.zeros(len(ids), int)
    truth = [at[name] for name in ("images", "labels", "boxes", "areas", "crowd")]
    annotations = Annotations(COCO_CLASSES, ids, ("",) * len(ids), zeros, zeros, *truth)
    found = [at[name] for name in ("found_images", "found_labels", "found", "scores")]
    return evaluate(annotations, DetectionArrays(ids, *found)).stats.tolist()


def detr_from_files(folder: Path) -> list[float]:
    from detr.data.coco_file import read_annotations

    annotations = read_annotations(folder / "truth.json")
    return evaluate(annotations, read_predictions(folder / "found.json", annotations)).stats.tolist()


def pycocotools_from_files(folder: Path) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / "truth.json"))
    judge = COCOeval(truth, truth.loadRes(str(folder / "found.json")), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats.tolist()


WAYS = {
    "detr, from arrays": detr_from_arrays,
    "detr, from files": detr_from_files,
    "pycocotools, from files": pycocotools_from_files,
}


def in_fresh_process(way: str, folder: str) -> dict[str, Any]:
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--one", way, folder],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | one_thread,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Seconds and bytes of the whole process, imports and reading included."""
    start = time.perf_counter()
    stats = WAYS[way](folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "stats": stats,
        "wall": time.perf_counter() - start,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss * 1024,
    }


def as_table(rows: dict[str, Any], reference: dict[str, Any], *, images: int, num_detections: int) -> str:
    lines = [
        "# Evaluating a set of the size of COCO val2017",
        "",
        f"{num_detections:,} detections on {images:,} images, one process and one thread each, one after the other.",
        "Processor time and peak memory are those of the whole process, from its start.",
        f"The twelve numbers are equal (`==`) in all rows; AP {reference['stats'][0]!r}.",
        "",
        "| evaluator | CPU s | wall s | peak MB | CPU, pycocotools = 1 | memory, pycocotools = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for way, row in rows.items():
        less_cpu, less_memory = reference["cpu"] / row["cpu"], reference["peak"] / row["peak"]
        lines.append(
            f"| {way} | {row['cpu']:.1f} | {row['wall']:.1f} | {row['peak'] / 1e6:.0f} "
            f"| 1/{less_cpu:.1f} | 1/{less_memory:.1f} |"
        )
    load = os.getloadavg()[0]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores ({processor()}), load {load:.1f}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, pycocotools {version('pycocotools')}"
    lines += ["", f"{machine}; {versions}; commit {commit()}.", "", "    python tools/benchmark_evaluate.py"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
