"""Which preset a state dict belongs to, by the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from detr.classes import COCO
from detr.models.presets import MODELS, ModelConfig, build_model, models, preset
from detr.models.undrawn import Undrawn

COUNTER = "num_batches_tracked"
"""How many batches a norm has seen: nothing depends on it, and files have it or not."""

_RARER = {"rtdetrv2-r18-dsp": "rtdetrv2-r18"}  # how it samples doesn't show in a file


@dataclass(frozen=True, eq=False)
class Shapes:
    """The tensors of a network."""

    of: Mapping[str, tuple[int, ...]]  # name -> shape, without the norms' counters
    counters: frozenset[str]
    extra_rows: Mapping[str, int]  # names of the entries with a row for each slot -> how many rows come after those
    for_training: frozenset[str]  # names of what answering doesn't need

    def unlike(self, state: Mapping[str, Tensor]) -> list[str]:
        """Names that are missing, too many, or of another shape; the number of slots may be any.

        Nothing is missing of what only training needs where all of that is: see `is_cut`.
        """
        names = {name for name in state if not name.endswith(COUNTER)}
        expected = set(self.of) - self.for_training if self.is_cut(state) else set(self.of)
        others = [name for name in self.of if name in names and not self._fits(name, state[name])]
        return [*others, *sorted(expected - names), *sorted(names - set(self.of))]

    def is_cut(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict has nothing of what only training needs, such as one exported for inference."""
        return bool(self.for_training) and self.for_training.isdisjoint(state)

    def slots_in(self, state: Mapping[str, Tensor]) -> int | None:
        """How many slots the class heads of a state dict have; None where it has no such head."""
        return next((len(state[name]) - more for name, more in self.extra_rows.items() if name in state), None)

    def _fits(self, name: str, tensor: Tensor) -> bool:
        skipped = 1 if name in self.extra_rows else 0
        return self.of[name][skipped:] == tuple(tensor.shape)[skipped:]


def shapes_of(config: ModelConfig) -> Shapes:
    return _shapes_of(config.arch, config.model_dump_json())


@lru_cache(maxsize=128)
def _shapes_of(arch: str, settings: str) -> Shapes:
    with Undrawn():
        network = build_model(MODELS[arch][0].model_validate_json(settings), classes=COCO)
    by_class = set(network.by_class())
    rows = {
        name: len(parameter) - network.num_slots
        for prefix, module in network.named_modules()
        if module in by_class
        for name, parameter in module.named_parameters(prefix, recurse=False)
    }
    entries = network.state_dict()
    counters = frozenset(name for name in entries if name.endswith(COUNTER))
    shapes = {name: tuple(entries[name].shape) for name in entries if name not in counters}
    network.cut()
    return Shapes(shapes, counters, rows, frozenset(shapes.keys() - network.state_dict().keys()))


def presets_like(state: Mapping[str, Tensor], **fields: Any) -> list[str]:
    """The presets of exactly these tensors whose model section has these fields, such as `arch`.

    Those that agree in the norms' counters too come alone.
    """
    names = [name for name in _with(fields) if not shapes_of(preset(name)).unlike(state)]
    counters = {name for name in state if name.endswith(COUNTER)}
    exact = [name for name in names if shapes_of(preset(name)).counters == counters]
    names = exact or names
    return [name for name in names if _RARER.get(name) not in names]


def nearest_preset(state: Mapping[str, Tensor], **fields: Any) -> str | None:
    """The preset with the fewest differences, by name where several have as few."""
    return min(_with(fields), key=lambda name: len(shapes_of(preset(name)).unlike(state)), default=None)


def _with(fields: Mapping[str, Any]) -> Iterator[str]:
    for name in models():
        config = preset(name)
        if all(getattr(config, field, None) == value for field, value in fields.items()):
            yield name


def differences(ours: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """How a state dict differs from a network's: counts, and the first three by name; None if it fits."""
    missing = [name for name in ours if name not in state and not name.endswith(COUNTER)]
    extra = [name for name in state if name not in ours and not name.endswith(COUNTER)]
    others = [name for name in ours if name in state and ours[name].shape != state[name].shape]
    if not (missing or extra or others):
        return None
    counts = [
        f"{len(names)} tensors {what}"
        for names, what in ((missing, "missing"), (extra, "too many"), (others, "of another shape"))
        if names
    ]
    first = [_named(name, ours, state) for name in (*others, *missing, *extra)[:3]]
    return f"{', '.join(counts)}: {'; '.join(first)}"


def _named(name: str, ours: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if name in ours and name in state:
        return f"{name} is {_shape(state[name].shape)}, expected {_shape(ours[name].shape)}"
    return f"{name} is {'missing' if name in ours else 'unknown'}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
