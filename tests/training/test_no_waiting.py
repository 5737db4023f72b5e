"""A GPU is kept busy by a host that runs ahead of it: a step of training looks at numbers once, to match."""

import copy
from pathlib import Path

import pytest
import torch

from detr.image import as_input
from detr.models import build_model
from detr.models.postprocess import best
from detr.records import Batch, Target
from detr.runtime.distributed import Team
from detr.runtime.interruption import Interruption
from detr.runtime.runner import TorchRunner
from detr.training.learning.lora import adapt
from detr.training.learning.optimizer import groups_by_role
from detr.training.learning.recomputing import recompute
from detr.training.learning.teacher import Teacher
from detr.training.run import assemble
from detr.training.step import gradients, take_step
from tests.elsewhere import DEVICE, MIXED, elsewhere, forget_tables, sent
from tests.small import small_recipe

pytest.importorskip("triton", reason="the kernels of a GPU need Triton")

CASES = {
    "detr-r50": {},
    "deformable-detr-r50": {"optimizer": {"layer_decay": 0.9}},
    "dino-r50-4scale": {},
    "rtdetr-r18": {"teacher": {"weights": "the same"}, "activation_checkpointing": True, "channels_last": True},
    "deim-dfine-n": {"amp": "fp16", "average": {"decay": 0.9}},
    "deimv2-s": {"lora": {"rank": 2}},
}


@pytest.fixture(scope="module", autouse=True)
def own_tables():
    forget_tables()
    yield
    forget_tables()


def target(count):
    return Target(torch.arange(count) % 3, torch.rand(count, 4) * 0.4 + 0.3)


def recipe_of(network, settings):
    recipe = small_recipe(**{"average": None, **settings})
    return recipe.model_copy(update={"model": network.config, "criterion": None})


def run_of(recipe, network, place):
    """A training of the network on the device, before its first step."""
    groups = groups_by_role(network, recipe.train.optimizer)
    team = Team(0, 1, torch.device(DEVICE))
    return assemble(recipe, team, Path(), network, network, [], groups, Interruption({}), print, place)


@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_once_and_an_answer_never(name, smaller, monkeypatch):
    network = build_model(smaller(name, num_layers=2 if name == "deim-dfine-n" else 1)).train()
    recipe, input = recipe_of(network, CASES[name]), network.config.input
    train = recipe.train
    runner = TorchRunner(network, device="meta", half=True)
    if train.lora is not None:
        adapt(network, train.lora, print)
    if train.activation_checkpointing:
        recompute(network)
    other = copy.deepcopy(network) if train.teacher or train.average else None
    padding = torch.zeros(2, 64, 64, dtype=torch.bool) if input.keeps_aspect else None
    batch = Batch(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), padding, [target(2), target(0)])
    waits = 2 if train.teacher else 1
    with elsewhere(monkeypatch) as watching:
        run = run_of(recipe, sent(network), sent(other) if train.average else None)
        if train.teacher:
            monkeypatch.setattr("detr.training.learning.teacher.load_model", lambda *_, **__: sent(other).eval())
            run.teacher = Teacher(train.teacher, network, run.criterion, run.team.device)
        watching.faults.clear()
        watching.looks = 0
        (take_step if train.average else gradients)(run, [batch])  # what comes after them is the same for all
        assert (watching.faults, watching.looks) == (set(), waits)
        watching.types.clear()
        runner.device, runner._answer = torch.device(MIXED), sent(runner.network, MIXED)
        batch = batch.to(runner.device, non_blocking=True)
        output = runner(as_input(batch.images, batch.padding, input), batch.padding)
        sizes = torch.tensor([[40, 50], [30, 20]]).to(MIXED, non_blocking=True)
        found = best(output.layers[-1], sizes, scoring=runner.scoring, classes=[0, 2])
        assert {each.device.type for each in found} == {"cuda"}
        assert (watching.faults, watching.looks, watching.types) == (set(), waits, {torch.float16})


def test_what_waits_is_noticed(monkeypatch):
    with elsewhere(monkeypatch) as watching:
        values = torch.zeros(4, device=DEVICE)
        for look in (lambda: values[0].item(), lambda: values[values > 2], lambda: values.nonzero()):
            with pytest.raises((RuntimeError, torch._subclasses.fake_tensor.UnsupportedOperatorException)):
                look()
        with pytest.raises(RuntimeError, match="device"):
            values + torch.zeros(4)
        values[[2, 1]]
        torch.zeros(4).to(DEVICE)
        values.cpu().numpy()
        assert (len(watching.faults), watching.looks) == (2, 1)
