"""The toolkit at work on data it makes itself: a model is measured or trained, a video predicted, a page written."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detr import __version__
from detr.data.coco import CocoDataset
from detr.data.opening import open_for_training, open_split
from detr.data.shapes import make_shapes
from detr.data.sources import find_split
from detr.draw import draw
from detr.engine.detector import Detector
from detr.engine.page import Section, write_page
from detr.engine.predict import Summary as Predicted
from detr.engine.predict import predict
from detr.engine.results import write_image
from detr.errors import counted
from detr.evaluation.metrics import Metrics
from detr.evaluation.validate import validate
from detr.files import write_text
from detr.image import RGB
from detr.records import Detections
from detr.runtime.device import default_workers
from detr.runtime.progress import progress
from detr.training.recipe import load_recipe
from detr.training.saved.checkpoint import BEST
from detr.training.train import Summary as Trained
from detr.training.train import train
from detr.training.words import in_words
from detr.video import find_sources

MODEL = "rtdetr-tiny"
PICTURES = 12
SHOWN = 0.5  # scores below are not drawn

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo did; `page` is what to look at."""

    page: Path
    metrics: Metrics
    predicted: Predicted
    trained: Trained | None
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "page": str(self.page),
            "metrics": self.metrics.to_json(),
            "predicted": self.predicted.to_json(),
            "trained": None if self.trained is None else self.trained.to_json(),
            "seconds": sum(self.seconds.values()),
            "seconds_of": self.seconds,
            "machine": machine(),
        }


def run_demo(
    out: Path,
    *,
    images: int = 500,
    train_images: int | None = None,
    epochs: int = 5,
    device: str = "auto",
    say: Say = print,
) -> Demo:
    """Fill the folder `out`. With `train_images` a model is trained on so many first; else the embedded one is used."""
    clock = _Clock()
    say(f"1. drawing {images} images and a video to measure and predict: {out / 'shapes'}")
    data = make_shapes(out / "shapes", images=train_images or 1, val_images=images, overwrite=True, progress=progress)
    clock.lap("drawing")

    weights, trained = MODEL, None
    if train_images is not None:
        say(f"2. training {MODEL} from scratch on {counted(train_images, 'image')}, {counted(epochs, 'epoch')}")
        trained = _train(data, out / "train", epochs=epochs, device=device, say=say)
        weights = str(out / "train" / BEST)
        clock.lap("training")
    else:
        say(f"2. loading {MODEL}, the model that comes with the package")
    detector = Detector(weights, device=device)

    say("3. measuring it")
    dataset = open_split(find_split(data, "val"))
    metrics, _ = validate(detector.runner(), dataset, workers=default_workers())
    clock.lap("measuring")
    say(metrics.table())

    say("4. finding the objects in the video")
    video = find_sources(data / "video" / "moving.mp4")
    predicted = predict(detector, video, detector.settings(conf=SHOWN), out / "video", say=say)
    pictures = _draw_pairs(detector, dataset, out / "pictures")
    clock.lap("predicting")

    demo = Demo(out / "index.html", metrics, predicted, trained, clock.seconds)
    _write(demo, detector, len(dataset), pictures)
    write_text(out / "demo.json", json.dumps(demo.to_json(), indent=2) + "\n")
    return demo


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    return {
        "detr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


def _train(data: Path, out: Path, *, epochs: int, device: str, say: Say) -> Trained:
    train_set, val_set = open_for_training(data)
    recipe = load_recipe(MODEL, [f"train.epochs={epochs}", "train.schedule.warmup=100"])
    return train(recipe, train_set=train_set, val_set=val_set, out=out, device=device, say=say)


def _draw_pairs(detector: Detector, dataset: CocoDataset, folder: Path) -> list[Path]:
    """Truth on the left, what was found on the right, for the first images."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(min(PICTURES, len(dataset))):
        sample = dataset[index]
        image = sample.image.permute(1, 2, 0).contiguous().numpy()
        truth = Detections(sample.boxes.as_subclass(torch.Tensor), torch.ones(len(sample.labels)), sample.labels)
        [result] = detector(image, conf=SHOWN, channels="rgb")
        pair = [draw(image, truth, detector.names, scores=False), result.plot(channels="rgb")]
        path = folder / f"{index:02d}.jpg"
        write_image(path, _side_by_side(pair))
        paths.append(path)
    return paths


def _side_by_side(pair: list[RGB]) -> RGB:
    gap = np.full((pair[0].shape[0], 6, 3), 255, np.uint8)
    return np.concatenate([pair[0], gap, pair[1]], 1)


def _write(demo: Demo, detector: Detector, num_images: int, pictures: list[Path]) -> None:
    out = demo.page.parent
    parameters = sum(parameter.numel() for parameter in detector.network.parameters())
    frames, spent = demo.predicted.frames, demo.predicted.seconds
    sections = [
        Section(
            "The video",
            f"{frames} frames of a moving camera, {demo.predicted.detections} detections above {SHOWN}; "
            f"{frames / spent:.0f} frames a second, reading and writing included.",
            video=os.fspath(next((out / "video").glob("*.mp4")).relative_to(out)),
        ),
        *_curve(demo, out),
        Section(
            "COCO's numbers",
            f"On {num_images} images that were not trained on. AP is the mean over IoU 0.50 to 0.95 and all classes.",
            table=[["measure", "value"], *([name, f"{value:.4f}"] for name, value in demo.metrics.as_dict().items())],
        ),
        Section(
            "Classes",
            table=[
                ["class", "boxes", "AP", "AP50"],
                *([row.name, str(row.num_boxes), f"{row.ap:.4f}", f"{row.ap50:.4f}"] for row in demo.metrics.per_class),
            ],
        ),
        Section(
            "Pictures",
            "Left: what is there. Right: what was found, with scores.",
            pictures=[(os.fspath(path.relative_to(out)), f"image {path.stem}") for path in pictures],
        ),
        Section(
            "How it was made",
            "Go on with: detr train, detr val, detr predict; each has --help.",
            table=[
                ["what", "value"],
                *([f"{what}, seconds", f"{spent:.1f}"] for what, spent in demo.seconds.items()),
                *machine().items(),
            ],
        ),
    ]
    made = "trained just now" if demo.trained is not None else "which comes with the package"
    lead = f"{MODEL}, {parameters:,} parameters, {made}: AP {demo.metrics.ap:.3f} on {num_images} generated images."
    write_page(demo.page, "detr at work", lead, sections)


def _curve(demo: Demo, out: Path) -> list[Section]:
    """How training went, where the picture could be drawn."""
    if demo.trained is None:
        return []
    epochs, best = counted(demo.trained.epochs, "epoch"), demo.trained.best or 0
    text = f"{epochs} in {in_words(demo.trained.seconds)}; best AP {best:.3f}."
    curve = out / "train" / "results.png"
    return [Section("Training", text, pictures=[("train/results.png", "each epoch")] if curve.is_file() else [])]
