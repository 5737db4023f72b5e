import os

import pytest
import torch

from detr.data.opening import open_for_training
from detr.data.shapes import make_shapes
from detr.runtime.determinism import same_bits
from detr.training.train import train

STEPS = 200


pytestmark = pytest.mark.usefixtures("plain")


def after_training(recipe, sets, out, *, workers=0, device="cpu"):
    """The bytes of the weights."""
    result = train(recipe, **sets, out=out, device=device, workers=workers, say=lambda line: None)
    assert result.steps == STEPS
    return (out / "last.safetensors").read_bytes(), (out / "resume.safetensors").read_bytes()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """50 images, each of which is a step."""
    folder = make_shapes(tmp_path_factory.mktemp("shapes") / "set", images=50, val_images=2, size=64, video=False)
    train_set, val_set = open_for_training(folder)
    return {"train_set": train_set, "val_set": val_set}


def test_two_hundred_steps_end_in_the_same_bytes_whatever_the_workers(recipe_with, sets, tmp_path):
    recipe = recipe_with(epochs=4, evaluate_every=4, batch=1, deterministic=True)
    first = after_training(recipe, sets, tmp_path / "a")
    assert after_training(recipe, sets, tmp_path / "b", workers=2) == first


@pytest.mark.gpu
def test_two_hundred_steps_on_a_gpu_end_in_the_same_bytes(recipe_with, sets, tmp_path):
    recipe = recipe_with(epochs=4, evaluate_every=4, batch=1, deterministic=True)
    first = after_training(recipe, sets, tmp_path / "a", device="cuda")
    assert after_training(recipe, sets, tmp_path / "b", device="cuda") == first


def test_outside_everything_is_as_before(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with same_bits(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with same_bits(True):
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.backends.cudnn.benchmark
