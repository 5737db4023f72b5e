"""A detector in one object: weights in, results out, and everything the command line does as methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, overload

import torch
from torch import nn

from detr.classes import Classes
from detr.engine import detecting
from detr.engine.cost import Info, info_of
from detr.engine.detecting import Prepared
from detr.engine.given import Channels, Picture, given_frames
from detr.engine.results import Results
from detr.errors import InputError, UsageError, counted
from detr.evaluation.thresholds import read_thresholds
from detr.models import load_model
from detr.models.inspection import preset_of
from detr.runtime.device import choose_device, default_workers
from detr.runtime.runner import Runner, TorchRunner
from detr.runtime.settings import (
    Settings,
    at_least_1,
    class_indices,
    input_of_size,
    refuse,
    set_effort,
    share,
    slicing_of,
)
from detr.slicing import Slicing
from detr.video import Frame
from detr.weights import RELEASES

if TYPE_CHECKING:
    from detr.evaluation.evaluate import Evaluator
    from detr.evaluation.metrics import Metrics
    from detr.training.train import Summary


class Detector:
    """`Detector("rtdetr-r18")`, or any readable checkpoint: call it with pictures to get a `Results` for each.

    `names` maps class indices to names; `network` is the `nn.Module` itself.
    """

    archs: ClassVar[tuple[str, ...]] = ()  # the only architectures this class takes; all where there is none

    def __init__(
        self,
        weights: str | os.PathLike[str] | nn.Module | Runner = "rtdetr-tiny",
        *,
        model: str | None = None,
        device: str | torch.device | None = None,
        layers: int | None = None,
        queries: int | None = None,
        compile: bool = False,
    ) -> None:
        """`weights`: a release, a file, a network, or a runner such as `detr.export` makes, which has no `network`.

        `model`: the preset, where a file doesn't say what it is.

        `layers`, `queries`: how many decoder layers and queries answer, by default the model's own; fewer are faster.
        `compile`: hand the network to `torch.compile` (see `TorchRunner`), for many pictures of the same size.
        """
        self.model, self.compile = model, compile
        self._ready: tuple[object, TorchRunner] | None = None
        self._is_given = not isinstance(weights, (str, os.PathLike))
        self.source = os.fspath(weights) if isinstance(weights, (str, os.PathLike)) else type(weights).__name__
        if not isinstance(weights, (str, os.PathLike, nn.Module)):
            self._runner: Runner | None = weights
            self.network: Any = None
            self.device = weights.device
            self._require_arch(weights.config)
            return
        self._runner = None
        self.device = choose_device("auto" if device is None else str(device))
        network = weights if isinstance(weights, nn.Module) else load_model(os.fspath(weights), model)
        self._require_arch(network.config)
        self.network = network.to(self.device).eval()
        set_effort(cast(Any, network), layers=layers, queries=queries)

    def _require_arch(self, config: Any) -> None:
        if self.archs and config.arch not in self.archs:
            said = f"{self.source} is a model of kind {config.arch!r}, not {' or '.join(map(repr, self.archs))}"
            raise InputError(f"{said}; use detr.{_door(config.arch)}, or detr.Detector, which takes any")

    @property
    def config(self) -> Any:
        """The model's settings."""
        return self.network.config if self._runner is None else self._runner.config

    @property
    def classes(self) -> Classes:
        """What the weights find: names, and the category ids of the data they learned from."""
        return self.network.classes if self._runner is None else self._runner.classes

    @property
    def names(self) -> dict[int, str]:
        """Class index -> name."""
        return self.classes.as_dict()

    def __repr__(self) -> str:
        classes = counted(len(self.classes), "class", "classes")
        return f"{type(self).__name__}({self.source!r}, {classes}, {self.device})"

    def info(self) -> Info:
        """Parameters, arithmetic, layers, queries and classes; `print` it for one line. UsageError for a runner."""
        if self.network is None:
            raise UsageError(f"{self.source} gives its answer only; ask the weights that it was exported from")
        return info_of(self.network)

    def to(self, device: str | torch.device) -> Detector:
        """Move it: auto, cpu, cuda, cuda:N or mps. UsageError for a device that isn't there."""
        chosen = choose_device(str(device))
        if self._runner is None:
            self.network.to(chosen)
        elif chosen != self.device:
            raise UsageError(f"device {str(device)!r}: {self._runner.name} runs on {self.device}")
        self.device = chosen
        return self

    def runner(self, *, half: bool = False) -> Runner:
        """The network made ready to answer: folded, once for as long as it stays as it is.

        A runner that was given is given back: what it computes in was said when it was made.
        """
        if self._runner is not None:
            return self._runner
        state = (id(self.network), self.device, half, self.compile, *_versions(self.network))
        if self._ready is None or self._ready[0] != state:
            self._ready = None  # two copies need not be there at a time
            runner = TorchRunner(self.network, device=self.device, half=half, compile=self.compile)
            self._ready = state, runner
        return self._ready[1]

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

        source: a path, folder, glob, list file, URL, camera number, `-` (see `detr.video.find_sources`), PIL image,
            array, tensor, or several of these. A video gives a result for each frame.
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

    def settings(
        self,
        *,
        conf: float | str | os.PathLike[str] = 0.25,
        classes: Sequence[int | str] | int | str | None = None,
        max_det: int = 300,
        imgsz: int | Sequence[int] | None = None,
        half: bool = False,
        slicing: Slicing | None = None,
    ) -> Settings:
        """Checked settings; UsageError for a value that makes no sense."""
        is_file = isinstance(conf, os.PathLike) or (isinstance(conf, str) and conf.endswith(".json"))
        by_class = read_thresholds(Path(cast(str, conf)), self.classes) if is_file else None
        return Settings(
            conf=min(by_class) if by_class is not None else share("conf", cast(float, conf)),
            by_class=by_class,
            classes=None if classes is None else class_indices(classes, self.classes),
            max_det=at_least_1("max_det", max_det),
            input=input_of_size(self.config.input, imgsz),
            half=half,
            slicing=slicing,
        )

    def results(self, pictures: Iterable[Frame], settings: Settings, *, batch: int = 1) -> Iterator[Results]:
        """A result for each frame, in order. Reading and preparing run ahead in a thread."""
        return detecting.results(self, pictures, settings, batch=batch)

    def detect(self, group: Sequence[Prepared], settings: Settings) -> list[Results]:
        """One pass of the network; images of different size are padded. InputError where it answers with NaN."""
        return detecting.detect(self, group, settings)

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
        from detr.engine.exporting import exported

        refuse(others, Detector.export)
        if self.network is None:
            raise UsageError(f"{self.source} is an exported file; give the weights that it was made of")
        return exported(
            self.network,
            self.source,
            format,
            out=None if out is None else Path(out),
            input=input_of_size(self.config.input, imgsz),
            half=half,
            int8=int8,
            calibrate=calibrate,
            preprocessing=with_preprocessing,
            max_det=max_det if with_postprocessing else None,
            open_batch=open_batch,
            open_size=open_size,
            verify=verify,
            data=data,
            split=split,
            say=say,
        )

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
        say: Callable[[str], None] = print,
    ) -> Summary:
        """Train from these weights on, as `detr train --weights` does; afterwards this detector holds the best ones.

        recipe: by default that of the preset or release, or the one of the run that made the file.
        finetune: with schedule and augmentation for a small data set.
        settings: `key.sub=value` words on top of it.
        """
        from detr.data.opening import open_for_training
        from detr.files import new_run
        from detr.training.recipe import load_recipe
        from detr.training.saved.checkpoint import BEST
        from detr.training.train import train

        if self._is_given:
            raise UsageError(f"training starts from a release or a file; this detector was given a {self.source}")
        given = {"train.epochs": epochs, "train.batch": batch, "train.seed": seed}
        words = [*settings, *(f"{key}={value}" for key, value in given.items() if value is not None)]
        chosen = load_recipe(self._usual_recipe() if recipe is None else recipe, words, finetune=finetune)
        train_set, val_set = open_for_training(data, channels=chosen.model.input.channels)
        out = new_run("train", name, project=project, overwrite=overwrite)
        summary = train(
            chosen,
            train_set=train_set,
            val_set=val_set,
            out=out,
            weights=self.source,
            device=str(self.device),
            workers=workers,
            say=say,
        )
        self.source, self.model = str(out / BEST), None
        self.network = load_model(self.source).to(self.device).eval()
        return summary

    def _usual_recipe(self) -> str:
        """That of the preset or release; of a training run, its own; of another file, that of the model it holds."""
        if self.model is not None:
            return self.model
        if (release := RELEASES.get(self.source)) and release.model:
            return release.model
        beside = Path(self.source).with_name("recipe.yaml")
        if beside.is_file():
            return str(beside)
        if (name := preset_of(self.network)) is None:
            raise UsageError(f"which recipe? {self.source} does not say; pass one such as recipe='rtdetr-r18'")
        return name


