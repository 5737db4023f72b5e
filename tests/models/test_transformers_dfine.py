"""transformers' D-FINE as a second opinion: its random weights, by our table, give its outputs in our network."""

import json
import warnings

import pytest
import torch

from detr import convert, hugging_face, weights
from detr.backbones.hgnetv2 import HGNetv2, HGNetv2Config
from detr.classes import Classes
from detr.config import validated
from detr.errors import InputError
from detr.hugging_face import hgnetv2
from detr.models import build_model, load_model, preset
from detr.models.dfine import DFINEConfig
from detr.models.saving import official_state, save_model
from tests.models.second_opinion import difference, pictures, shake

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import is not what is tested here
    transformers = pytest.importorskip("transformers", minversion="5")

B0 = hgnetv2.config_of({"kind": "hgnetv2", "size": "B0", "affine": True, "stages": [2, 3, 4]})
SMALL = {
    "encoder_hidden_dim": 32,
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "decoder_layers": 3,
    "hidden_expansion": 0.5,
    "depth_mult": 0.34,
    "num_queries": 20,
    "num_labels": 5,
    "backbone_config": B0,
    "encoder_in_channels": [256, 512, 1024],
    "decoder_in_channels": [32] * 3,
    "decoder_n_points": [3, 6, 3],
}
THREE_LEVELS = SMALL | {"freeze_backbone_batch_norms": False}
TWO_LEVELS = SMALL | {
    "backbone_config": B0 | {"out_features": ["stage3", "stage4"], "out_indices": [3, 4]},
    "encoder_in_channels": [512, 1024],
    "decoder_in_channels": [32] * 2,
    "decoder_n_points": [2, 4],
    "feat_strides": [16, 32],
    "encode_proj_layers": [1],
    "num_feature_levels": 2,
    "reg_scale": 8.0,
}
WIDER_ENCODER = SMALL | {"encoder_hidden_dim": 48, "decoder_in_channels": [48] * 3}


def theirs(settings):
    network = transformers.DFineForObjectDetection(transformers.DFineConfig(**settings)).eval()
    scale, up = network.model.decoder.reg_scale.clone(), network.model.decoder.up.clone()
    shake(network)
    network.model.decoder.reg_scale.data.copy_(scale)
    network.model.decoder.up.data.copy_(up)
    return network


def ours(network):
    """Our network with the weights of theirs."""
    tree = hugging_face.model_of(network.config.to_dict(), "config.json")
    classes = Classes.from_names(f"class {n}" for n in range(network.config.num_labels))
    mine = build_model(validated(DFINEConfig, tree, "config.json"), classes=classes).eval()
    mine.load_state_dict(convert.to_ours(network.state_dict(), "d_fine-hf"))
    return mine


@pytest.mark.parametrize("settings", [THREE_LEVELS, TWO_LEVELS, WIDER_ENCODER], ids=["three", "two", "wider"])
def test_outputs_agree_with_transformers(settings):
    network = theirs(settings)
    assert difference(network, ours(network), pictures(128)) < 1e-4


def test_a_saved_folder_loads_with_the_scale_that_its_tensors_have(tmp_path):
    """Of the published xlarge only the tensor says 8."""
    network = theirs(TWO_LEVELS | {"id2label": {0: "cat", 1: "dog"}, "num_labels": 2})
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"reg_scale": 4.0}))
    mine = load_model(str(tmp_path))
    assert mine.config.decoder.scale == mine.decoder.scale == 8.0
    assert mine.classes == Classes.from_names(["cat", "dog"])
    assert difference(network, mine, pictures(128)) < 1e-4


def test_transformers_loads_the_folder_we_write(tmp_path):
    mine = ours(theirs(THREE_LEVELS | {"reg_scale": 8.0}))
    save_model(mine, tmp_path, "hf")
    network, report = transformers.DFineForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert network.model.decoder.reg_scale.item() == 8.0
    assert difference(network.eval(), mine, pictures(128)) < 1e-4
    assert network.config.id2label == mine.classes.as_dict()


def test_official_ours_and_hugging_face_are_the_same_tensors(tmp_path):
    mine = ours(theirs(TWO_LEVELS))
    torch.save({"model": official_state(mine)}, tmp_path / "official.pth")
    state = weights.read(tmp_path / "official.pth").state
    assert convert.identify(state) == "dfine-official"
    assert state["decoder.reg_scale"].item() == state["decoder.decoder.reg_scale"].item() == 8
    places = mine.config.input.height // 16, mine.config.input.height // 32
    assert state["decoder.anchors"].shape == (1, places[0] ** 2 + places[1] ** 2, 4)
    save_model(mine, tmp_path / "hf", "hf")
    save_model(load_model(str(tmp_path / "hf")), tmp_path / "again.safetensors")
    again = load_model(str(tmp_path / "again.safetensors"))
    back = convert.to_ours(state, "dfine-official")
    assert back.keys() == again.state_dict().keys() == mine.state_dict().keys()
    for name, tensor in mine.state_dict().items():
        assert torch.equal(back[name], tensor) and torch.equal(again.state_dict()[name], tensor)


@pytest.mark.parametrize("name", ["dfine-n", "dfine-s", "dfine-m", "dfine-l", "dfine-x"])
def test_presets_survive_the_way_through_config_json(name):
    config = preset(name)
    written = json.loads(json.dumps(hugging_face.config_of(config.model_dump(mode="json"), Classes.from_names("ab"))))
    back = validated(DFINEConfig, hugging_face.model_of(written, "config.json"), "config.json")
    learning = config.backbone.model_copy(update={"frozen_stages": 0})  # transformers has no word for that
    assert back == config.model_copy(update={"backbone": learning})


@pytest.mark.parametrize("size", hgnetv2.SIZES)
def test_sizes_of_the_backbone_are_those_of_ours(size):
    config = HGNetv2Config(size=size, stages=(2, 3))
    lists = hgnetv2.config_of(config.model_dump(mode="json"))
    assert hgnetv2.backbone_of(lists, "config.json")["size"] == size
    assert hgnetv2.channels_of(config.model_dump(mode="json")) == list(config.channels)
    assert hgnetv2.strides_of(config.model_dump(mode="json")) == list(config.strides)
    if len(lists["stage_num_blocks"]) < 4:
        return  # transformers' stem and stages are for four
    whole = HGNetv2Config(size=size, affine=True)
    lists = hgnetv2.config_of(whole.model_dump(mode="json"))
    with torch.device("meta"):
        network, mine = transformers.HGNetV2Backbone(transformers.HGNetV2Config(**lists)), HGNetv2(whole)
    shapes = sorted(tuple(tensor.shape) for tensor in network.state_dict().values())
    assert shapes == sorted(tuple(tensor.shape) for tensor in mine.state_dict().values())


@pytest.mark.parametrize(
    "setting",
    [{"layer_scale": 2}, {"learn_initial_query": True}, {"decoder_activation_function": "silu"}, {"eval_idx": 2}],
)
def test_settings_that_our_network_lacks_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        hugging_face.model_of({"model_type": "d_fine", "backbone_config": B0, **setting}, "config.json")


def test_what_transformers_lacks_is_refused():
    model = preset("deim-dfine-n").model_dump(mode="json")
    with pytest.raises(InputError, match=r"decoder.activation 'silu', only 'relu'"):
        hugging_face.config_of(model, Classes.from_names("ab"))
    other = preset("rtdetr-r18").backbone.model_dump(mode="json")
    with pytest.raises(InputError, match="not on resnet"):
        hugging_face.config_of(
            preset("dfine-n").model_dump(mode="json") | {"backbone": other}, Classes.from_names("ab")
        )
