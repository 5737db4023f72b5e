"""A detector in one object: weights in, results out, and everything the command line does as methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from detr.engine.finder import Finder
from detr.engine.given import Channels, Picture, given_frames
from detr.engine.results import Results
from detr.errors import UsageError
from detr.runtime.device import default_workers
from detr.runtime.settings import at_least_1, input_of_size, refuse, slicing_of
from detr.weights import write

if TYPE_CHECKING:
    from detr.evaluation.evaluate import Evaluator
    from detr.evaluation.metrics import Metrics
    from detr.training.train import Summary


class Detector(Finder):
    """`Detector("rtdetr-r18")`, or any readable checkpoint: call it with pictures to get a `Results` for each.

    `names` maps class indices to names; `network` is the `nn.Module` itself.
    """

    @overload
    def __call__(
        self, source: Picture | Iterable[Picture], *, stream: Literal[False] = False, **options: Any
    ) -> list[Results]: ...

    @overload
    def __call__(
        self, source: Picture | Iterable[Picture], *, stream: Literal[True], **options: Any
    ) -> Iterator[Results]: ...

    def __call__(
        self,
        source: Picture | Iterable[Picture],
        *,
        conf: float | str | os.PathLike[str] = 0.25,
        classes: Sequence[int | str] | int | str | None = None,
        max_det: int = 300,
        imgsz: int | Sequence[int] | None = None,
        stream: bool = False,
        device: str | torch.device | None = None,
        half: bool = False,
        channels: Channels = "bgr",
        batch: int = 1,
        vid_stride: int = 1,
        slice: int | Sequence[int] | None = None,
        overlap: float = 0.2,
        tiles_only: bool = False,
        verbose: bool = False,
        **others: Any,
    ) -> list[Results] | Iterator[Results]:
        """Find objects in each picture of `source`.

        source: a path, folder, glob, list file, URL, camera number, `-` (see `detr.video.find_sources`), the bytes of
            an image file or one that is open, PIL image, array, tensor, or several of these. A video gives a result for
            each frame.
        conf: detections scored below are left out; or the path of a thresholds.json that `detr val --why` wrote.
        classes: only these, by index or name.
        max_det: at most so many per picture, the best.
        imgsz: size the network sees, a side or (height, width), multiples of 32; the model's own by default. Of a
            model that keeps the aspect, the shorter side; the limit of the longer one grows along.
        stream: give results one by one as they come, in constant memory; else a list of all, images included.
        half: compute in 16 bits: float16 on a GPU, bfloat16 on the CPU.
        channels: order in [h, w, 3] uint8 arrays. They are taken as BGR, as OpenCV reads files; say "rgb" for others.
            Tensors are RGB: [3, h, w] or [B, 3, h, w], uint8 or floats in [0, 1]. A model of other channels takes
            arrays and tensors that have as many.
        vid_stride: take every N-th frame of a video.
        slice: look at tiles of so many pixels of the picture, a side or (height, width), and at the whole picture: for
            objects that are small in large pictures. Objects on seams are put together (see `detr.slicing.merging`);
            `batch` is that of tiles. A picture that fits into one tile is seen as without.
        overlap: share of a tile that its neighbour sees as well; best larger than the small objects are.
        tiles_only: leave out the look at the whole picture.
        verbose: for the sake of old habits; nothing is printed either way. UsageError for what isn't listed here.

        Boxes are in the pixels of the picture as given (upright), and inside it.
        """
        refuse(others, Detector.__call__)
        if device is not None:
            self.to(device)
        settings = self.settings(
            conf=conf,
            classes=classes,
            max_det=max_det,
            imgsz=imgsz,
            half=half,
            slicing=slicing_of(slice, overlap=overlap, tiles_only=tiles_only, batch=at_least_1("batch", batch)),
        )
        stride = at_least_1("vid_stride", vid_stride)
        pictures = given_frames(source, channels=channels, stride=stride, bands=self.config.input.channels)
        results = self.results(pictures, settings, batch=batch)
        return results if stream else list(results)

    predict = __call__

    def track(
        self,
        source: Picture | Iterable[Picture],
        *,
        conf: float = 0.25,
        weak: float | None = None,
        patience: float = 1.0,
        lines: Sequence[str] = (),
        zones: Sequence[str] = (),
        count_at: Literal["middle", "bottom"] = "middle",
        trail: float = 1.0,
        fps: float | None = None,
        stream: bool = False,
        classes: Sequence[int | str] | int | str | None = None,
        max_det: int = 300,
        imgsz: int | Sequence[int] | None = None,
        half: bool = False,
        channels: Channels = "bgr",
        batch: int = 1,
        vid_stride: int = 1,
        slice: int | Sequence[int] | None = None,
        overlap: float = 0.2,
        tiles_only: bool = False,
    ) -> list[Results] | Iterator[Results]:
        """Follow objects through the videos of `source`: results as of `predict`, of tracks only, with `boxes.id`.

        conf: a score from which on a new track may begin.
        weak: one down to which tracks are kept going, 0.1 by default, or `conf` where that is lower.
        patience: seconds after which what is lost gets a new id.
        lines, zones: `"x1,y1,x2,y2:name"`, `"x1,y1,x2,y2,x3,y3:name"`, in pixels or as shares of the picture; each
            result has the `counts` so far.
        count_at: the point of a box that counts.
        trail: seconds of its way that `plot` draws behind each object.
        fps: pictures (files, arrays, tensors) that follow each other are the frames of a video, so many a second.

        Ids begin at 1 in each video. The other arguments are those of `predict`.
        """
        from detr.engine.tracking import Tracking, follow_all, numbered, places_of

        tracking = Tracking(conf, weak, patience, places_of(lines, zones), count_at, trail)
        slicing = slicing_of(slice, overlap=overlap, tiles_only=tiles_only, batch=at_least_1("batch", batch))
        settings = self.settings(
            conf=tracking.lowest, classes=classes, max_det=max_det, imgsz=imgsz, half=half, slicing=slicing
        )
        stride = at_least_1("vid_stride", vid_stride)
        pictures = given_frames(source, channels=channels, stride=stride, bands=self.config.input.channels)
        results = follow_all(self, numbered(pictures, fps), settings, tracking, stride=stride, batch=batch)
        return results if stream else list(results)

    def val(
        self,
        data: str | os.PathLike[str],
        *,
        split: str = "val",
        images: str | os.PathLike[str] | None = None,
        batch: int = 8,
        imgsz: int | Sequence[int] | None = None,
        workers: int | None = None,
        half: bool = False,
        conf: float = 0.0,
        max_det: int = 100,
        evaluator: Evaluator = "detr",
        slice: int | Sequence[int] | None = None,
        overlap: float = 0.2,
        tiles_only: bool = False,
        quiet: bool = False,
    ) -> Metrics:
        """COCO's numbers on a split of a data set, as `detr val` measures them; `.table()` shows them.

        images: the image folder of a single annotation file.
        max_det: detections that count per class and image.
        evaluator: `pycocotools` asks that library; the numbers are the same.
        slice, overlap, tiles_only: in tiles, as in `predict`.
        """
        from detr.data.opening import open_split
        from detr.data.sources import find_split
        from detr.evaluation.validate import validate

        metrics, _ = validate(
            self.runner(half=half),
            open_split(find_split(data, split, images=images)),
            batch_size=at_least_1("batch", batch),
            workers=default_workers() if workers is None else workers,
            conf=conf,
            max_dets=max_det,
            evaluator=evaluator,
            input=input_of_size(self.config.input, imgsz),
            slicing=slicing_of(slice, overlap=overlap, tiles_only=tiles_only, batch=batch),
            quiet=quiet,
        )
        return metrics

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the weights as they are, with settings and classes: a file that `Detector` and every command takes.

        UsageError for a name that doesn't end in .safetensors, and of an exported file, which gives its answer only.
        """
        if self.network is None:
            raise UsageError(f"{self.source} gives its answer only; save the weights that it was exported from")
        path = Path(path)
        if path.suffix.lower() != ".safetensors":
            raise UsageError(f"{path}: expected a name such as {path.with_suffix('.safetensors').name}")
        write(path, self.network.state_dict(), model=self.config.model_dump(mode="json"), classes=self.classes)
        return path

    def export(
        self,
        format: str = "onnx",
        *,
        out: str | os.PathLike[str] | None = None,
        imgsz: int | Sequence[int] | None = None,
        half: bool = False,
        int8: bool = False,
        calibrate: str | os.PathLike[str] | None = None,
        with_preprocessing: bool = False,
        with_postprocessing: bool = False,
        max_det: int = 300,
        open_batch: bool = True,
        open_size: bool | None = None,
        verify: bool = True,
        data: str | os.PathLike[str] | None = None,
        split: str = "val",
        say: Callable[[str], None] = print,
        **others: Any,
    ) -> Path:
        """Write a file that other programs run, as `detr export` does, and prove it -> its path.

        format: onnx, openvino, torch-export or tensorrt.
        out: a file or folder; by default the name of the weights, in the current folder.
        int8: 8 bits, fitted to the images of the data set `calibrate`.
        with_preprocessing: takes pictures as they are, uint8, RGB, of any size.
        with_postprocessing: gives `max_det` scores, labels and boxes in pixels.
        open_batch, open_size: any number of images at once, of any size; by default the size is open where the model
            keeps the aspect.
        verify: compare what the file finds with what PyTorch finds in the `split` of `data`, or in generated pictures.

        InputError where they don't find the same: the file is called NAME.unverified then.
        """
        from detr.engine.exporting import Order, fill
        from detr.export import of_input

        refuse(others, Detector.export)
        if self.network is None:
            raise UsageError(f"{self.source} is an exported file; give the weights that it was made of")
        if int8 != (calibrate is not None):
            raise UsageError("int8 and calibrate go together: calibrate is a data set with some hundred images")
        order = Order(
            formats=[format],
            out=None if out is None else Path(out),
            half=half,
            calibrate=calibrate,
            preprocessing=with_preprocessing,
            max_det=max_det if with_postprocessing else None,
            open_batch=open_batch,
            open_size=open_size,
            verify=verify,
            data=data,
            split=split,
        )
        network = of_input(deepcopy(self.network).cpu(), input_of_size(self.config.input, imgsz))
        [report] = fill(order, network, self.source, say=say)
        return Path(report["file"])

    def train(
        self,
        data: str | os.PathLike[str],
        *,
        recipe: str | os.PathLike[str] | None = None,
        settings: Sequence[str] = (),
        finetune: bool = False,
        epochs: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
        workers: int | None = None,
        name: str | None = None,
        project: str | os.PathLike[str] = "runs",
        overwrite: bool = False,
        imgsz: int | None = None,
        say: Callable[[str], None] = print,
        **others: Any,
    ) -> Summary:
        """Train from these weights on, as `detr train --weights` does; afterwards this detector holds the best ones.

        recipe: by default that of the preset or release, or the one of the run that made the file.
        finetune: with schedule and augmentation for a small data set.
        settings: `key.sub=value` words on top of it.
        imgsz: side of the input, a multiple of 32; where it keeps the aspect, the shorter one.
        """
        from detr.engine.training import recipe_for, train_from
        from detr.training.recipe import at_size
        from detr.training.saved.checkpoint import BEST

        refuse(others, Detector.train)
        if self._is_given:
            raise UsageError(f"training starts from a release or a file; this detector was given a {self.source}")
        given = {"train.epochs": epochs, "train.batch": batch, "train.seed": seed}
        words = [*settings, *(f"{key}={value}" for key, value in given.items() if value is not None)]
        chosen = recipe_for(self, recipe, words, finetune=finetune)
        chosen = chosen if imgsz is None else at_size(chosen, imgsz)
        summary = train_from(
            self, chosen, data, name=name, project=project, overwrite=overwrite, workers=workers, say=say
        )
        self._load(str(summary.out / BEST))
        return summary
