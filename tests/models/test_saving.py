import hashlib

import pytest
import torch

from detr import convert, hugging_face, weights
from detr.classes import COCO, Classes
from detr.errors import InputError, UsageError
from detr.models import build_model, load_model
from detr.models.presets import preset
from detr.models.saving import hugging_face_state, official_state, save_model

CLASSES = Classes.from_names(["cat", "dog", "owl"])

# Number of tensors and SHA-256 of the sorted `name (shape)` lines of the files that transformers 4.53 saves.
FILES_OF_TRANSFORMERS = {
    "rtdetr-r18": (526, "a72b2f3b10d64ba0b9927f16389bc643"),
    "rtdetr-r34": (640, "f0969b4cd0aa2774b63a3911afb190b7"),
    "rtdetr-r50": (764, "04dffdcd2a7555ded7a5102cfe007adc"),
    "rtdetr-r101": (1019, "6827c40af676cb962ed407b33cf9ba8a"),
    "rtdetrv2-r18": (529, "656e55d856cc834153d535c66fe6c965"),
    "rtdetrv2-r34": (644, "2db675c975f1662c9803a6448d127488"),
    "rtdetrv2-r50": (770, "6c7ca0207fbd9df8bfe208c5a8b24d12"),
    "rtdetrv2-r101": (1025, "52fa270c0ac30ca126c192a85b5cd8b0"),
    "dfine-n": (644, "5c0cd18171ba84bee9ab4f015973c884"),
    "dfine-s": (764, "24c2c0d26411fad39ec8cafa517fc953"),
    "dfine-m": (1009, "47b0106b8dda2dfcefdf3d41a243d69f"),
    "dfine-l": (1197, "ecd4886b6152c7d8f24de3ecb6c2ed26"),
    "dfine-x": (1465, "3848cf27681ba0d52b582cef9e332b60"),
}


def small(version=1, **decoder):
    """A network that all three forms can hold; every tensor random."""
    base = preset("rtdetr-tiny")
    config = base.model_copy(
        update={
            "version": version,
            "encoder": base.encoder.model_copy(update={"depth": 1.0}),
            "decoder": base.decoder.model_copy(update=decoder),
        }
    )
    network = build_model(config, classes=CLASSES).eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 3)
    return network


def same(network, other):
    state, others = network.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(state[name], others[name]) for name in state)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("form", ["detr", "hf"])
def test_what_is_saved_loads_as_the_same_network(form, version, tmp_path):
    network = small(version)
    save_model(network, tmp_path / "out", form)
    loaded = load_model(str(tmp_path / "out"))
    assert same(network, loaded)
    assert loaded.classes == CLASSES
    assert loaded.config.version == version


@pytest.mark.parametrize("version", [1, 2])
def test_official_names_and_back_change_no_tensor(version, tmp_path):
    network = small(version)
    save_model(network, tmp_path / "official.pth", "official")
    state = weights.read(tmp_path / "official.pth").state
    source = "rtdetr-official" if version == 1 else "rtdetrv2-official"
    assert convert.identify(state) == source
    mine = convert.to_ours(state, source)
    assert mine.keys() == network.state_dict().keys()
    assert all(torch.equal(mine[name], tensor) for name, tensor in network.state_dict().items())


def test_the_official_way_through_ours_is_tensor_equal(tmp_path):
    save_model(build_model("rtdetr-tiny"), tmp_path / "first.pth", "official")
    save_model(load_model(str(tmp_path / "first.pth")), tmp_path / "ours.safetensors")
    save_model(load_model(str(tmp_path / "ours.safetensors")), tmp_path / "second.pth", "official")
    assert (tmp_path / "first.pth").read_bytes() == (tmp_path / "second.pth").read_bytes()


def test_version_two_carries_the_official_buffers():
    state = official_state(small(2, points=(4, 2, 1)))
    assert state["decoder.anchors"].shape == (1, 40 * 40 + 20 * 20 + 10 * 10, 4)
    assert state["decoder.valid_mask"].dtype == torch.bool
    scale = state["decoder.decoder.layers.2.cross_attn.num_points_scale"]
    assert scale.tolist() == [0.25] * 4 + [0.5] * 2 + [1.0]


@pytest.mark.parametrize("name", FILES_OF_TRANSFORMERS)
def test_hugging_face_s_files_get_their_names_and_shapes(name):
    config = preset(name)
    frozen = config.backbone.model_copy(update={"frozen_norms": True})  # as all models on the hub are configured
    with torch.device("meta"):
        network = build_model(config.model_copy(update={"backbone": frozen}))
    state = hugging_face_state(network)
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (len(lines), digest[:32]) == FILES_OF_TRANSFORMERS[name]
    source = convert.identify(state)
    assert source == convert.source_for(config, "hf")
    assert convert.to_ours(state, source).keys() == network.state_dict().keys()


def test_both_names_of_hugging_face_s_heads_are_read():
    network = small()
    state = hugging_face_state(network)
    heads = {name: tensor for name, tensor in state.items() if name.startswith("model.decoder.class_embed")}
    renamed = {name.removeprefix("model.decoder."): tensor for name, tensor in heads.items()}
    for named in (state | renamed, {name: state[name] for name in state.keys() - heads.keys()} | renamed):
        assert convert.to_ours(named, "rt_detr-hf").keys() == network.state_dict().keys()


def test_two_copies_of_a_head_that_differ_are_refused():
    state = hugging_face_state(small())
    with pytest.raises(InputError, match=r"two different tensors for decoder\.score_heads\.0\.bias"):
        convert.to_ours(state | {"class_embed.0.bias": torch.zeros(3)}, "rt_detr-hf")


def test_what_transformers_cannot_express_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"encoder\.depth"):
        save_model(build_model("rtdetr-tiny"), tmp_path / "out", "hf")
    with pytest.raises(InputError, match="levels of different points"):
        save_model(small(1, points=(4, 2, 1)), tmp_path / "out", "hf")
    for name in ("rtdetr-r18", "dfine-n", "deimv2-n"):
        with pytest.raises(InputError, match=r"slots 'id', only 'index'"):
            hugging_face.config_of(preset(name).model_dump(mode="json") | {"slots": "id"}, COCO)
    assert not (tmp_path / "out").exists()


def test_an_unknown_form_and_a_place_that_is_taken_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'official'"):
        save_model(small(), tmp_path / "out", "oficial")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="is a folder"):
        save_model(small(), tmp_path / "file", "hf")
