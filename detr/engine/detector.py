"""A detector in one object: weights in, results out, and everything the command line does as methods."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from detr.classes import Classes
from detr.engine.ahead import ahead
from detr.engine.device import choose_device
from detr.engine.results import Results
from detr.errors import InputError, UsageError, did_you_mean
from detr.image import RGB, InputConfig, prepare, to_rgb
from detr.models import load_model
from detr.models.postprocess import select
from detr.records import Detections
from detr.video import Frame, Source, frames

Channels = Literal["bgr", "rgb"]
Picture: TypeAlias = str | int | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
STRIDE = 32  # the input's sides are multiples of it


@dataclass(frozen=True)
class Settings:
    """What is kept of what the network says, and how it is asked. Made by `Detector.settings`, which checks it."""

    conf: float
    classes: tuple[int, ...] | None
    max_det: int
    input: InputConfig
    half: bool


class Detector:
    """`Detector("rtdetr-r18")`, or any readable checkpoint: call it with pictures to get a `Results` for each.

    `names` maps class indices to names; `network` is the `nn.Module` itself.
    """

    arch: ClassVar[str | None] = None  # the only architecture this class takes

    def __init__(
        self,
        weights: str | os.PathLike[str] | nn.Module = "rtdetr-tiny",
        *,
        model: str | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """`weights`: a release, a file or a network. `model`: the preset, where a file doesn't say what it is."""
        self.device = choose_device("auto" if device is None else str(device))
        network = weights if isinstance(weights, nn.Module) else load_model(os.fspath(weights), model)
        self.source = type(weights).__name__ if isinstance(weights, nn.Module) else os.fspath(weights)
        found = cast(Any, network.config).arch
        if self.arch is not None and found != self.arch:
            raise InputError(f"{self.source} is a model of kind {found!r}, not {self.arch!r}; use detr.Detector")
        self.network: Any = network.to(self.device).eval()

    @property
    def classes(self) -> Classes:
        return self.network.classes

    @property
    def names(self) -> dict[int, str]:
        return self.classes.as_dict()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r}, {len(self.classes)} classes, {self.device})"

    def to(self, device: str | torch.device) -> Detector:
        self.device = choose_device(str(device))
        self.network.to(self.device)
        return self

    def __call__(
        self,
        source: Picture | Iterable[Picture],
        *,
        conf: float = 0.25,
        classes: Sequence[int | str] | int | str | None = None,
        max_det: int = 300,
        imgsz: int | Sequence[int] | None = None,
        stream: bool = False,
        device: str | torch.device | None = None,
        half: bool = False,
        channels: Channels = "bgr",
        batch: int = 1,
        vid_stride: int = 1,
    ) -> list[Results] | Iterator[Results]:
        """Find objects in each picture of `source`.

        source: a path, folder, glob, list file, URL, camera number, `-` (see `detr.video.find_sources`), PIL image,
            array, tensor, or several of these. A video gives a result for each frame.
        conf: detections scored below are left out.
        classes: only these, by index or name.
        max_det: at most so many per picture, the best.
        imgsz: size the network sees, a side or (height, width), multiples of 32; the model's own by default.
        stream: give results one by one as they come, in constant memory; else a list of all, images included.
        half: compute in 16 bits, on a GPU.
        channels: order in [h, w, 3] uint8 arrays. They are taken as BGR, as OpenCV reads files; say "rgb" for others.
            Tensors are RGB: [3, h, w] or [B, 3, h, w], uint8 or floats in [0, 1].
        vid_stride: of videos, every so manieth frame.

        Boxes are in the pixels of the picture as given (upright), and inside it.
        """
        if device is not None:
            self.to(device)
        settings = self.settings(conf=conf, classes=classes, max_det=max_det, imgsz=imgsz, half=half)
        if channels not in ("bgr", "rgb"):
            raise UsageError(f"channels {channels!r}; expected 'bgr' or 'rgb'")
        pictures = _frames(source, channels=channels, stride=_at_least_1("vid_stride", vid_stride))
        results = self.results(pictures, settings, batch=_at_least_1("batch", batch))
        return results if stream else list(results)

    predict = __call__

    def settings(
        self,
        *,
        conf: float = 0.25,
        classes: Sequence[int | str] | int | str | None = None,
        max_det: int = 300,
        imgsz: int | Sequence[int] | None = None,
        half: bool = False,
    ) -> Settings:
        """Checked settings; UsageError for a value that makes no sense."""
        if isinstance(conf, bool) or not isinstance(conf, (int, float)) or not 0 <= conf <= 1:  # NaN is not either
            raise UsageError(f"conf {conf!r}: expected a number from 0 to 1")
        if half and self.device.type == "cpu":
            raise UsageError("half needs a GPU; the CPU computes in 32 bits")
        return Settings(
            float(conf),
            None if classes is None else _indices(classes, self.classes),
            _at_least_1("max_det", max_det),
            _input(self.network.config.input, imgsz),
            half,
        )

    def results(self, pictures: Iterable[Frame], settings: Settings, *, batch: int = 1) -> Iterator[Results]:
        """A result for each frame, in order. Reading and preparing run ahead in a thread."""
        prepared = ahead((self.prepared(frame, settings) for frame in pictures), depth=2 * batch)
        group: list[Prepared] = []
        try:
            for item in prepared:
                group.append(item)
                if len(group) == batch:
                    yield from self.detect(group, settings)
                    group = []
            if group:
                yield from self.detect(group, settings)
        finally:
            prepared.close()

    def prepared(self, frame: Frame, settings: Settings) -> Prepared:
        start = time.perf_counter()
        tensor = prepare(frame.image, settings.input)
        return Prepared(frame, tensor, 1000 * (time.perf_counter() - start))

    @torch.inference_mode()
    def detect(self, group: Sequence[Prepared], settings: Settings) -> list[Results]:
        """One pass of the network. InputError where it answers with NaN."""
        start = time.perf_counter()
        images = torch.stack([item.tensor for item in group]).to(self.device)
        sizes = [(item.frame.image.shape[0], item.frame.image.shape[1]) for item in group]
        with torch.autocast(self.device.type, torch.float16) if settings.half else nullcontext():
            output = self.network(images)
        last = replace(
            output.layers[-1], logits=output.layers[-1].logits.float(), boxes=output.layers[-1].boxes.float()
        )
        if not bool(torch.isfinite(last.logits).all() & torch.isfinite(last.boxes).all()):
            advice = "; try it without half" if settings.half else ": its weights are damaged"
            raise InputError(f"{self.source} answers with numbers that are none (NaN){advice}")
        middle = time.perf_counter()
        found = select(
            replace(output, layers=(last,)),
            sizes,
            conf=settings.conf,
            max_det=settings.max_det,
            classes=settings.classes,
        )
        kept = [_inside(one, size) for one, size in zip(found, sizes, strict=True)]
        end = time.perf_counter()
        shares = {"inference": 1000 * (middle - start) / len(group), "postprocess": 1000 * (end - middle) / len(group)}
        return [
            Results.of(
                item.frame.image,
                one,
                path=item.frame.path,
                names=self.names,
                speed={"preprocess": item.milliseconds, **shares},
                frame=item.frame.index,
                time=item.frame.time,
            )
            for item, one in zip(group, kept, strict=True)
        ]


