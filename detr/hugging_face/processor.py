"""preprocessor_config.json and the class labels of Hugging Face's detectors, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr.classes import COCO, Classes
from detr.errors import InputError

_FIXED_PROCESSOR: dict[str, Any] = {"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}


def input_of(processor: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The input section that a preprocessor_config.json amounts to; InputError for what we don't do."""
    size = processor.get("size", {"height": 640, "width": 640})
    if set(size) != {"height", "width"}:
        raise InputError(f"{source}: size {size} is not supported, only one with height and width")
    for name, value in _FIXED_PROCESSOR.items():
        if processor.get(name, value) != value:
            raise InputError(f"{source}: {name} {processor[name]!r} is not supported, only {value!r}")
    model_input: dict[str, Any] = {"height": size["height"], "width": size["width"]}
    if processor.get("do_normalize", False):
        model_input |= {"mean": list(processor["image_mean"]), "std": list(processor["image_std"])}
    return model_input


def processor_of(model_input: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessor_config.json of an input section with every setting in it."""
    normalised = model_input["mean"] is not None and model_input["std"] is not None
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "size": {"height": model_input["height"], "width": model_input["width"]},
        "do_normalize": normalised,
        **({"image_mean": model_input["mean"], "image_std": model_input["std"]} if normalised else {}),
        "do_pad": False,
        **_FIXED_PROCESSOR,
    }


def classes_of(config: Mapping[str, Any], source: str) -> Classes | None:
    """`id2label` as classes. COCO's names in COCO's order are COCO, original ids included."""
    labels = config.get("id2label")
    if labels is None:
        return None
    try:
        by_index = {int(index): str(name) for index, name in labels.items()}
    except (AttributeError, ValueError):
        raise InputError(f"{source}: id2label is not a table from indices to names") from None
    if sorted(by_index) != list(range(len(by_index))):
        raise InputError(f"{source}: id2label does not count from 0 to {len(by_index) - 1}")
    classes = Classes.from_names(by_index[index] for index in range(len(by_index)))
    return COCO if classes.names == COCO.names else classes


def labels_of(classes: Classes) -> dict[str, Any]:
    """The entries of a config.json that say the names of the classes, counted by index."""
    return {
        "id2label": {str(index): name for index, name in enumerate(classes.names)},
        "label2id": {name: index for index, name in enumerate(classes.names)},
    }
