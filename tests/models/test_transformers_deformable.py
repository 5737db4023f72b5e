"""transformers' Deformable DETR as a second opinion: its random weights, by our tables, give its outputs in ours."""

import json
import warnings

import pytest
import torch

from detr import convert, hugging_face, weights
from detr.classes import Classes
from detr.config import validated
from detr.errors import InputError
from detr.models import build_model
from detr.models.deformable_detr import DeformableDETRConfig
from detr.models.saving import save_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import is not what is tested here
    transformers = pytest.importorskip("transformers", minversion="5")

VARIANTS = {
    "deformable_detr-hf": {},
    "deformable_detr-refine-hf": {"with_box_refine": True},
    "deformable_detr-two-stage-hf": {"with_box_refine": True, "two_stage": True},
}
every = pytest.mark.parametrize("source", VARIANTS)


def theirs(source, **changes):
    settings = {
        "d_model": 32,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 40,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "encoder_layers": 2,
        "encoder_n_points": 2,
        "num_queries": 11,
        "two_stage_num_proposals": 11,
        "num_labels": 5,
        "backbone_config": {
            "model_type": "resnet",
            "layer_type": "basic",
            "depths": [2, 2, 2, 2],
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 32, 64],
            "out_features": ["stage2", "stage3", "stage4"],
        },
    }
    config = transformers.DeformableDetrConfig(**settings | VARIANTS[source] | changes)
    network = transformers.DeformableDetrForObjectDetection(config).eval()
    shake(network)
    return network


@torch.no_grad()
def shake(network):
    """Weights with which the signal neither dies nor explodes, and nothing is zero or one by default."""
    for name, tensor in network.named_parameters():
        if tensor.dim() > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5)
        elif name.endswith("weight"):
            tensor.uniform_(0.8, 1.2)
        elif not name.endswith("sampling_offsets.bias"):
            tensor.normal_(0, 0.1)
    for name, tensor in network.named_buffers():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)


def ours(network, source):
    """Our network with the weights of theirs."""
    model = hugging_face.model_of(network.config.to_dict(), "config.json")
    classes = Classes.from_names(f"class {n}" for n in range(network.config.num_labels))
    mine = build_model(validated(DeformableDETRConfig, model, "config.json"), classes=classes).eval()
    mine.load_state_dict(convert.to_ours(network.state_dict(), source))
    return mine


def pictures():
    """Two of different size, neither square, with the padding of the smaller one."""
    sizes = ((96, 160), (128, 100))
    blobs = torch.nn.functional.interpolate(torch.randn(2, 3, 5, 7), size=(128, 160), mode="bilinear")
    padding = torch.ones(2, 128, 160, dtype=torch.bool)
    for index, (height, width) in enumerate(sizes):
        padding[index, :height, :width] = False
    return (blobs + 0.5 * torch.rand_like(blobs)).masked_fill(padding[:, None], 0), padding


@torch.no_grad()
def difference(network, mine, images, padding):
    given = torch.zeros(2, 128, 160, dtype=torch.bool) if padding is None else padding
    expected = network(images, pixel_mask=(~given).long())
    answer = mine(images, padding).layers[-1]
    assert expected.logits.std() > 0.1 and expected.pred_boxes.std() > 0.01
    logits, boxes = answer.logits - expected.logits, answer.boxes - expected.pred_boxes
    return max(float(logits.abs().max()), float(boxes.abs().max()))


@every
@pytest.mark.parametrize("padded", [False, True])
def test_outputs_agree_with_transformers(source, padded):
    network = theirs(source)
    images, padding = pictures()
    assert difference(network, ours(network, source), images, padding if padded else None) < 1e-4


@every
def test_a_saved_folder_says_everything(source, tmp_path):
    network = theirs(source, id2label={0: "cat", 1: "N/A", 2: "dog"}, num_labels=3)
    network.save_pretrained(tmp_path)
    checkpoint = weights.read(tmp_path)
    assert checkpoint.classes == Classes((0, 2), ("cat", "dog"))
    assert convert.identify(checkpoint.state) == source
    config = validated(DeformableDETRConfig, checkpoint.model, "config.json")
    mine = build_model(config, classes=checkpoint.classes).eval()
    mine.load_state_dict(convert.to_ours(checkpoint.state, source))
    assert difference(network, mine, *pictures()) < 1e-4


@every
def test_files_of_the_hub_have_the_backbone_by_its_names_in_timm(source):
    fields = dict(convert.TABLES[source].fields)
    name = f"deformable-detr-r50{'-two-stage' if fields['two_stage'] else '-refine' if fields['refine'] else ''}"
    with torch.device("meta"):
        state = build_model(name).state_dict()
    hub = {key: each for key, each in convert.to_theirs(state, source).items() if ".backbone." not in key}
    official = convert.to_theirs(state, source.replace("-hf", "-official"))
    prefix = "backbone.0.body."
    hub |= {
        key.replace(prefix, "model.backbone.conv_encoder.model."): each
        for key, each in official.items()
        if key.startswith(prefix)
    }
    assert convert.identify(hub) == source
    hub = {key: torch.zeros(1).expand(each.shape) for key, each in hub.items()}
    ours = {key: each.shape for key, each in convert.to_ours(hub, source).items()}
    assert ours == {key: each.shape for key, each in state.items()}


@every
def test_transformers_loads_the_folder_we_write(source, tmp_path):
    mine = ours(theirs(source), source)
    with torch.no_grad():
        for head in mine.by_class():
            head.weight.normal_(0, 0.2)  # of each layer its own, where there are several
    save_model(mine, tmp_path, "hf")
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "DeformableDetrImageProcessor"  # whose scores are sigmoids
    network, report = transformers.DeformableDetrForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert difference(network.eval(), mine, *pictures()) < 1e-4


def test_their_configuration_survives_the_way_to_ours_and_back():
    for settings in VARIANTS.values():
        given = transformers.DeformableDetrConfig(**settings, attention_dropout=0.1, activation_dropout=0.1)
        model = validated(DeformableDETRConfig, hugging_face.model_of(given.to_dict(), "config.json"), "config.json")
        classes = hugging_face.classes_of(given.to_dict(), "config.json")
        written = json.loads(json.dumps(hugging_face.config_of(model.model_dump(mode="json"), classes)))
        back = transformers.DeformableDetrConfig(**written).to_dict()
        names = set(given.to_dict()) - {"transformers_version", "architectures", "dtype", "backbone_config"}
        assert {name for name in names if given.to_dict()[name] != back[name]} == set()


@pytest.mark.parametrize(
    "setting", [{"activation_function": "gelu"}, {"position_embedding_type": "learned"}, {"num_feature_levels": 1}]
)
def test_settings_that_our_network_lacks_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        hugging_face.model_of({"model_type": "deformable_detr", **setting}, "config.json")