class DETR(Detector):
    """DETR (Carion et al. 2020)."""

    archs = ("detr",)


class DeformableDETR(Detector):
    """Deformable DETR (Zhu et al. 2021), with refined boxes and two stages too."""

    archs = ("deformable_detr",)


class DINO(Detector):
    """DINO (Zhang et al. 2023)."""

    archs = ("dino",)


class RTDETR(Detector):
    """RT-DETR (Zhao et al. 2024), v2 and DEIM's too."""

    archs = ("rtdetr",)


class RTDETRv2(RTDETR):
    """RT-DETRv2 (Lv et al. 2024): the same network with two more settings, so that this takes what `RTDETR` takes."""


class DFINE(Detector):
    """D-FINE (Peng et al. 2025), and DEIM's."""

    archs = ("dfine",)


class DEIM(Detector):
    """DEIM (Huang et al. 2025): a way to train D-FINE's and RT-DETRv2's networks, whose files are theirs."""

    archs = ("dfine", "rtdetr")


class DEIMv2(Detector):
    """DEIMv2 (Huang et al. 2025)."""

    archs = ("deimv2",)


def _door(arch: str) -> str:
    return next((each.__name__ for each in Detector.__subclasses__() if arch in each.archs), "Detector")


def _versions(network: nn.Module) -> tuple[object, ...]:
    """Differs from what it was when settings or numbers of the network have changed."""
    tensors = [*network.parameters(), *network.buffers()]
    config = cast(Any, network.config)
    return (id(config), *((id(each), each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors))