class RTDETR(Detector):
    """RT-DETR and RT-DETRv2."""

    arch = "rtdetr"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame and what the network sees of it."""

    frame: Frame
    tensor: Tensor  # [3, h, w]
    milliseconds: float  # to prepare it


def _inside(found: Detections, size: tuple[int, int]) -> Detections:
    """On the CPU, clipped to the image of (height, width)."""
    height, width = size
    boxes = found.boxes.cpu()
    limits = boxes.new_tensor((width, height, width, height))
    return Detections(boxes.clamp(min=0).minimum(limits), found.scores.cpu(), found.labels.cpu())


def _indices(wanted: Sequence[int | str] | int | str, classes: Classes) -> tuple[int, ...]:
    """Class indices from indices and names."""
    known = {name.strip().casefold(): index for index, name in enumerate(classes.names)}
    chosen = []
    for word in [wanted] if isinstance(wanted, (int, str)) else wanted:
        text = str(word).strip()
        index = known.get(text.casefold())
        if index is None and text.lstrip("-").isdecimal():
            index = int(text)
            if not 0 <= index < len(classes):
                raise UsageError(f"class {index}: this model's classes are numbered 0 to {len(classes) - 1}")
        if index is None:
            some = ", ".join(classes.names[:5]) + (", ..." if len(classes) > 5 else "")
            nearest = did_you_mean(text, classes.names) or f"; it knows {some}"
            raise UsageError(f"class {text!r} is none of this model's {len(classes)}{nearest}")
        chosen.append(index)
    if not chosen:
        raise UsageError("classes: an empty list finds nothing; leave it out to find all")
    return tuple(dict.fromkeys(chosen))


def _input(own: InputConfig, imgsz: int | Sequence[int] | None) -> InputConfig:
    if imgsz is None:
        return own
    sides = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz)
    if len(sides) == 1:
        sides = sides * 2
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise UsageError(f"imgsz {imgsz!r}: expected a side, or a height and a width")
    for side in sides:
        if side < STRIDE or side % STRIDE:
            nearest = max(STRIDE, round(side / STRIDE) * STRIDE)
            raise UsageError(f"imgsz {side}: expected a multiple of {STRIDE}; the nearest is {nearest}")
    return own.model_copy(update={"height": sides[0], "width": sides[1]})


def _at_least_1(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} {value!r}: expected a whole number from 1")
    return value


def _frames(source: Picture | Iterable[Picture], *, channels: Channels, stride: int) -> Iterator[Frame]:
    """Each picture of a source, with a name for those that have none."""
    if isinstance(source, (str, int, os.PathLike)):
        return frames(source, stride=stride)
    if isinstance(source, Tensor) and source.ndim == 4:
        source = list(source)
    many: Iterable[Any] = [source] if isinstance(source, (Image.Image, np.ndarray, Tensor)) else source
    if not isinstance(many, Iterable):
        raise UsageError(
            f"cannot look for objects in a {type(source).__name__}; expected a path, image, array or tensor"
        )
    return _each(many, channels, stride)


def _each(many: Iterable[Any], channels: Channels, stride: int) -> Iterator[Frame]:
    for number, one in enumerate(many):
        if isinstance(one, (str, int, os.PathLike)):
            yield from frames(one, stride=stride)
            continue
        name = f"image{number}"
        if isinstance(one, Image.Image):
            name = getattr(one, "filename", "") or name
            image = to_rgb(one, name=name)
        elif isinstance(one, np.ndarray):
            image = _from_array(one, channels, name)
        elif isinstance(one, Tensor):
            image = _from_tensor(one, name)
        else:
            raise UsageError(f"picture {number} is a {type(one).__name__}; expected a path, image, array or tensor")
        yield Frame(image, Source("image", str(Path(name))))


def _from_array(array: NDArray[Any], channels: Channels, name: str) -> RGB:
    """[h, w], [h, w, 1], [h, w, 3] or [h, w, 4] uint8 -> RGB."""
    if array.dtype != np.uint8:
        raise InputError(f"{name}: an array of {array.dtype}; expected uint8 in [0, 255]")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{name}: an array of shape {array.shape}; expected [h, w], [h, w, 3] or [h, w, 4]")
    colours = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
    return np.ascontiguousarray(colours[:, :, ::-1] if channels == "bgr" else colours)


def _from_tensor(tensor: Tensor, name: str) -> RGB:
    """[3, h, w] RGB, uint8 or floats in [0, 1] -> array."""
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise InputError(f"{name}: a tensor of shape {tuple(tensor.shape)}; expected [3, h, w] or [B, 3, h, w]")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        low, high = (float(value) for value in tensor.float().aminmax())
        if not (math.isfinite(low) and math.isfinite(high) and low >= -1e-3 and high <= 1 + 1e-3):
            raise InputError(f"{name}: floats from {low:g} to {high:g}; expected [0, 1], before any normalisation")
        tensor = (tensor.float().clamp(0, 1) * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise InputError(f"{name}: a tensor of {tensor.dtype}; expected uint8, or floats in [0, 1]")
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
