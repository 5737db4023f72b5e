"""preprocessor_config.json and the class labels of Hugging Face's detectors, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detr.classes import COCO, Classes
from detr.errors import InputError

_FIXED_PROCESSOR: dict[str, Any] = {"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation where none are written down

NOBODY = "N/A"
"""What a row of the class heads is called that belongs to no class."""


def input_of(processor: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The input section that a preprocessor_config.json amounts to; InputError for what we don't do."""
    for name, value in _FIXED_PROCESSOR.items():
        if processor.get(name, value) != value:
            raise InputError(f"{source}: {name} {processor[name]!r} is not supported, only {value!r}")
    model_input, normalised = _size_of(processor, source)
    if processor.get("do_normalize", normalised):
        mean, std = processor.get("image_mean", _IMAGENET[0]), processor.get("image_std", _IMAGENET[1])
        model_input |= {"mean": list(mean), "std": list(std)}
    return model_input


def _size_of(processor: Mapping[str, Any], source: str) -> tuple[dict[str, Any], bool]:
    """Sides, and whether processors of such sizes normalise unless told: DETR's do, RT-DETR's don't."""
    size = processor.get("size", {"height": 640, "width": 640})
    if isinstance(size, int):  # as written for the first versions
        size = {"shortest_edge": size, "longest_edge": processor.get("max_size", 1333)}
    if set(size) == {"height", "width"}:
        return {"height": size["height"], "width": size["width"]}, False
    if set(size) == {"shortest_edge", "longest_edge"}:
        return {"resize": "short side", "short": size["shortest_edge"], "long": size["longest_edge"]}, True
    raise InputError(
        f"{source}: size {size} is not supported, only height and width, or shortest_edge and longest_edge"
    )


def processor_of(model_input: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The preprocessor_config.json of an input section with every setting in it, for a processor of that `kind`."""
    normalised = model_input["mean"] is not None and model_input["std"] is not None
    keeps_aspect = model_input["resize"] == "short side"
    height, width = model_input["height"], model_input["width"]
    short, long = model_input["short"], model_input["long"]
    return {
        "image_processor_type": kind,
        "size": (
            {"shortest_edge": short, "longest_edge": long} if keeps_aspect else {"height": height, "width": width}
        ),
        "do_normalize": normalised,
        **({"image_mean": model_input["mean"], "image_std": model_input["std"]} if normalised else {}),
        "do_pad": keeps_aspect,
        **_FIXED_PROCESSOR,
    }


def classes_of(config: Mapping[str, Any], source: str) -> Classes | None:
    """`id2label` as classes. COCO's names in COCO's order are COCO, original ids included.

    Labels that no class has, called "N/A", are left out; the others then keep their places as ids, as in DETR.
    """
    labels = config.get("id2label")
    if labels is None:
        return None
    try:
        by_index = {int(index): str(name) for index, name in labels.items()}
    except (AttributeError, ValueError):
        raise InputError(f"{source}: id2label is not a table from indices to names") from None
    if sorted(by_index) != list(range(len(by_index))):
        raise InputError(f"{source}: id2label does not count from 0 to {len(by_index) - 1}")
    ids = [index for index in sorted(by_index) if by_index[index] != NOBODY]
    classes = Classes(tuple(ids), tuple(by_index[index] for index in ids))
    return COCO if classes.names == COCO.names else classes


def labels_of(classes: Classes, slots: Sequence[int] | None = None) -> dict[str, Any]:
    """The entries of a config.json that say the names of the classes, counted by index or by the given slots."""
    slots = range(len(classes)) if slots is None else slots
    names = dict(zip(slots, classes.names, strict=True))
    return {
        "id2label": {str(slot): names.get(slot, NOBODY) for slot in range(max(slots, default=-1) + 1)},
        "label2id": {name: slot for slot, name in names.items()},
    }
