import pytest
import torch

from detr.backbones.hgnetv2 import HGNetv2Config
from detr.backbones.resnet import ResNetConfig
from detr.backbones.timm import TimmBackbone, TimmConfig
from detr.classes import COCO, Classes
from detr.convert import to_theirs
from detr.errors import InputError
from detr.models import build_model
from detr.models.presets import preset
from detr.training.saved.checkpoint import save_weights
from detr.training.start import class_entries, start_fresh, start_from, warning_of_fresh_norms

OURS = Classes.from_names(["tram", "Person", "bus"])


@pytest.fixture
def source(recipe_with, tmp_path):
    recipe = recipe_with()
    network = build_model(recipe.model, classes=COCO)
    save_weights(tmp_path / "source.safetensors", network, recipe, epoch=1, metrics={})
    return network, tmp_path / "source.safetensors"


def with_backbone(model, **settings):
    return model.model_copy(update={"backbone": model.backbone.model_copy(update=settings)})


def backbone_of(state):
    """As the authors publish it: the backbone's part under their names, without the prefix."""
    own = {name: value for name, value in state.items() if name.startswith("backbone.")}
    return to_theirs(own, "resnet-vd-official")


@pytest.fixture
def of_a_backbone(recipe_with, tmp_path):
    """Writes the file of a backbone filled with numbers: its state under our names, and the path."""

    def write(*, counted=True, **settings):
        state = build_model(with_backbone(recipe_with().model, **settings)).state_dict()
        for index, value in enumerate(state.values()):
            if value.is_floating_point():
                value.copy_(torch.linspace(0.1, 1 + index / 100, value.numel()).view(value.shape))
        path = tmp_path / "backbone.pth"
        file = backbone_of(state)
        torch.save({name: file[name] for name in file if counted or not name.endswith("num_batches_tracked")}, path)
        return state, str(path)

    return write


def test_classes_are_matched_by_name_and_others_stay_fresh(recipe_with, source):
    theirs, path = source
    network = build_model(recipe_with().model, classes=OURS)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    start = start_from(network, str(path))
    assert start.text == "2 of 3 classes start from COCO: Person, bus; 1 start fresh"
    ours, known = network.state_dict(), theirs.state_dict()
    person, bus = COCO.names.index("person"), COCO.names.index("bus")
    by_class = set(class_entries(network))
    assert len(by_class) == 7  # weight and bias of the encoder's and two decoder heads, and the denoising's embedding
    for name, value in ours.items():
        if name in by_class:
            assert torch.equal(value[[1, 2]], known[name][[person, bus]])
            assert torch.equal(value[0], fresh[name][0])
        else:
            assert torch.equal(value, known[name])


def test_the_same_classes_are_taken_whole(recipe_with, source):
    theirs, path = source
    network = build_model(recipe_with().model, classes=COCO)
    start_from(network, str(path))
    known = theirs.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in network.state_dict().items())


def test_as_many_classes_of_other_names_start_fresh(recipe_with, source):
    theirs, path = source
    network = build_model(recipe_with().model, classes=Classes.from_names(f"thing {i}" for i in range(80)))
    start = start_from(network, str(path))
    assert "all class heads start fresh" in start.text
    assert not torch.equal(network.queries.score_head.weight, theirs.queries.score_head.weight)


def test_weights_of_another_model_are_refused_with_the_first_differences(recipe_with, source):
    model = recipe_with().model
    other = model.model_copy(update={"encoder": model.encoder.model_copy(update={"hidden": 24})})
    with pytest.raises(InputError, match=r"of another model: encoder\.attention\.0"):
        start_from(build_model(other, classes=OURS), str(source[1]))


def test_a_file_that_says_no_model_is_taken_for_the_recipes(recipe_with, source, tmp_path):
    theirs, _ = source
    torch.save({"model": theirs.state_dict()}, tmp_path / "plain.pth")
    network = build_model(recipe_with().model, classes=COCO)
    start_from(network, str(tmp_path / "plain.pth"))
    assert torch.equal(network.queries.embed.weight, theirs.queries.embed.weight)


