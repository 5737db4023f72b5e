import pytest
import torch

from detr import weights
from detr.errors import InputError, UsageError
from detr.training import repeating
from detr.training.repeating import differing, repeat
from detr.training.saved.pace import Pace
from detr.training.train import train

pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture
def stopped(recipe_with, small_sets, tmp_path, stopped_after):
    """The folder of a run that ended without warning after 2 of the 3 steps of its first epoch."""
    with stopped_after(2):
        train(recipe_with(), **small_sets, out=tmp_path, device="cpu", workers=0, say=str, save_every=Pace(steps=1))
    return tmp_path


def repeated(recipe, sets, out, **options):
    return repeat(recipe, **sets, out=out, device="cpu", workers=0, say=str, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_steps_taken_twice_have_the_same_bits_and_nothing_is_written(recipe_with, small_sets, stopped):
    before = contents(stopped)
    proof = repeated(recipe_with(), small_sets, stopped)
    assert (proof.since, proof.steps) == (2, 4)
    assert proof.tensors == len(weights.read(stopped / "resume.safetensors").state)
    assert f"4 steps after step 2, taken twice: all {proof.tensors:,} tensors" in proof.text
    assert contents(stopped) == before


def test_the_steps_are_those_that_the_training_takes(recipe_with, small_sets, stopped, monkeypatch):
    """Two ends: of the proof, over the border of an epoch, and of the training gone on with."""
    ends = []
    monkeypatch.setattr(repeating, "differing", lambda one, other: ends.append(one) or differing(one, other))
    repeated(recipe_with(), small_sets, stopped)
    train(recipe_with(), **small_sets, out=stopped, device="cpu", workers=0, say=str, resume=True)
    assert differing(ends[0], weights.read(stopped / "resume.safetensors").state) == []


def test_a_step_that_depends_on_anything_else_is_found_and_its_tensor_named(
    recipe_with, small_sets, stopped, monkeypatch
):
    taken = []

    def leaking(run, pieces, take_step=repeating.take_step):
        output = take_step(run, pieces)
        taken.append(1)
        if len(taken) == 7:
            with torch.no_grad():
                bias = run.network.decoder.score_heads[-1].bias
                bias.copy_(torch.nextafter(bias, torch.tensor(9.0)))
        return output

    monkeypatch.setattr(repeating, "take_step", leaking)
    with pytest.raises(InputError, match=r"taken twice, differ in \d+ of [\d,]+ tensors; the first is \S+, by up to"):
        repeated(recipe_with(), small_sets, stopped)
    assert len(taken) == 8


def test_whatever_a_training_refuses_is_refused(recipe_with, small_sets, stopped, tmp_path):
    with pytest.raises(InputError, match=r"train\.seed was 0, is 3"):
        repeated(recipe_with(seed=3), small_sets, stopped)
    with pytest.raises(UsageError, match="no such run folder"):
        repeated(recipe_with(), small_sets, tmp_path / "nowhere")


def test_tensors_are_compared_by_their_bits():
    nan = torch.tensor([float("nan"), 1.0])
    one = {"a": nan, "zero": torch.tensor(0.0), "count": torch.tensor(3), "half": torch.ones(2, 2).bfloat16().t()}
    assert differing(one, {name: value.clone() for name, value in one.items()}) == []
    assert differing(one, {**one, "zero": torch.tensor(-0.0), "count": torch.tensor(4)}) == ["zero", "count"]
    assert differing(one, {**one, "more": nan}) == ["more"]
