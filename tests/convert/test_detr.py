import pytest
import torch

from detr.classes import Classes
from detr.convert import identify, needed_for, source_for, to_ours, to_theirs
from detr.errors import InputError
from detr.models import build_model, load_model, preset

SOURCES = ("detr-official", "detr-hf", "detr-timm-hf")


@pytest.fixture(scope="module")
def state():
    with torch.device("meta"):
        return build_model("detr-r50").state_dict()


@pytest.mark.parametrize("source", SOURCES)
def test_every_tensor_has_a_name_of_its_own_there_and_comes_back(state, source):
    there = to_theirs(state, source)
    assert not set(there) & set(state)
    assert identify(there) == source
    assert set(to_ours(dict.fromkeys(there, torch.zeros(3)), source)) == set(state)


def test_hugging_face_keeps_queries_keys_and_values_apart():
    ours = "decoder.layers.1.cross_attention.project_in.weight"
    stacked = torch.arange(12.0).view(6, 2)
    there = to_theirs({ours: stacked}, "detr-hf")
    assert list(there) == [f"model.decoder.layers.1.encoder_attn.{part}_proj.weight" for part in "qkv"]
    assert torch.equal(to_ours(there, "detr-hf")[ours], stacked)


def test_the_norms_of_a_layer_are_told_by_what_they_follow():
    names = {
        "encoder.layers.0.norm2.bias": "model.encoder.layers.0.final_layer_norm.bias",
        "decoder.layers.0.norm2.bias": "model.decoder.layers.0.encoder_attn_layer_norm.bias",
        "decoder.layers.0.norm3.bias": "model.decoder.layers.0.final_layer_norm.bias",
    }
    for ours, theirs in names.items():
        assert list(to_theirs({ours: torch.zeros(1)}, "detr-hf")) == [theirs]
        assert list(to_theirs({ours: torch.zeros(1)}, "detr-official")) == [f"transformer.{ours}"]


def test_only_a_dilated_backbone_is_written_by_the_names_of_timm():
    assert source_for(preset("detr-r50"), "hf") == "detr-hf"
    assert source_for(preset("detr-r50-dc5"), "hf") == "detr-timm-hf"
    assert source_for(preset("detr-r101-dc5"), "official") == "detr-official"


def test_memory_of_transformers_5_is_read_too():
    assert list(to_ours({"model.backbone.model.conv1.weight": torch.zeros(1)}, "detr-timm-hf")) == [
        "backbone.stem.0.conv.weight"
    ]
    assert list(to_ours({"model.encoder.layers.0.mlp.fc2.bias": torch.zeros(1)}, "detr-hf")) == [
        "encoder.layers.0.feed_forward.linear2.bias"
    ]


@pytest.mark.parametrize(
    ("more", "source"),
    [
        ("transformer.encoder.norm.weight", "detr-official"),
        ("model.encoder.layernorm.weight", "detr-hf"),
        ("model.decoder.layers.0.sa_v_proj.weight", "detr-timm-hf"),
    ],
)
def test_relatives_of_detr_are_not_taken_for_it(state, more, source):
    assert identify({**to_theirs(state, source), more: torch.zeros(1)}) is None


def test_a_panoptic_detr_is_refused_by_name(tmp_path, state):
    there = {f"detr.{name}": torch.zeros(1) for name in to_theirs(state, "detr-official")}
    torch.save({"model": there | {"mask_head.lay1.weight": torch.zeros(1)}}, tmp_path / "panoptic.pth")
    with pytest.raises(InputError, match=r"panoptic.pth holds DETR for panoptic segmentation"):
        load_model(tmp_path / "panoptic.pth")


def test_an_official_file_of_other_classes_is_read_by_index_where_ids_do_not_fit(tmp_path):
    config = preset("detr-r50").model_copy(update={"slots": "index"})
    with torch.device("meta"):
        network = build_model(config, classes=Classes.from_names(["cat", "dog", "bird"]))
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in network.state_dict().items()}
    torch.save({"model": to_theirs(zeros, "detr-official")}, tmp_path / "mine.pth")
    loaded = load_model(tmp_path / "mine.pth", "detr-r50")
    assert loaded.decoder.score_head.out_features == 4
    assert loaded.classes.names == ("class_0", "class_1", "class_2")


def test_what_keeps_a_model_from_a_form_is_named():
    config = preset("deformable-detr-r50-refine")
    assert source_for(config, "hf") == "deformable_detr-refine-hf" and needed_for(config, "hf") == []
    numbered = config.model_copy(update={"slots": "index"})
    assert source_for(numbered, "hf") is None and needed_for(numbered, "hf") == ["model.slots=id"]
    assert source_for(preset("dino-r50-4scale"), "hf") is None and needed_for(preset("dino-r50-4scale"), "hf") == []
