import pytest

from detr import hugging_face
from detr.classes import COCO, Classes
from detr.errors import InputError
from detr.image import InputConfig


def config(**more):
    return {"model_type": "rt_detr", "id2label": {"0": "cat", "1": "dog"}} | more


def test_defaults_that_a_config_leaves_out_are_filled_in():
    model = hugging_face.model_of(config(), "config.json")
    assert model["version"] == 1
    assert model["backbone"] == {"depth": 50, "width": 64, "frozen_norms": True}
    assert model["decoder"] == {"channels": 256, "heads": 8, "hidden": 1024, "num_layers": 6, "points": [4, 4, 4]}


def test_version_two_has_points_per_level_and_discrete_sampling():
    settings = config(model_type="rt_detr_v2", decoder_n_points=[4, 2, 1], decoder_method="discrete")
    decoder = hugging_face.model_of(settings, "config.json")["decoder"]
    assert decoder["points"] == [4, 2, 1]
    assert decoder["sampling"] == "discrete"


def test_another_model_type_is_none_of_ours():
    assert hugging_face.model_of(config(model_type="yolos"), "config.json") is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"normalize_before": True}, "normalize_before True"),
        ({"learn_initial_query": True}, "learn_initial_query"),
        ({"decoder_activation_function": "gelu"}, "'gelu' is not supported, only 'relu'"),
        ({"backbone_config": {"downsample_in_bottleneck": True}}, "downsample_in_bottleneck"),
        ({"backbone_config": {"depths": [3, 8, 36, 3]}}, r"none of ResNet-vd \[10, 18, 34, 50, 101\]"),
        ({"backbone_config": {"hidden_sizes": [64, 64, 64, 64]}}, "hidden_sizes"),
    ],
)
def test_settings_that_our_network_lacks_are_named(setting, words):
    with pytest.raises(InputError, match=words):
        hugging_face.model_of(config(**setting), "config.json")


def test_the_processor_says_the_size_of_the_input_and_its_normalisation():
    assert hugging_face.input_of({"size": {"height": 320, "width": 512}}, "x") == {"height": 320, "width": 512}
    for settings in (
        {"height": 320, "width": 512},
        {"height": 640, "width": 640, "mean": [0.5] * 3, "std": [0.2] * 3},
        {"resize": "short side", "short": 480, "long": 600},
        {"resize": "short side", "short": 800, "long": 1333, "mean": [0.5] * 3, "std": [0.2] * 3},
    ):
        model = {"arch": "detr", "input": InputConfig(**settings).model_dump(mode="json")}
        assert hugging_face.input_of(hugging_face.processor_of(model), "x") == settings
        assert hugging_face.processor_of(model)["image_processor_type"] == "DetrImageProcessor"


def test_processors_of_the_first_versions_are_read():
    normalised = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    given = {"do_resize": True, "size": 800, "max_size": 1333, "image_mean": [0.485, 0.456, 0.406]}
    assert hugging_face.input_of(given, "x") == {"resize": "short side", "short": 800, "long": 1333, **normalised}


@pytest.mark.parametrize("processor", [{"size": {"shortest_edge": 800}}, {"do_rescale": False}, {"resample": 3}])
def test_a_processor_that_does_otherwise_is_refused(processor):
    with pytest.raises(InputError, match=next(iter(processor))):
        hugging_face.input_of(processor, "preprocessor_config.json")


def test_labels_become_classes_in_the_order_of_their_indices():
    assert hugging_face.classes_of({"id2label": {"1": "dog", "0": "cat"}}, "x") == Classes.from_names(["cat", "dog"])
    assert hugging_face.classes_of({"id2label": dict(enumerate(COCO.names))}, "x") == COCO
    assert hugging_face.classes_of({}, "x") is None


def test_places_without_a_class_are_left_out_and_the_others_keep_theirs():
    labels = {"0": "N/A", "1": "cat", "2": "N/A", "3": "dog"}
    classes = hugging_face.classes_of({"id2label": labels}, "x")
    assert classes == Classes((1, 3), ("cat", "dog"))
    written = hugging_face.labels_of(classes, classes.ids)
    assert written == {"id2label": labels, "label2id": {"cat": 1, "dog": 3}}
    by_id = dict(zip(COCO.ids, COCO.names, strict=True))
    assert hugging_face.classes_of({"id2label": {n: by_id.get(n, "N/A") for n in range(91)}}, "x") == COCO


@pytest.mark.parametrize("labels", [{"0": "cat", "2": "dog"}, {"x": "cat"}, ["cat"], {"0": "cat", "1": "cat"}])
def test_broken_label_tables_are_refused(labels):
    with pytest.raises(InputError):
        hugging_face.classes_of({"id2label": labels}, "config.json")
