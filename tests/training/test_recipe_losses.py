"""The losses that each recipe trains with are the published ones."""

import pytest

from detr.config import recipe_names, validated
from detr.criterion import FAMILIES
from detr.errors import UsageError
from detr.training.recipe import Recipe, load_recipe

FINE = {"fgl_weight": 0.15, "ddf_weight": 1.5, "union": True}
MAL = {"classification": "mal", "gamma": 1.5}
WITHOUT_EDGES = {"fgl_weight": 0.0, "ddf_weight": 0.0, "union": False}
CHANGE = {"atto": 450, "femto": 450, "pico": 450, "n": 136, "s": 100, "m": 80, "l": 50, "x": 45}  # epochs


def published(name):
    family, _, size = name.rpartition("-")
    if name.startswith("deim-rtdetrv2"):
        return FAMILIES["rtdetr"].config.model_copy(update=MAL)
    if family == "deim-dfine":
        return FAMILIES["dfine"].config.model_copy(update=MAL | FINE)
    if family == "deimv2":
        config = FAMILIES["deimv2"].config
        config = config.model_copy(update=WITHOUT_EDGES if size in ("atto", "femto", "pico") else {})
        return config.model_copy(
            update={"matcher": config.matcher.model_copy(update={"by_overlap_from": CHANGE[size]})}
        )
    return FAMILIES[load_recipe(name).model.arch].config


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_has_the_losses_of_its_paper(name):
    recipe = load_recipe(name)
    assert (recipe.criterion or FAMILIES[recipe.model.arch].config) == published(name)


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_recipe_that_says_one_setting_has_the_others_of_its_paper(tmp_path, arch):
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: {{arch: {arch}}}\naugment: {{}}\ntrain: {{scales: []}}\ncriterion: {{l1_weight: 3.0}}\n")
    recipe = load_recipe(path)
    assert recipe.criterion == FAMILIES[arch].config.model_copy(update={"l1_weight": 3.0})
    assert validated(Recipe, recipe.as_tree(), "again") == recipe


def test_a_misspelt_loss_is_named():
    with pytest.raises(UsageError, match="did you mean 'fgl_weight'"):
        load_recipe("dfine-n", ["criterion.fgl_wait=3.0"])
