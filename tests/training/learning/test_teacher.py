import json

import pytest
import torch

from detr import weights
from detr.classes import Classes
from detr.criterion import criterion_for
from detr.errors import InputError, UsageError
from detr.models import build_model
from detr.training.learning.teacher import Teacher, TeacherConfig, require_same_colours
from detr.training.recipe import load_recipe
from detr.training.saved.checkpoint import save_weights
from detr.training.saved.pace import Pace
from detr.training.train import train


@pytest.fixture
def write_teacher(recipe_with, small_sets, tmp_path):
    """Writes the file of a network with random weights that is sure of everything."""

    def write(seed=1, classes=None, name="teacher.safetensors"):
        torch.manual_seed(seed)
        recipe = recipe_with()
        network = build_model(recipe.model, classes=classes or small_sets["train_set"].classes)
        for head in network.decoder.score_heads:
            torch.nn.init.constant_(head.bias, 1.0)
        save_weights(tmp_path / name, network, recipe, epoch=1, metrics={})
        return str(tmp_path / name)

    return write


def run(recipe, sets, out, **options):
    said = []
    train(recipe, **{**sets, "val_set": None}, out=out, device="cpu", workers=0, say=said.append, **options)
    return said


def test_what_the_teacher_says_is_learned_and_journalled(recipe_with, small_sets, tmp_path, write_teacher, plain):
    path = write_teacher()
    said = run(recipe_with(epochs=1, teacher={"weights": path}), small_sets, tmp_path / "out")
    assert any(line.startswith(f"{path} teaches 10 of 10 classes: ") for line in said)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss_teacher_class", "loss_teacher_bbox", "loss_teacher_giou"):
        assert rows[-1][name] > 0
    names = weights.read(tmp_path / "out" / "resume.safetensors").state
    own = len(build_model(recipe_with().model).state_dict())
    assert sum(name.startswith("network.") for name in names) == own


def test_a_run_with_a_teacher_ends_as_if_never_stopped(
    recipe_with, small_sets, tmp_path, write_teacher, stopped_after, plain
):
    recipe = recipe_with(epochs=1, accumulate=2, teacher={"weights": write_teacher()})
    run(recipe, small_sets, tmp_path / "whole")
    with stopped_after(2):
        run(recipe, small_sets, tmp_path / "parts", save_every=Pace(steps=2))
    run(recipe, small_sets, tmp_path / "parts", resume=True)
    for name in ("last.safetensors", "resume.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_another_teacher_under_the_same_name_is_refused(recipe_with, small_sets, tmp_path, write_teacher, plain):
    recipe = recipe_with(epochs=1, teacher={"weights": write_teacher()})
    run(recipe, small_sets, tmp_path / "out")
    write_teacher(seed=2)
    with pytest.raises(InputError, match="the teacher's weights are others than then"):
        run(recipe, small_sets, tmp_path / "out", resume=True)


def teacher_for(student, path):
    return Teacher(TeacherConfig(weights=path), student, criterion_for(student), torch.device("cpu"))


def test_a_teacher_that_knows_none_of_the_classes_is_refused(recipe_with, write_teacher):
    path = write_teacher(classes=Classes.from_names(["tram", "van"]))
    student = build_model(recipe_with().model, classes=Classes.from_names(["cat"]))
    with pytest.raises(InputError, match=r"knows none of the classes \(cat\)"):
        teacher_for(student, path)


def test_classes_are_matched_by_name(recipe_with, write_teacher):
    path = write_teacher(classes=Classes.from_names(["tram", "cat", "van"]))
    student = build_model(recipe_with().model, classes=Classes.from_names(["Cat", "dog"]))
    assert teacher_for(student, path).text == f"{path} teaches 1 of 2 classes: Cat"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detr-r50", 'has a logit for "no object"'),
        ("dino-r50-4scale", "model.input.resize=stretch, this model short side"),
    ],
)
def test_networks_that_do_not_fit_are_refused(write_teacher, name, message):
    with torch.device("meta"):
        student = build_model(name)
    with pytest.raises(UsageError, match=message):
        teacher_for(student, write_teacher(classes=student.classes))


def test_blended_images_need_the_same_colours(recipe_with, write_teacher):
    recipe = load_recipe("deimv2-n")
    with torch.device("meta"):
        student = build_model(recipe.model.model_copy(update={"input": recipe.model.input.model_copy(
            update={"mean": (0.5,) * 3, "std": (0.2,) * 3})}))  # fmt: skip
    teacher = teacher_for(student, write_teacher(classes=student.classes))
    with pytest.raises(UsageError, match=r"expected augment\.mixup=null"):
        require_same_colours(teacher, student, recipe.augment)
    require_same_colours(teacher, student, load_recipe("deimv2-n", finetune=True).augment)
