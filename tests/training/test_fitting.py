import numpy as np
import pytest

from detr.classes import Classes
from detr.config import recipe_names
from detr.data.annotations import Annotations
from detr.training.fitting import fitted
from detr.training.recipe import load_recipe


def fit(images, words=(), *, finetune=True):
    said = []
    recipe = fitted(load_recipe("rtdetr-r18", words, finetune=finetune), annotations(images), say=said.append)
    return recipe.train, said


def annotations(images):
    """One box in each image; the first is of a class of its own."""
    return Annotations(
        classes=Classes.from_names("ab"), image_ids=tuple(range(images)), file_names=("",) * images,
        heights=np.ones(images), widths=np.ones(images), image_indices=np.arange(images),
        labels=np.minimum(np.arange(images), 1), boxes=np.ones((images, 4)), areas=np.ones(images),
        crowd=np.zeros(images, dtype=bool),
    )  # fmt: skip


def test_a_warm_up_takes_at_most_two_thirds_of_few_steps():
    train, said = fit(50)  # 12 epochs of 12 steps
    assert train.schedule.warmup == 96
    assert said == ["144 steps in all: the warm-up takes 96 of them, not 100"]


def test_a_few_images_are_trained_too():
    assert fit(5)[0].schedule.warmup == 8  # of 12 steps
    assert fit(1)[0] == fit(5)[0]


def test_hundreds_of_images_keep_the_plan():
    train, said = fit(300)
    assert train == load_recipe("rtdetr-r18", finetune=True).train
    assert said == []


def test_a_longer_training_is_fitted_to_its_own_steps():
    assert fit(20, ["train.epochs=24"])[0].schedule.warmup == 80


def test_balanced_epochs_are_longer():
    said = fit(30, ["train.balance=1"])[1]  # sqrt(30) times the first, sqrt(30 / 29) times the others: 34 images
    assert said[0].startswith("96 steps")


def test_fitting_twice_changes_nothing():
    once = fitted(load_recipe("rtdetr-r18", finetune=True), annotations(50), say=lambda line: None)
    assert fitted(once, annotations(50), say=pytest.fail) == once


@pytest.mark.parametrize("name", recipe_names())
def test_published_recipes_stay_as_they_are(name):
    recipe = load_recipe(name)
    assert fitted(recipe, annotations(3), say=pytest.fail) == recipe
