"""transformers' RT-DETR as a second opinion: its random weights, by our tables, give its outputs in our network.

Images are square: on others transformers lays out the encoder's position table otherwise than the authors and we do.
"""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from detr import convert, hugging_face, weights
from detr.classes import Classes
from detr.config import validated
from detr.errors import InputError
from detr.image import InputConfig, prepare
from detr.models import build_model
from detr.models.postprocess import select
from detr.models.rtdetr import RTDETRConfig
from detr.models.saving import save_model
from detr.records import Output, Predictions
from tests.models.second_opinion import difference, pictures, shake

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import is not what is tested here
    transformers = pytest.importorskip("transformers", minversion="5")

KINDS = {
    "rt_detr": ("rt_detr-hf", "RTDetrConfig", "RTDetrForObjectDetection"),
    "rt_detr_v2": ("rt_detr_v2-hf", "RTDetrV2Config", "RTDetrV2ForObjectDetection"),
}
SMALL = {
    "encoder_hidden_dim": 32,
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "decoder_in_channels": [32] * 3,
    "decoder_layers": 2,
    "hidden_expansion": 0.5,
    "num_queries": 20,
    "num_labels": 5,
}


def basic(**more):
    backbone = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [16, 32, 64, 128]}
    return SMALL | {"backbone_config": _backbone(backbone), "encoder_in_channels": [32, 64, 128]} | more


def bottleneck(**more):
    backbone = {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]}
    return SMALL | {"backbone_config": _backbone(backbone), "encoder_in_channels": [128, 256, 512]} | more


def _backbone(settings):
    stages = {"out_features": ["stage2", "stage3", "stage4"], "embedding_size": 16}
    return {"model_type": "rt_detr_resnet", **stages, **settings}


def theirs(kind, settings):
    _, config, network = KINDS[kind]
    network = getattr(transformers, network)(getattr(transformers, config)(**settings)).eval()
    shake(network)
    return network


def ours(network, kind):
    """Our network with the weights of theirs."""
    settings = network.config.to_dict()
    config = validated(RTDETRConfig, hugging_face.model_of(settings, "config.json"), "config.json")
    classes = Classes.from_names(f"class {n}" for n in range(network.config.num_labels))
    mine = build_model(config, classes=classes).eval()
    mine.load_state_dict(convert.to_ours(network.state_dict(), KINDS[kind][0]))
    return mine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [basic(freeze_backbone_batch_norms=False), bottleneck()], ids=["r18", "r50"])
def test_outputs_agree_with_transformers(kind, settings):
    network = theirs(kind, settings)
    assert difference(network, ours(network, kind), pictures(128)) < 1e-5


def test_discrete_sampling_agrees_with_transformers():
    network = theirs("rt_detr_v2", basic(decoder_method="discrete"))
    assert difference(network, ours(network, "rt_detr_v2"), pictures(128)) < 1e-5


@pytest.mark.parametrize("size", [(48, 64), (31, 65), (7, 300), (640, 640)])
def test_pictures_become_what_their_processor_makes_of_them(size):
    """To a level of 255 at most: it resizes by torchvision, we as the authors by Pillow."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = transformers.RTDetrImageProcessor()
    expected = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    assert (prepare(image, InputConfig()) - expected).abs().max() < 1.01 / 255


@pytest.mark.parametrize("conf", [0.0, 0.5])
def test_answers_become_what_their_processor_makes_of_them(conf):
    logits, boxes, sizes = 3 * torch.randn(2, 6, 5), torch.rand(2, 6, 4), [(40, 70), (300, 20)]
    answer = SimpleNamespace(logits=logits, pred_boxes=boxes)
    expected = transformers.RTDetrImageProcessor().post_process_object_detection(answer, conf, sizes)
    found = select(Output((Predictions(logits, boxes),)), sizes, conf=conf, max_det=6)
    for theirs, mine in zip(expected, found, strict=True):
        assert theirs["labels"].tolist() == mine.labels.tolist()
        torch.testing.assert_close(theirs["scores"], mine.scores)
        torch.testing.assert_close(theirs["boxes"], mine.boxes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_says_everything(kind, tmp_path):
    network = theirs(kind, basic(id2label={0: "cat", 1: "dog"}, num_labels=2))
    network.save_pretrained(tmp_path)
    checkpoint = weights.read(tmp_path)
    assert checkpoint.classes == Classes.from_names(["cat", "dog"])
    assert convert.identify(checkpoint.state) == KINDS[kind][0]
    mine = build_model(validated(RTDETRConfig, checkpoint.model, "config.json"), classes=checkpoint.classes).eval()
    mine.load_state_dict(convert.to_ours(checkpoint.state, KINDS[kind][0]))
    assert difference(network, mine, pictures(128)) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_folder_we_write(kind, tmp_path):
    mine = ours(theirs(kind, basic(freeze_backbone_batch_norms=False)), kind)
    save_model(mine, tmp_path, "hf")
    kind_of_network = getattr(transformers, KINDS[kind][2])
    network, report = kind_of_network.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert difference(network.eval(), mine, pictures(128)) < 1e-5
    assert network.config.id2label == mine.classes.as_dict()
    processor = transformers.RTDetrImageProcessor.from_pretrained(tmp_path)
    assert (processor.size["height"], processor.size["width"]) == (640, 640)
    assert not processor.do_normalize


def test_their_configuration_survives_the_way_to_ours_and_back():
    for kind, (_, config, _) in KINDS.items():
        for settings in (basic(), bottleneck()):
            given = getattr(transformers, config)(**settings).to_dict()
            model = validated(RTDETRConfig, hugging_face.model_of(given, "config.json"), "config.json")
            classes = hugging_face.classes_of(given, "config.json")
            written = json.loads(json.dumps(hugging_face.config_of(model.model_dump(mode="json"), classes)))
            back = getattr(transformers, config)(**written).to_dict()
            names = set(given) - {"transformers_version", "architectures", "dtype", "backbone_config"}
            assert {name for name in names if given[name] != back[name]} == set()
            assert given["model_type"] == kind


@pytest.mark.parametrize(
    "setting", [{"normalize_before": True}, {"learn_initial_query": True}, {"decoder_activation_function": "gelu"}]
)
def test_settings_that_our_network_lacks_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        hugging_face.model_of({"model_type": "rt_detr", **setting}, "config.json")
