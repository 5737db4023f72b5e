"""Other people's state dicts -> ours and back: rename tables as data, a file for each source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from detr.convert import (
    deformable_detr,
    deformable_detr_hf,
    deimv2,
    deimv2_hf,
    detr,
    detr_hf,
    dfine,
    dfine_hf,
    dino,
    hgnetv2,
    renaming,
    rtdetr,
    rtdetr_hf,
    torchvision_resnet,
)
from detr.convert.renaming import State, Table, any_fits
from detr.errors import UsageError, did_you_mean

__all__ = ["BACKBONES", "TABLES", "State", "Table", "identify", "other_model", "source_for", "to_ours", "to_theirs"]

TABLES: dict[str, Table] = {
    **deformable_detr.TABLES,
    **deformable_detr_hf.TABLES,
    **deimv2.TABLES,
    **deimv2_hf.TABLES,
    **detr.TABLES,
    **detr_hf.TABLES,
    **dfine.TABLES,
    **dfine_hf.TABLES,
    **dino.TABLES,
    **hgnetv2.TABLES,
    **rtdetr.TABLES,
    **rtdetr_hf.TABLES,
    **torchvision_resnet.TABLES,
}
"""Every source we read, under the name that `identify` gives."""

BACKBONES = tuple(name for name, table in TABLES.items() if table.arch is None)
"""The sources of files that hold a backbone and nothing else."""

_OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("DETR for panoptic segmentation, which is told by masks", ("mask_head.*",)),
    ("Deformable DETR (Hugging Face)", ("model.level_embed", "class_embed.{layer}.*")),
    ("a relative of DETR (Hugging Face)", ("model.query_position_embeddings.*",)),
    ("RF-DETR or LW-DETR", ("refpoint_embed.*", "query_feat.*")),
    ("DINO", ("transformer.level_embed", "label_enc.*")),
    ("Deformable DETR", ("transformer.level_embed",)),
    ("a relative of DETR", ("query_embed.*", "transformer.decoder.*")),
    ("a torchvision detector", ("roi_heads.*",)),
    ("Ultralytics", ("model.{index}.cv{n}.*",)),
    ("a ResNet for classification", ("layer1.0.*", "fc.*")),
)


def identify(state: Iterable[str]) -> str | None:
    """The name in `TABLES` of the source whose names these are, or None."""
    names = list(state)
    for source, table in TABLES.items():
        is_another = any(any_fits(each, names) for each in table.foreign)
        if not is_another and all(any_fits(mark, names) for mark in table.marks):
            return source
    return None


def source_for(config: Any, form: str) -> str | None:
    """The source of `form`, "official" or "hf", that has models with such a model section; None where there is none."""
    return next((source for source, other, unwritten in _nearness(config, form) if not other + unwritten), None)


def needed_for(config: Any, form: str) -> list[str]:
    """What would have to be set otherwise for the nearest source of `form`, as words; none where the arch has none."""
    lacks = [(other, unwritten) for _, other, unwritten in _nearness(config, form)]
    other, unwritten = min(lacks, key=lambda pair: tuple(map(len, pair)), default=([], []))
    return other + unwritten


def _nearness(config: Any, form: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The sources of `form` of models of that arch, and what each would need otherwise to be read, and written."""
    for source, table in TABLES.items():
        if source.endswith(f"-{form}") and table.arch == config.arch:
            yield source, _unlike(config, table.fields), _unlike(config, table.written_for)


def _unlike(config: Any, settings: Iterable[tuple[str, Any]]) -> list[str]:
    return [f"model.{name}={value}" for name, value in settings if _setting(config, name) != value]


def _setting(config: Any, name: str) -> Any:
    """The setting of that name, such as `version` or `backbone.depth`; None where there is none."""
    for part in name.split("."):
        config = getattr(config, part, None)
    return config


def other_model(state: Iterable[str]) -> str | None:
    """What a state dict seems to be that no table of ours is for: a name for people, or None."""
    names = list(state)
    return next((what for what, marks in _OTHERS if all(any_fits(mark, names) for mark in marks)), None)


def to_ours(state: Mapping[str, Tensor], source: str) -> State:
    """A state dict of the source -> under our names. What no row knows keeps its name, so that loading says so.

    InputError if two names of one tensor hold different values; UsageError for an unknown source.
    """
    return renaming.to_ours(state, table_of(source))


def to_theirs(state: Mapping[str, Tensor], source: str) -> State:
    """Under the source's names, without what it derives; what no row knows keeps its name."""
    return renaming.to_theirs(state, table_of(source))


def table_of(source: str) -> Table:
    """UsageError for a source we have no table of."""
    if source not in TABLES:
        nearest = did_you_mean(source, TABLES) or f"; known are {', '.join(TABLES)}"
        raise UsageError(f"no rename table {source!r}{nearest}")
    return TABLES[source]
