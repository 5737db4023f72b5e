import math

import pytest

from detr.errors import UsageError
from detr.training.fitting import words_on_rates
from detr.training.learning.rates import factor
from detr.training.recipe import load_recipe

OWN = load_recipe("rtdetr-r18").train.optimizer  # for a batch of 16


def rates(words, **options):
    return load_recipe("rtdetr-r18", words, **options).train.optimizer


def test_rates_follow_the_square_root_of_the_batch():
    scaled = rates(["train.batch=4"])
    assert (scaled.lr, scaled.backbone_lr, scaled.scaled_from) == (OWN.lr / 2, OWN.backbone_lr / 2, 16)


def test_the_recipes_own_batch_leaves_them():
    assert rates(["train.batch=16"]) == OWN
    assert rates([]).scaled_from is None


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_from_the_plans_batch_to_the_recipes_own_they_are_the_recipes(batch):
    assert rates([f"train.batch={batch}"], finetune=True) == OWN


def test_beyond_the_plans_batch_and_the_recipes_own_they_follow_from_the_nearest():
    small, large = rates(["train.batch=1"], finetune=True), rates(["train.batch=64"], finetune=True)
    assert (small.lr, small.scaled_from) == (OWN.lr / 2, 4)
    assert (large.lr, large.scaled_from) == (OWN.lr * 2, 16)


def test_the_rule_can_be_linear_or_none():
    assert rates(["train.batch=4", "train.optimizer.scaling=linear"]).lr == OWN.lr / 4
    left = rates(["train.batch=4", "train.optimizer.scaling=none"])
    assert (left.lr, left.scaled_from) == (OWN.lr, None)


def test_a_rate_given_in_words_is_meant():
    scaled = rates(["train.batch=64", "train.optimizer.lr=3e-4"])
    assert (scaled.lr, scaled.backbone_lr) == (3e-4, 2 * OWN.backbone_lr)


def test_what_a_run_kept_is_not_scaled_again(tmp_path):
    from detr.config import as_yaml

    once = load_recipe("rtdetr-r18", ["train.batch=4"])
    (tmp_path / "recipe.yaml").write_text(as_yaml(once.as_tree()))
    assert load_recipe(tmp_path / "recipe.yaml") == once


def test_it_is_said():
    assert words_on_rates(OWN, 16) is None
    said = words_on_rates(rates(["train.batch=4"]), 4)
    assert said.startswith("learning rates x 0.5: as written they are for a batch of 16, this is 4 (sqrt;")


@pytest.mark.parametrize("word", ["train.batch=four", "train.batch=0", "train.optimizer=3", "train=1"])
def test_what_is_wrong_is_still_refused(word):
    with pytest.raises(UsageError, match="train"):
        load_recipe("rtdetr-r18", [word])


def test_the_rule_is_refused_by_its_name():
    with pytest.raises(UsageError, match=r"train\.optimizer\.scaling.*'sqrt'"):
        load_recipe("rtdetr-r18", ["train.batch=4", "train.optimizer.scaling=root"])


def test_the_factor():
    assert factor(8, 32, "sqrt") == 0.5 and factor(8, 32, "linear") == 0.25 and factor(8, 32, "none") == 1
    assert math.isclose(factor(32, 16, "sqrt"), math.sqrt(2))
