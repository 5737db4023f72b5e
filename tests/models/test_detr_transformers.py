"""transformers' DETR as a second opinion: its random weights, by our table, give its outputs in our network."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from detr import convert, hugging_face
from detr.config import validated
from detr.errors import InputError
from detr.image import DETR_INPUT, as_input, padded, resized
from detr.models import build_model, load_model
from detr.models.detr import DETRConfig
from detr.models.postprocess import Scoring, select
from detr.records import Output, Predictions
from tests.models.second_opinion import shake

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import is not what is tested here
    transformers = pytest.importorskip("transformers", minversion="5")

SMALL = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "num_queries": 7,
    "id2label": {"0": "N/A", "1": "cat", "2": "N/A", "3": "dog"},
    "label2id": {"cat": 1, "dog": 3},
}
BASIC = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [16, 32, 64, 128]}
BOTTLENECK = {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [32, 64, 128, 256]}


def settings(backbone, **more):
    width = backbone["hidden_sizes"][0] // (4 if backbone["layer_type"] == "bottleneck" else 1)
    own = {"model_type": "resnet", "embedding_size": width, "out_features": ["stage4"], **backbone}
    return SMALL | {"backbone_config": own, "use_timm_backbone": False} | more


def theirs(given):
    network = transformers.DetrForObjectDetection(transformers.DetrConfig(**given)).eval()
    shake(network)
    torch.nn.init.normal_(network.model.query_position_embeddings.weight, std=8)
    return network


def ours(network):
    """Our network with the weights of theirs."""
    given = network.config.to_dict()
    config = validated(DETRConfig, hugging_face.model_of(given, "config.json"), "config.json")
    mine = build_model(config, classes=hugging_face.classes_of(given, "config.json")).eval()
    mine.load_state_dict(convert.to_ours(network.state_dict(), "detr-hf"))
    return mine


def pictures(height, width):
    """Large soft blobs with noise, every place another, and the padding of two images of different size."""
    blobs = torch.nn.functional.interpolate(torch.randn(2, 3, 6, 6), size=(height, width), mode="bilinear")
    padding = torch.zeros(2, height, width, dtype=torch.bool)
    padding[0, :, width * 2 // 3 :] = padding[1, height // 2 :] = True
    images = blobs + 0.5 * torch.rand(2, 3, height, width)
    return images.masked_fill(padding[:, None], 0), padding


@torch.no_grad()
def difference(network, mine, images, padding):
    expected = network(images, pixel_mask=None if padding is None else (~padding).long())
    output = mine(images, padding).layers[-1]
    assert expected.logits.std(1).mean() > 0.05  # queries say different things
    return max(
        float((expected.logits - output.logits).abs().max()), float((expected.pred_boxes - output.boxes).abs().max())
    )


@pytest.mark.parametrize("backbone", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
def test_outputs_are_those_of_transformers_whatever_is_padded(backbone):
    network = theirs(settings(backbone))
    mine, (images, padding) = ours(network), pictures(100, 150)
    assert difference(network, mine, images, padding) < 1e-4
    assert difference(network, mine, images, None) < 1e-4
    assert difference(network, mine.deploy(), images, padding) < 1e-4


def test_pictures_of_different_sizes_are_batched_as_by_their_processor():
    """To a level of 255 at most: it resizes by torchvision, we as the authors by Pillow."""
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((48, 64), (64, 50))]
    processor = transformers.DetrImageProcessor(size={"shortest_edge": 40, "longest_edge": 60})
    expected = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    config = DETR_INPUT.model_copy(update={"short": 40, "long": 60})
    batch, padding = padded([resized(image, config) for image in images])
    assert torch.equal((~padding).long(), expected["pixel_mask"])
    assert (as_input(batch, padding, config) - expected["pixel_values"]).abs().max() < 1.01 / 255 / 0.224


@pytest.mark.parametrize("conf", [0.0, 0.3])
def test_answers_become_what_their_processor_makes_of_them(conf):
    logits, boxes, sizes = 2 * torch.randn(2, 7, 4), torch.rand(2, 7, 4), [(40, 70), (300, 20)]
    answer = SimpleNamespace(logits=logits, pred_boxes=boxes)
    expected = transformers.DetrImageProcessor().post_process_object_detection(answer, conf, sizes)
    found = select(Output((Predictions(logits, boxes),)), sizes, scoring=Scoring(exclusive=True), conf=conf)
    for theirs, mine in zip(expected, found, strict=True):
        order = theirs["scores"].argsort(descending=True)
        assert theirs["labels"][order].tolist() == mine.labels.tolist()
        torch.testing.assert_close(theirs["scores"][order], mine.scores)
        torch.testing.assert_close(theirs["boxes"][order], mine.boxes)


def test_a_folder_that_transformers_writes_is_read(tmp_path):
    network = theirs(settings(BASIC))
    network.save_pretrained(tmp_path)
    mine, (images, padding) = load_model(tmp_path / "model.safetensors"), pictures(96, 128)
    assert difference(network, mine, images, padding) < 1e-5
    assert (mine.classes.ids, mine.classes.names) == ((1, 3), ("cat", "dog"))


def test_transformers_reads_the_folder_we_write(tmp_path):
    mine = ours(theirs(settings(BOTTLENECK)))
    about = hugging_face.config_of(mine.config.model_dump(mode="json"), mine.classes)
    (tmp_path / "config.json").write_text(json.dumps(about))
    state = convert.to_theirs(mine.state_dict(), "detr-hf")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    network, report = transformers.DetrForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert difference(network.eval(), mine, *pictures(96, 128)) < 1e-5
    assert network.config.id2label == {0: "N/A", 1: "cat", 2: "N/A", 3: "dog"}


def test_their_configuration_survives_the_way_to_ours_and_back():
    same = {"dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1}
    for backbone in (BASIC, BOTTLENECK):
        given = transformers.DetrConfig(**settings(backbone, **same)).to_dict()
        model = validated(DETRConfig, hugging_face.model_of(given, "config.json"), "config.json")
        classes = hugging_face.classes_of(given, "config.json")
        written = json.loads(json.dumps(hugging_face.config_of(model.model_dump(mode="json"), classes)))
        back = transformers.DetrConfig(**written).to_dict()
        names = set(given) - {"transformers_version", "architectures", "dtype", "backbone_config"}
        assert {name for name in names if given[name] != back[name]} == set()


def timm(**more):
    return {"model_type": "detr", "use_timm_backbone": True, "backbone": "resnet50", **more}


def test_the_ways_in_which_files_on_the_hub_name_a_backbone_of_timm():
    newer = {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet101", "output_stride": 16}}
    for given, depth, dilated in (
        (timm(), 50, False),
        (timm(dilation=True, backbone="resnet101"), 101, True),
        ({"model_type": "detr", **newer}, 101, True),
    ):
        backbone = validated(DETRConfig, hugging_face.model_of(given, "x"), "x").backbone
        assert (backbone.depth, backbone.dilated_last, backbone.variant) == (depth, dilated, "b")


def test_a_dilated_model_is_written_with_a_backbone_of_timm():
    model = validated(DETRConfig, hugging_face.model_of(timm(dilation=True), "x"), "x")
    classes = hugging_face.classes_of({"id2label": SMALL["id2label"]}, "x")
    written = hugging_face.config_of(model.model_dump(mode="json"), classes)
    assert validated(DETRConfig, hugging_face.model_of(written, "x"), "x") == model


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (timm(position_embedding_type="learned"), "position_embedding_type 'learned'"),
        (timm(backbone="resnest50"), "backbone 'resnest50' is not supported, only resnet18"),
        (timm(backbone_config={"model_type": "swin"}), "of type 'swin'"),
        (timm(backbone_config={"model_type": "resnet"}, dilation=True), "dilation"),
        (timm(backbone_config={"model_type": "resnet", "depths": [1, 1, 1, 1]}), r"none of ResNet \[18, 34, 50, 101\]"),
        (timm(backbone_config={"model_type": "resnet", "embedding_size": 32}), "hidden_sizes"),
        (timm(backbone_config={"model_type": "resnet", "downsample_in_bottleneck": True}), "downsample_in_bottleneck"),
    ],
)
def test_settings_that_our_network_lacks_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        hugging_face.model_of(given, "config.json")
