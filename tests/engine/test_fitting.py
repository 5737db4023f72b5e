import numpy as np
import pytest

from detr.classes import Classes
from detr.config import recipe_names
from detr.data.annotations import Annotations
from detr.engine.fitting import fitted
from detr.engine.recipe import load_recipe


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


def test_fifty_images_warm_up_in_a_tenth_of_their_steps():
    train, said = fit(50)  # 12 epochs of 12 steps: 144
    assert train.schedule.warmup == 14
    assert train.average.warmup == 14  # half of what it is over
    assert train.average.decay == pytest.approx(1 - 1 / 29, abs=1e-6)  # a fifth of the steps
    assert said == ["fitted to 144 steps: warm-up 14 steps (not 100), average over 29 steps (not 500)"]


def test_a_few_images_more_than_a_batch_are_trained_too():
    train, _ = fit(5)
    assert (train.schedule.warmup, train.average.warmup) == (1, 1)
    assert train.average.decay == pytest.approx(0.5)
    assert fit(1)[0] == train


def test_thousands_of_images_keep_the_plan():
    train, said = fit(20_000)
    assert train == load_recipe("rtdetr-r18", finetune=True).train
    assert said == []


def test_a_longer_training_is_fitted_to_its_own_steps():
    train, said = fit(50, ["train.epochs=24"])
    assert train.schedule.warmup == 29 and "288 steps" in said[0]


def test_balanced_epochs_are_longer():
    said = fit(50, ["train.balance=1"])[1]  # sqrt(50) times the first, sqrt(50 / 49) times the others: 56 images
    assert "fitted to 168 steps" in said[0]


def test_fitting_twice_changes_nothing():
    once = fitted(load_recipe("rtdetr-r18", finetune=True), annotations(50), say=lambda line: None)
    assert fitted(once, annotations(50), say=pytest.fail) == once


def test_a_training_without_average_has_only_a_warm_up_to_fit():
    train, said = fit(50, ["train.average=null"])
    assert train.average is None and said == ["fitted to 144 steps: warm-up 14 steps (not 100)"]


@pytest.mark.parametrize("name", recipe_names())
def test_published_recipes_stay_as_they_are(name):
    recipe = load_recipe(name)
    assert fitted(recipe, annotations(3), say=pytest.fail) == recipe
