"""A network and a data set small enough to be trained within a test."""

import pytest

from detr.config import validated
from detr.data.coco import CocoDataset, read_annotations
from detr.data.shapes import make_shapes
from detr.data.sources import find_splits
from detr.engine.recipe import Recipe

SMALL = {
    "model": {
        "version": 2,
        "num_queries": 8,
        "num_denoising": 4,
        "backbone": {"depth": 10, "width": 8},
        "encoder": {"channels": 16, "heads": 2, "hidden": 16, "expansion": 0.5, "depth": 0.34},
        "decoder": {"channels": 16, "heads": 2, "hidden": 16, "num_layers": 2},
        "input": {"height": 64, "width": 64},
    },
    "train": {
        "epochs": 2,
        "batch": 2,
        "optimizer": {"lr": 1.0e-3, "backbone_lr": 1.0e-3},
        "schedule": {"warmup": 3},
        "average": {"decay": 0.9, "warmup": 2},
    },
}


def small_recipe(**train):
    return validated(Recipe, {**SMALL, "train": {**SMALL["train"], **train}}, "test")


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory):
    """The folder of a generated set: 6 images to train on, 3 to evaluate on, 64 pixels wide."""
    return make_shapes(tmp_path_factory.mktemp("shapes") / "set", images=6, val_images=3, size=64, video=False)


@pytest.fixture
def small_sets(small_shapes):
    splits = find_splits(small_shapes)
    train = read_annotations(splits["train"].annotations)
    val = read_annotations(splits["val"].annotations, classes=train.classes)
    return {
        "train_set": CocoDataset(train, splits["train"].images),
        "val_set": CocoDataset(val, splits["val"].images),
    }


@pytest.fixture
def recipe_with():
    """Builds the small recipe, with other settings of its `train` section."""
    return small_recipe
