import pytest
import torch
from click.testing import CliRunner

from detr.cli.train import command
from detr.criterion import criterion_for
from detr.errors import InputError, UsageError
from detr.models import build_model
from detr.models.presets import preset
from detr.records import Batch, Target
from detr.training import step as stepping
from detr.training.replay import FILE, Cause, cause_of, replay
from detr.training.saved.checkpoint import BEST
from detr.training.train import train

PRESETS = ["detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "rtdetrv2-r18-dsp", "dfine-n", "deimv2-n"]
CPU = torch.device("cpu")


def batch():
    targets = [Target(torch.arange(count) % 3, torch.rand(count, 4) * 0.4 + 0.3, id) for count, id in ((2, 7), (1, 9))]
    return Batch(torch.rand(2, 3, 96, 96), None, targets)


def cause(network, piece):
    return cause_of(network.train(), [piece], criterion_for(network), dtype=None, seed=3)


@pytest.fixture
def network(smaller):
    torch.manual_seed(0)
    return build_model(smaller("rtdetr-r18", num_layers=2))


@pytest.mark.parametrize("name", PRESETS)
def test_a_sound_step_has_no_cause(name, smaller):
    assert preset(name)
    torch.manual_seed(0)
    assert cause(build_model(smaller(name, num_layers=2)), batch()) is None


def test_a_parameter_is_named(network):
    with torch.no_grad():
        network.decoder.layers[1].norm2.weight[3] = float("inf")
    assert cause(network, batch()) == Cause("the parameter decoder.layers.1.norm2.weight")


def test_an_image_is_named(network):
    piece = batch()
    piece.images[1, 2, 5, 5] = float("nan")
    assert str(cause(network, piece)) == "the input, of image 9"


def test_the_innermost_module_and_its_image_are_named(network):
    def overflows(module, given, answer):
        answer[0, 1] = float("inf")

    network.encoder.bottom_up[0].register_forward_hook(overflows)
    inner = network.encoder.top_down[1]
    name = next(name for name, module in inner.named_modules() if not list(module.children()) and name)
    inner.get_submodule(name).register_forward_hook(overflows)
    assert cause(network, batch()) == Cause(f"encoder.top_down.1.{name}", (7,))


def test_a_gradient_is_named(network):
    weight = network.decoder.score_heads[1].weight
    weight.register_hook(lambda gradient: gradient * float("nan"))
    assert cause(network, batch()) == Cause("the gradient of decoder.score_heads.1.weight")


def test_what_a_training_kept_is_taken_again_as_it_was(recipe_with, small_sets, tmp_path, monkeypatch, plain):
    losses = []
    original = stepping.gradients

    def poisoned(run, pieces):
        found, output = original(run, pieces)
        if run.counters.step == 4:
            losses.append({name: float(value) for name, value in found.items()})
            found["loss_bbox"] = found["loss_bbox"] + float("inf")
        return found, output

    monkeypatch.setattr(stepping, "gradients", poisoned)
    said = []
    train(recipe_with(), **small_sets, out=tmp_path, device="cpu", workers=0, say=said.append)
    (line,) = [line for line in said if "left out" in line]
    assert line.startswith("warning: step 5 is left out") and f"detr train --replay {tmp_path / FILE}" in line

    seen = []
    criterion = "detr.training.replay.criterion_for"
    monkeypatch.setattr(criterion, lambda *given: Listening(criterion_for(*given), seen))
    again = replay(tmp_path / FILE, device=CPU)
    assert again.cause is None and again.step == 5 and len(again.images) == 2
    assert seen == losses
    for path in (tmp_path, tmp_path / FILE):
        said = CliRunner().invoke(command, ["--replay", str(path), "--device", "cpu"])
        assert said.exit_code == 0 and "all numbers are finite here" in said.output


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "no such file; a training that diverges leaves"), (["--data", "shapes"], "takes all it needs from its file")],
)
def test_a_replay_of_nothing_or_of_more_is_refused(tmp_path, words, message):
    said = CliRunner().invoke(command, ["--replay", str(tmp_path), *words])
    assert isinstance(said.exception, UsageError) and message in str(said.exception)


class Listening(torch.nn.Module):
    """A criterion whose losses are written down."""

    def __init__(self, criterion, seen):
        super().__init__()
        self.criterion, self.seen = criterion, seen

    def forward(self, output, targets):
        self.criterion.epoch = self.epoch
        losses = self.criterion(output, targets)
        self.seen.append({name: float(value.detach()) for name, value in losses.items()})
        return losses


def test_other_files_are_refused(recipe_with, small_sets, tmp_path, plain):
    train(recipe_with(epochs=1), **small_sets, out=tmp_path, device="cpu", workers=0, say=lambda line: None)
    with pytest.raises(InputError, match=r"best.safetensors holds no step to replay; a training that diverges leaves"):
        replay(tmp_path / BEST, device=CPU)