def test_a_backbone_alone_is_loaded_whole_and_nothing_else_is_touched(of_a_backbone, recipe_with):
    theirs, path = of_a_backbone()
    network = build_model(recipe_with().model, classes=OURS)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    start = start_from(network, path)
    assert start.text == f"the backbone starts from {path}; everything else starts fresh"
    for name, value in network.state_dict().items():
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, theirs[name]), name
            assert not torch.equal(value, fresh[name]), name
        else:
            assert torch.equal(value, fresh[name]), name


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_a_backbone_fits_whether_norms_are_frozen_or_not_and_counted_or_not(
    of_a_backbone, recipe_with, frozen, counted
):
    theirs, path = of_a_backbone(counted=counted)
    model = with_backbone(recipe_with().model, frozen_norms=frozen)
    network = build_model(model, classes=OURS)
    start_from(network, path)
    name = "backbone.stem.0.norm.running_mean"
    assert torch.equal(network.state_dict()[name], theirs[name])


@pytest.mark.parametrize(
    ("other", "first"),
    [
        ({"depth": 18}, r"backbone\.stages\.0\.1\.conv1\.conv\.weight is not in this model"),
        ({"depth": 50}, r"backbone\.stages\.0\.0\.conv3\.conv\.weight is not in this model"),
        ({"width": 16}, r"backbone\.stem\.0\.conv\.weight is \[8, 3, 3, 3\] there and \[4, 3, 3, 3\] here"),
    ],
)
def test_a_backbone_of_another_depth_or_width_is_refused(of_a_backbone, recipe_with, other, first):
    _, path = of_a_backbone(**other)
    network = build_model(recipe_with().model, classes=OURS)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=f"of another model: .*{first}"):
        start_from(network, path)
    assert all(torch.equal(value, fresh[name]) for name, value in network.state_dict().items())


def test_a_backbone_with_a_part_missing_or_too_many_is_refused(of_a_backbone, recipe_with, tmp_path):
    _, path = of_a_backbone()
    state = torch.load(path)
    del state["res_layers.3.blocks.0.branch2b.norm.bias"]
    state["fc.weight"] = torch.zeros(3)
    torch.save(state, path)
    with pytest.raises(InputError, match=r"backbone\.stages\.3\.0\.conv2\.norm\.bias is missing.*fc\.weight is not in"):
        start_from(build_model(recipe_with().model, classes=OURS), path)


@pytest.mark.parametrize("name", ["rtdetr-r18", "rtdetr-r34", "rtdetr-r50", "rtdetr-r101"])
def test_a_backbone_has_the_official_names_without_their_prefix(name):
    with torch.device("meta"):
        state = build_model(name).state_dict()
    official = to_theirs(state, "rtdetr-official")
    expected = {key.removeprefix("backbone.") for key in official if key.startswith("backbone.")}
    assert set(backbone_of(state)) == expected


def test_the_warning_of_fresh_norms_names_the_release_that_helps():
    assert warning_of_fresh_norms(ResNetConfig(depth=101)).endswith("; try --weights resnet101-vd")
    assert warning_of_fresh_norms(ResNetConfig(depth=50, width=32)).endswith("no more than random")
    assert warning_of_fresh_norms(ResNetConfig(depth=10)).endswith("no more than random")
    assert warning_of_fresh_norms(ResNetConfig(depth=50, variant="b")).endswith("; try --weights resnet50")
    assert warning_of_fresh_norms(HGNetv2Config(size="L")).endswith("; try --weights hgnetv2-b4")
    assert warning_of_fresh_norms(HGNetv2Config(size="Atto", stages=(2, 3))).endswith("no more than random")


def test_only_timms_backbones_bring_their_own_weights(monkeypatch):
    config = preset("rtdetr-tiny")
    assert start_fresh(build_model(config)) is None
    with_timm = config.model_copy(update={"backbone": TimmConfig(name="test_convnext", pretrained=True)})
    monkeypatch.setattr(TimmBackbone, "load_pretrained", lambda self: f"timm's {self.config.name}")
    start = start_fresh(build_model(with_timm))
    assert start.text == "the backbone starts from timm's test_convnext; everything else starts fresh"
