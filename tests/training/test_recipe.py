import json
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

from detr.config import recipe_names
from detr.criterion import FAMILIES
from detr.errors import UsageError
from detr.models.presets import MODELS
from detr.training.recipe import at_size, load_recipe, never_reached

OFFICIAL = json.loads((Path(__file__).parent.parent / "golden" / "recipes.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_of_ours_is_valid(name):
    assert load_recipe(name).model.arch in MODELS


@pytest.mark.parametrize("preset", OFFICIAL)
def test_settings_are_the_official_ones(preset):
    recipe = load_recipe(preset)
    criterion = recipe.criterion or FAMILIES[recipe.model.arch].config
    tree = recipe.as_tree() | {"criterion": criterion.model_dump(mode="json")}
    ours = {name: reduce(getitem, name.split("."), tree) for name in OFFICIAL[preset]}
    assert ours == OFFICIAL[preset]


def test_words_change_single_settings():
    recipe = load_recipe("rtdetr-r18", ["train.epochs=3", "train.average=null", "augment.flip=0"])
    assert (recipe.train.epochs, recipe.train.average, recipe.augment.flip) == (3, None, 0)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.epoch=3", "did you mean 'epochs'"),
        ("train.epochs=0", "train.epochs"),
        ("train.optimizer.lr=-1", "train.optimizer.lr"),
        ("train.optimizer.lr=.nan", "train.optimizer.lr"),
        ("train.amp=half", "train.amp"),
        ("train.average.decay=1", r"train\.average\.decay.*less than 1"),
        ("train.average.decay=-0.1", r"train\.average\.decay"),
        ("train.average.warmup=-1", r"train\.average\.warmup"),
        ("train.optimizer.betas=[0.9, 1]", r"train\.optimizer\.betas\.1.*less than 1"),
        ("train.schedule.milestones=[-1]", r"train\.schedule\.milestones"),
        ("training.epochs=3", "did you mean 'train'"),
    ],
)
def test_a_wrong_setting_is_named(word, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("rtdetr-r18", [word])


@pytest.mark.parametrize(
    ("setting", "allowed", "refused"),
    [
        *((count, 1, 0) for count in ("epochs", "batch", "accumulate", "evaluate_every", "lora.rank")),
        *((count, 0, -1) for count in ("skip_at_most", "seed", "patience", "longest_wait", "clip", "schedule.warmup")),
        *((rate, 1e-9, 0) for rate in ("optimizer.lr", "optimizer.backbone_lr", "optimizer.sampling_lr", "lora.alpha")),
        *((share, 1e-9, 0) for share in ("balance", "optimizer.layer_decay", "schedule.peak", "schedule.gamma")),
        *((share, 1, 1.1) for share in ("balance", "optimizer.layer_decay", "schedule.peak", "schedule.gamma")),
        *((share, 0, -0.1) for share in ("schedule.flat", "schedule.end", "schedule.last", "optimizer.weight_decay")),
        ("schedule.flat", 0.99, 1),
        ("schedule.end", 0.49, 1),
        ("schedule.last", 1, 1.1),
        ("scales", [32, 8192], [0, 32]),
        ("scales", [64], [65]),
        ("scales", [64], [8224]),
    ],
)
def test_a_setting_of_training_reaches_its_bound_and_no_further(setting, allowed, refused):
    room, _, name = setting.rpartition(".")
    train = load_recipe("rtdetr-r18", [f"train.{setting}={allowed}"]).train
    assert getattr(getattr(train, room) if room else train, name) == (
        tuple(allowed) if isinstance(allowed, list) else allowed
    )
    with pytest.raises(UsageError, match=rf"train\.{setting}"):
        load_recipe("rtdetr-r18", [f"train.{setting}={refused}"])


@pytest.mark.parametrize("scales", ["[-3]", "[100]", "[320000]"])
def test_scales_are_sides_an_input_can_have(scales):
    with pytest.raises(UsageError, match=r"train\.scales"):
        load_recipe("rtdetr-r18", [f"train.scales={scales}"])


def test_another_size_scales_the_drawn_sizes_too():
    own = load_recipe("rtdetr-r18")
    square = at_size(own, 1280)
    assert square.model.input.frame == (1280, 1280)
    assert square.train.scales == tuple(2 * side for side in own.train.scales)
    shaped = at_size(load_recipe("detr-r50"), 400)
    assert shaped.model.input.frame == (400, 666)
    assert (shaped.augment.sizes.sides[0], shaped.augment.sizes.sides[-1]) == (240, 400)
    assert shaped.augment.sizes.crop_sides == (192, 300)
    assert at_size(load_recipe("rtdetr-r18", ["train.scales=3"]), 320).train.scales == 3
    with pytest.raises(UsageError, match="the nearest is 96"):
        at_size(load_recipe("rtdetr-r18"), 100)


@pytest.mark.parametrize(
    ("preset", "words", "said"),
    [
        ("rtdetr-r18", ["augment.sizes={}"], "augment.sizes are for inputs that keep the aspect"),
        ("rtdetr-r18", ["model.input.resize=short side"], "needs 'stretch'"),
        ("detr-r50", ["augment.mixup={}"], "augment.mixup needs images of one size"),
        ("detr-r50", ["augment.copy_blend={}"], "augment.copy_blend needs images of one size"),
        ("detr-r50", ["train.scales=3"], "train.scales need inputs of one size"),
        ("detr-r50", ["model.input.resize=stretch"], "null leaves them out"),
    ],
)
def test_augmentation_that_an_input_does_not_allow_is_refused(preset, words, said):
    with pytest.raises(UsageError, match=said):
        load_recipe(preset, words)


def test_detr_can_be_trained_on_inputs_of_one_size():
    recipe = load_recipe("detr-r50", ["model.input.resize=stretch", "augment.sizes=null", "augment.mixup={}"])
    assert recipe.model.input.frame == (640, 640)


@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_waits_for_an_epoch_that_never_comes(name):
    assert never_reached(load_recipe(name)) == never_reached(load_recipe(name, finetune=True)) == []


def test_a_short_training_knows_what_it_never_reaches():
    late = never_reached(load_recipe("dfine-s", ["train.epochs=24"]))
    assert late == ["augment.stop_epoch=120", "train.second_stage.epoch=120"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_finetuned(name):
    recipe = load_recipe(name, ["train.epochs=3"], finetune=True)
    assert (recipe.train.epochs, recipe.train.batch) == (3, 4)
    own = load_recipe(name)
    assert recipe.model == own.model and recipe.train.optimizer == own.train.optimizer
    assert recipe.augment.stop_epoch is None and recipe.train.second_stage is None
