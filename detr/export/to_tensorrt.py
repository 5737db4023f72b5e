"""A network -> a TensorRT engine for this machine's GPU, by way of our ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from detr.errors import InputError
from detr.export.about import About
from detr.export.engine_file import Shape, Shapes, write_engine
from detr.export.packages import package
from detr.export.program import example, open_axes
from detr.export.tensorrt_place import Place, new_log, place_here, started
from detr.export.to_onnx import write_onnx
from detr.files import home, require_writable, write_bytes
from detr.models import Network

_LEAST_SIDE = 32
_PICTURE, _LARGEST_PICTURE = (720, 1280), (3840, 3840)  # of those that a file prepares itself: tuned for, and taken


@dataclass(frozen=True)
class Building:
    """What TensorRT is told besides the network."""

    max_batch: int = 8  # images at once, where their number is open; it is tuned for one
    workspace: float | None = None  # GB of the GPU's memory that it may try; None: all there is


USUAL = Building()


def write_tensorrt(network: Network, path: Path, about: About, building: Building) -> None:
    """Minutes of work. UsageError without a GPU or TensorRT, InputError with TensorRT's words where it can't."""
    place = place_here()
    require_writable(path.parent)
    shapes = shapes_for(about, building.max_batch)
    with TemporaryDirectory() as folder:
        between = Path(folder) / "network.onnx"
        write_onnx(network, between, about)
        engine = _built(between, shapes, building, place)
    write_engine(path, engine, about=about, place=place, shapes=shapes)


def shapes_for(about: About, max_batch: int) -> Shapes:
    """Of each input the least that the engine takes, what it is tuned for, and the most."""
    axes = open_axes(about)
    least, best, most = (_LEAST_SIDE, _LEAST_SIDE), *_sides(about)
    bounds = [(1, least), (1, best), (max_batch, most)]
    shapes: Any = {}
    for name, tensor in example(about).items():
        shapes[name] = tuple(_shape(tuple(tensor.shape), sorted(axes[name]), batch, side) for batch, side in bounds)
    return shapes


def _sides(about: About) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the images that it is tuned for, and of the largest; where sizes are open."""
    input = about.config.input
    if about.form.preprocessing:
        return _PICTURE, _LARGEST_PICTURE
    if input.keeps_aspect:
        return (min(input.short, input.long), input.long), about.size
    return about.size, (2 * about.size[0], 2 * about.size[1])


def _shape(given: Shape, axes: list[int], batch: int, sides: tuple[int, int]) -> Shape:
    sizes = list(given)
    for axis, side in zip([axis for axis in axes if axis > 0], sides, strict=False):
        sizes[axis] = side
    if 0 in axes:
        sizes[0] = batch
    return tuple(sizes)


def _built(onnx: Path, shapes: Shapes, building: Building, place: Place) -> bytes:
    tensorrt = package("tensorrt")
    log = new_log(tensorrt)
    builder = started(tensorrt.Builder, log)
    # Numbers are what the file says: float32, or float16 where it has them. From TensorRT 11 on that is the only way.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        said = parser.get_error(0).desc() if parser.num_errors else log.text
        raise InputError(f"{place} can't read the network: {' '.join(said.split())}")
    config = _config(tensorrt, builder, shapes, building)
    timings = _timings(place)
    cache = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b"")
    kept = config.set_timing_cache(cache, False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError(f"{place} can't build the network: {log.text}")
    if kept:
        write_bytes(timings, bytes(cache.serialize()))
    return bytes(engine)


def _config(tensorrt: Any, builder: Any, shapes: Shapes, building: Building) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # which rounds float32 to 10 bits on the way
    if building.workspace is not None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, int(building.workspace * 2**30))
    profile = builder.create_optimization_profile()
    for name, (least, best, most) in shapes.items():
        profile.set_shape(name, least, best, most)
    if config.add_optimization_profile(profile) < 0:
        raise InputError(f"TensorRT doesn't take these sizes of its inputs: {shapes}")
    return config


def _timings(place: Place) -> Path:
    """How long each kernel took on this GPU: the next engine is built faster."""
    words = "".join(letter if letter.isalnum() else "-" for letter in f"{place.tensorrt}-{place.gpu}")
    return home() / "exports" / f"tensorrt-{words}.timings"
