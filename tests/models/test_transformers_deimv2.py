"""transformers' DEIMv2 as a second opinion, once it is set to compute what the authors' does.

It embeds the memory before queries are selected, has ReLU in its heads, and computes positions anew for each layer:
here it is told not to.
"""

import math
import warnings

import pytest
import torch
from torch import nn

from detr import convert, hugging_face, weights
from detr.classes import Classes
from detr.config import validated
from detr.errors import InputError
from detr.models import build_model, load_model
from detr.models.deimv2 import DEIMv2Config
from detr.models.saving import save_model
from tests.models.second_opinion import difference, pictures

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import is not what is tested here
    transformers = pytest.importorskip("transformers", minversion="5.20")

SMALL = {
    "encoder_hidden_dim": 32,
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "decoder_activation_function": "silu",
    "decoder_layers": 3,
    "hidden_expansion": 0.34,
    "depth_mult": 0.5,
    "num_queries": 20,
    "num_labels": 5,
    "num_feature_levels": 2,
    "freeze_backbone_batch_norms": False,
}
SIZES = {"Atto": ([64, 256, 256], [3, 3, 3], [1, 1, 1]), "B0": ([64, 256, 512, 1024], [3, 3, 5, 5], [1, 1, 2, 1])}


def backbone(size, indices):
    outer, kernels, blocks = SIZES[size]
    count = len(outer)
    return {
        "model_type": "hgnet_v2",
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, *outer[:-1]],
        "stage_mid_channels": [16, 32, 64, 128][:count],
        "stage_out_channels": outer,
        "hidden_sizes": outer,
        "depths": [3] * count,
        "stage_num_blocks": blocks,
        "stage_downsample": [False, True, True, True][:count],
        "stage_light_block": [False, False, True, True][:count],
        "stage_kernel_size": kernels,
        "stage_numb_of_layers": [3] * count,
        "use_learnable_affine_block": True,
        "out_indices": indices,
    }


def lite():
    return SMALL | {
        "backbone_config": backbone("Atto", [3]),
        "encoder_type": "lite",
        "encoder_layers": 0,
        "encoder_in_channels": [256],
        "decoder_in_channels": [32, 32],
        "feat_strides": [16, 32],
        "decoder_n_points": [4, 2],
        "use_gateway": False,
        "share_bbox_head": True,
    }


def hybrid(**more):
    return SMALL | {
        "backbone_config": backbone("B0", [3, 4]),
        "encoder_in_channels": [512, 1024],
        "decoder_in_channels": [32, 32],
        "feat_strides": [16, 32],
        "encode_proj_layers": [1],
        "decoder_n_points": [6, 6],
        **more,
    }


KINDS = {"lite": lite, "hybrid": hybrid, "short": lambda: hybrid(encoder_has_trailing_conv=False)}


@torch.no_grad()
def theirs(settings):
    """transformers' network with weights under which the signal neither dies nor explodes."""
    network = transformers.Deimv2ForObjectDetection(transformers.Deimv2Config(**settings)).eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("num_points_scale", "reg_scale", "decoder.up")) or "enc_output" in name:
            continue
        elif tensor.dim() > 1:
            tensor.normal_(0, math.sqrt(1.2 / tensor[0].numel()))
        elif name.endswith(("weight", "lab.scale")):
            tensor.uniform_(0.8, 1.2)
        elif name.endswith("bias"):
            tensor.add_(torch.randn_like(tensor) * 0.1)
    linear, norm = network.model.enc_output
    nn.init.eye_(linear.weight), nn.init.zeros_(linear.bias), nn.init.zeros_(norm.bias)
    return network


def as_the_authors_do(network):
    model = network.model
    model.enc_output = nn.Identity()
    for heads in (model.enc_bbox_head, model.decoder.pre_bbox_head, *model.decoder.bbox_embed):
        heads.act = nn.SiLU()
    for layer in model.decoder.lqe_layers:
        layer.reg_conf.act = nn.SiLU()
    first = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: first.clear())
    model.decoder.query_pos_head.register_forward_hook(
        lambda module, inputs, output: first[0] if first else first.append(output)
    )
    return network


def ours(network):
    """Our network with the weights of theirs."""
    model = hugging_face.model_of(network.config.to_dict(), "config.json")
    classes = Classes.from_names(f"class {n}" for n in range(network.config.num_labels))
    mine = build_model(validated(DEIMv2Config, model, "config.json"), classes=classes).eval()
    state = network.state_dict()
    mine.load_state_dict(convert.to_ours(state, convert.identify(state)))
    return mine


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_agree_with_transformers(kind):
    network = theirs(KINDS[kind]())
    mine = ours(network)
    assert difference(as_the_authors_do(network), mine, pictures(128)) < 1e-4


@pytest.mark.parametrize("kind", ["lite", "hybrid"])
def test_transformers_loads_the_folder_we_write_and_we_load_its_own(kind, tmp_path):
    mine = ours(theirs(KINDS[kind]()))
    save_model(mine, tmp_path / "ours", "hf")
    network, report = transformers.Deimv2ForObjectDetection.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    network.eval().save_pretrained(tmp_path / "theirs")
    back = load_model(str(tmp_path / "theirs"))
    torch.testing.assert_close(back.state_dict(), mine.state_dict(), rtol=0, atol=0)
    assert back.config == mine.config
    assert difference(as_the_authors_do(network), mine, pictures(128)) < 1e-4


def test_a_layer_that_the_authors_have_not_is_refused_where_it_was_trained():
    state = theirs(lite()).state_dict()
    state["model.enc_output.0.bias"] = state["model.enc_output.0.bias"] + 0.1
    with pytest.raises(InputError, match=r"model\.enc_output\.0\.bias was trained"):
        convert.to_ours(state, "deimv2-lite-hf")


@pytest.mark.parametrize("setting", [{"normalize_before": True}, {"encoder_fuse_op": "cat"}, {"num_feature_levels": 3}])
def test_settings_that_our_network_lacks_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        hugging_face.model_of({"model_type": "deimv2", **hybrid(), **setting}, "config.json")


def test_a_folder_of_theirs_says_what_it_is(tmp_path):
    theirs(lite()).save_pretrained(tmp_path)
    checkpoint = weights.read(tmp_path)
    assert checkpoint.model["arch"] == "deimv2" and checkpoint.model["encoder"]["kind"] == "lite"
