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
from detr.training.learning.optimizer import groups_by_role
from detr.training.run import assemble
from detr.training.step import gradients, take_step
from tests.elsewhere import DEVICE, elsewhere, forget_tables
from tests.small import small_recipe

pytest.importorskip("triton", reason="the kernels of a GPU need Triton")

PRESETS = ["detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "rtdetrv2-r18-dsp", "dfine-n", "deimv2-n"]


@pytest.fixture(scope="module", autouse=True)
def own_tables():
    forget_tables()
    yield
    forget_tables()


def target(count):
    return Target(torch.arange(count) % 3, torch.rand(count, 4) * 0.4 + 0.3)


def run_of(network, place):
    """A training of the network on the device, before its first step."""
    recipe = small_recipe().model_copy(update={"model": network.config, "criterion": None})
    groups = groups_by_role(network, recipe.train.optimizer)
    team = Team(0, 1, torch.device(DEVICE))
    return assemble(recipe, team, Path(), network, network, [], groups, Interruption({}), print, place)


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_waits_once_and_an_answer_never(name, smaller, monkeypatch):
    network = build_model(smaller(name, num_layers=2 if name == "dfine-n" else 1)).train()
    input = network.config.input
    place, deployed = copy.deepcopy(network), network.deploy()
    padding = torch.zeros(2, 64, 64, dtype=torch.bool) if input.keeps_aspect else None
    batch = Batch(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), padding, [target(2), target(0)])
    with elsewhere(monkeypatch) as watching:
        run = run_of(network.to(DEVICE), place.to(DEVICE))
        deployed.to(DEVICE)
        watching.looks = 0
        watching.faults.clear()  # the way of the weights to the device
        (take_step if name == "dfine-n" else gradients)(run, [batch])  # what comes after them is the same for all
        assert (watching.faults, watching.looks) == (set(), 1)
        batch = batch.to(DEVICE, non_blocking=True)
        with torch.no_grad():
            output = deployed(as_input(batch.images, batch.padding, input), batch.padding)
        sizes = torch.tensor([[40, 50], [30, 20]]).to(DEVICE, non_blocking=True)
        found = best(output.layers[-1], sizes, scoring=deployed.scoring, classes=[0, 2])
        assert {each.device.type for each in found} == {"lazy"}
        assert (watching.faults, watching.looks) == (set(), 1)


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
