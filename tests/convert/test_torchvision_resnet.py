import pytest
import torch

from detr.backbones.resnet import ResNet, ResNetConfig
from detr.convert import identify, to_ours, to_theirs
from detr.convert.torchvision_resnet import SOURCE
from detr.errors import InputError
from detr.models import build_model, preset
from detr.models.detr import DecoderConfig, EncoderConfig
from detr.training.start import start_from


@pytest.mark.parametrize(("depth", "entries"), [(18, 120), (50, 318), (101, 624)])
def test_the_names_are_torchvisions(depth, entries):
    """120, 318 and 624 entries, 2 of them the classifier's, and a counter for each norm."""
    with torch.device("meta"):
        network = ResNet(ResNetConfig(depth=depth, variant="b", stages=(4,)))
    ours = {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}
    theirs = to_theirs(ours, SOURCE)
    assert len(theirs) == entries
    last = "layer4.1.bn2.running_var" if depth == 18 else "layer4.2.bn3.running_var"
    assert {"conv1.weight", "bn1.num_batches_tracked", "layer2.0.downsample.0.weight", last} <= set(theirs)
    assert ("layer1.0.downsample.0.weight" in theirs) == (depth >= 50)
    assert identify(theirs) == SOURCE
    assert set(to_ours(theirs | {"fc.weight": torch.zeros(1)}, SOURCE)) == set(ours)


@pytest.fixture
def file(tmp_path):
    """A classifier of depth 50 as torchvision saves it, with 1 in every place but the counters."""
    with torch.device("meta"):
        network = ResNet(ResNetConfig(depth=50, variant="b", stages=(4,)))
    ours = {f"backbone.{name}": torch.ones(tensor.shape) for name, tensor in network.state_dict().items()}
    state = to_theirs(ours, SOURCE) | {"fc.weight": torch.ones(3, 2048), "fc.bias": torch.ones(3)}
    torch.save(state, tmp_path / "resnet50.pth")
    return tmp_path / "resnet50.pth"


def test_a_training_can_start_from_a_classifier(file):
    short = {"encoder": EncoderConfig(num_layers=1), "decoder": DecoderConfig(num_layers=1)}
    network = build_model(preset("detr-r50-dc5").model_copy(update=short))
    start = start_from(network, str(file))
    assert start.text == f"the backbone starts from {file}; everything else starts fresh"
    assert all((value == 1).all() for value in network.backbone.state_dict().values())


def test_a_backbone_of_another_kind_is_refused(file):
    with pytest.raises(InputError, match=r"backbone.stem.1.conv.weight is missing there"):
        start_from(build_model("rtdetr-r50"), str(file))
