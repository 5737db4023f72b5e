import pytest
import torch

from detr import weights
from detr.classes import COCO, Classes
from detr.convert import to_theirs
from detr.errors import InputError, UsageError
from detr.models import build_model, load_model, network_of, preset
from detr.models.rtdetr import RTDETRNetwork
from detr.models.undrawn import Undrawn

TINY = "rtdetr-tiny"


@pytest.fixture
def tiny():
    return build_model(TINY, classes=Classes.from_names(["cat", "dog"])).eval()


def saved(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    return str(path)


def same(network, other):
    ours, theirs = network.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_our_own_file_says_all_there_is_to_know(tmp_path, tiny):
    path = tmp_path / "own.safetensors"
    weights.write(path, tiny.state_dict(), model=tiny.config.model_dump(mode="json"), classes=tiny.classes)
    loaded = load_model(str(path))
    same(loaded, tiny)
    assert loaded.config == tiny.config and loaded.classes == tiny.classes and not loaded.training


@pytest.mark.parametrize(
    "name",
    ["detr-r50", "deformable-detr-r50-two-stage", "dino-r50-4scale", "rtdetr-l", "rtdetrv2-r18", "dfine-n", "deimv2-s"],
)
def test_nothing_is_drawn_for_a_network_whose_numbers_come_from_a_file(name):
    before = torch.get_rng_state()
    with Undrawn():
        build_model(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_leaves_the_generator_where_it_was(tmp_path, tiny):
    path = saved(tmp_path, tiny.state_dict())
    before = torch.get_rng_state()
    load_model(path, TINY)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "nest", [lambda state: state, lambda state: {"ema": {"module": state}}, lambda state: {"model": state}]
)
def test_an_official_file_is_recognised_however_it_is_nested(tmp_path, tiny, nest):
    state = to_theirs(tiny.state_dict(), "rtdetrv2-official")
    state["decoder.anchors"] = torch.zeros(1, 2100, 4)
    loaded = load_model(saved(tmp_path, nest(state)))
    same(loaded, tiny)
    assert loaded.config == preset(TINY) and loaded.classes.names == ("class_0", "class_1")


def test_eighty_classes_without_a_table_are_those_of_coco(tmp_path):
    state = to_theirs(build_model(TINY).state_dict(), "rtdetrv2-official")
    assert load_model(saved(tmp_path, state)).classes == COCO


def test_a_plain_state_dict_of_ours_needs_no_word_where_one_model_is_like_it(tmp_path, tiny):
    same(load_model(saved(tmp_path, tiny.state_dict())), tiny)


def test_a_file_that_fits_two_versions_wants_to_be_told(tmp_path):
    with torch.device("meta"):
        state = build_model("rtdetr-r18").state_dict()
    with pytest.raises(InputError, match=r"which of rtdetr-r18, rtdetrv2-r18 it is.*model="):
        network_of(weights.Checkpoint(tmp_path / "plain.pth", state, None, None))


def test_a_file_of_another_model_says_which_it_is(tmp_path, tiny):
    path = saved(tmp_path, to_theirs(tiny.state_dict(), "rtdetrv2-official"))
    with pytest.raises(InputError, match=r"weights.pth holds rtdetr-tiny, not rtdetr-r18"):
        load_model(path, model="rtdetr-r18")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["transformer.decoder.norm.weight", "query_embed.weight"], "a relative of DETR"),
        (["layer1.0.conv1.weight", "fc.weight"], "a ResNet for classification"),
        (["some.weight", "other.bias"], "2 tensors of a model we don't know .*some.weight, other.bias"),
    ],
)
def test_a_file_of_another_family_says_what_it_holds(tmp_path, names, what):
    with pytest.raises(InputError, match=f"holds {what}"):
        load_model(saved(tmp_path, {name: torch.zeros(1) for name in names}))


def test_what_has_no_backbone_is_refused_before_any_model_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("detr.models.loading.presets_like", lambda *_, **__: pytest.fail("takes half a minute"))
    torch.save({"layers.0.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"1 tensors? of a model we don't know \(layers\.0\.weight"):
        load_model(str(tmp_path / "a.pth"))


def test_a_backbone_alone_is_for_training(tmp_path, tiny):
    state = to_theirs(
        {name: value for name, value in tiny.state_dict().items() if "backbone" in name}, "resnet-vd-official"
    )
    with pytest.raises(InputError, match="holds only a backbone; use it for training with --weights"):
        load_model(saved(tmp_path, state))
    with pytest.raises(InputError, match="holds only a backbone"):
        load_model(saved(tmp_path, state), model=TINY)


def test_a_mismatch_names_the_first_three_tensors_and_counts_them_all(tmp_path, tiny):
    state = to_theirs(tiny.state_dict(), "rtdetrv2-official")
    state["decoder.dec_score_head.0.weight"] = torch.zeros(5, 7)
    del state["decoder.dec_score_head.0.bias"], state["decoder.dec_score_head.1.bias"]
    state["surprise"] = torch.zeros(1)
    with pytest.raises(InputError) as problem:
        load_model(saved(tmp_path, state))
    message = str(problem.value)
    assert "2 tensors missing, 1 tensors too many, 1 tensors of another shape" in message
    assert "decoder.score_heads.0.weight is 5x7, expected 2x96" in message
    assert "decoder.score_heads.1.bias is missing" in message and "surprise" not in message


def test_a_class_table_of_another_length_than_the_head_is_refused(tmp_path, tiny):
    path = tmp_path / "own.safetensors"
    model = tiny.config.model_dump(mode="json")
    weights.write(path, tiny.state_dict(), model=model, classes=Classes.from_names(["a", "b", "c"]))
    with pytest.raises(InputError, match="3 classes, its head has 2"):
        load_model(str(path))


def test_half_precision_files_are_read_into_full_precision(tmp_path, tiny):
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tiny.state_dict().items()
    }
    loaded = load_model(saved(tmp_path, state))
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())


def test_norms_of_a_file_may_be_frozen_or_not(tmp_path, small_config):
    frozen = small_config.model_copy(
        update={"backbone": small_config.backbone.model_copy(update={"frozen_norms": True})}
    )
    classes = Classes.from_names(["a"])
    for config, other in ((small_config, frozen), (frozen, small_config)):
        network = RTDETRNetwork(config, classes)
        path = tmp_path / "own.safetensors"
        weights.write(path, network.state_dict(), model=other.model_dump(mode="json"), classes=classes)
        loaded = load_model(str(path))
        torch.testing.assert_close(loaded.backbone.stem[0].norm.running_var, network.backbone.stem[0].norm.running_var)


def test_an_unknown_model_or_file_is_a_usage_error(tmp_path, tiny):
    with pytest.raises(UsageError):
        load_model(str(tmp_path / "nothing.pth"))
    with pytest.raises(UsageError, match="did you mean 'rtdetr-tiny'"):
        load_model(saved(tmp_path, tiny.state_dict()), model="rtdetr-tinny")


@pytest.mark.parametrize("model", [None, TINY])
def test_a_file_may_have_another_number_of_layers_than_its_preset(tmp_path, model):
    config = preset(TINY)
    fewer = config.model_copy(update={"decoder": config.decoder.model_copy(update={"num_layers": 2})})
    network = build_model(fewer, classes=Classes.from_names(["cat", "dog"]))
    loaded = load_model(saved(tmp_path, to_theirs(network.state_dict(), "rtdetrv2-official")), model)
    same(loaded, network)
    assert (loaded.config.decoder.num_layers, loaded.decoder.eval_layers) == (2, 2)
