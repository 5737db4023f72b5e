import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detr import weights
from detr.backbones.hgnetv2 import HGNetv2Config
from detr.backbones.resnet import ResNetConfig
from detr.backbones.vit import ViT
from detr.classes import Classes
from detr.config import validated
from detr.convert import TABLES, identify, source_for, to_ours, to_theirs
from detr.errors import UsageError
from detr.models import build_model, load_model, preset
from detr.models.deimv2 import DEIMv2Config, DEIMv2Network, WholeEncoderConfig
from detr.models.derived import derived_state
from detr.models.fine_grained_decoder import FineGrainedConfig
from detr.models.lite_encoder import LiteEncoderConfig
from detr.models.saving import official_state

GOLDEN = Path(__file__).parent.parent / "golden"
IMAGES = torch.rand(3, 3, 32, 64)
CLASSES = Classes.from_names(["cat", "dog", "bird"])

# Intellindust-AI-Lab/DEIMv2 at 0fff8d4: all entries, SHA-256 of their sorted `name shape` lines, and parameters,
# without two that are settings and the mask token of DINOv3's pretraining.
OFFICIAL = {
    "deimv2-atto": (493, "aa7193441c0ee3f0182dde5a0a40b629e7c9959b4d9f8bfb69b18a3083f5b730", 508983),
    "deimv2-femto": (493, "4b7aee6e888ac0c3c8eba961203621bb453217d46c4905226d881b66377195c2", 983943),
    "deimv2-pico": (551, "76354a63fcb51f11bbf3429bfba091b6ee7e5a36c2083454bd9d8c66a9994196", 1539537),
    "deimv2-n": (639, "ae40f1b585d2188a5372a954177135924c7d95dd7c5a67210580d55130c46d1f", 3600419),
    "deimv2-s": (673, "9bbfdbe5ea51047c34626ba07c6062485223e62fdd345c39bff5529fd07fe23d", 9779836),
    "deimv2-m": (769, "5e0a43bcca9638fa6734ce65ff0e6b1faeea8cad05bb378d5d2e05359b16108b", 18357748),
    "deimv2-l": (809, "822cbe489d2f95cd253e19c1298f239ad7a34770e60f44859543d92a662b91f2", 32550828),
    "deimv2-x": (989, "4536ead10b4e3dd4844201756aec21a383d9aa06b9e3f7c44d3130e3bbf8d87e", 51211350),
}


def decoder(points):
    return FineGrainedConfig(channels=16, heads=2, hidden=12, num_layers=3, points=points)


def config(**settings):
    return DEIMv2Config(**{"num_queries": 7, "num_denoising": 4, **settings})


def lite():
    return config(
        backbone=HGNetv2Config(size="Atto", affine=True, stages=(3,)),
        encoder=LiteEncoderConfig(channels=16),
        decoder=decoder((2, 1)),
        gated=False,
        shared_boxes=True,
    )


def whole():
    return config(
        backbone=ResNetConfig(depth=10, width=8),
        encoder=WholeEncoderConfig(channels=24, heads=2, hidden=16, expansion=0.5, depth=0.34),
        decoder=decoder((2, 1, 1)),
    )


@pytest.fixture(params=[lite, whole])
def small(request):
    return DEIMv2Network(request.param(), CLASSES)


def settled(network):
    """In training with batch norms in evaluation, and heads away from zero, where they start."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for head in (*network.decoder.box_heads, *(each.head for each in network.decoder.quality_heads)):
        nn.init.normal_(head.layers[-1].weight, std=0.3)
    return network


def test_every_layer_predicts_with_edges_in_training_and_only_the_last_in_evaluation(small, targets):
    output = small(IMAGES, targets=targets)
    assert len(output.layers) == len(output.denoising.layers) == 3
    for part in (*output.layers, output.proposals, output.start):
        assert part.logits.shape == (3, 7, 3) and part.boxes.shape == (3, 7, 4)
    assert all(each.edges.logits.shape == (3, 7, 4, 33) for each in output.layers)
    assert len(small.eval()(IMAGES).layers) == 1


def test_positions_are_computed_once_of_the_selected_boxes(small):
    seen, chosen = [], []
    small.decoder.position_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    small.queries.register_forward_hook(lambda module, inputs, output: chosen.append(output.boxes))
    small(IMAGES)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], chosen[0].sigmoid())


def test_the_content_of_the_queries_is_the_memory_itself(small):
    chosen, memories = [], []
    small.queries.register_forward_hook(lambda module, inputs, output: chosen.append(output))
    small.queries.register_forward_hook(lambda module, inputs, output: memories.append(inputs[0]))
    small(IMAGES)
    places = chosen[0].positions[..., None].expand(-1, -1, 16)
    torch.testing.assert_close(chosen[0].content, memories[0].tokens.gather(1, places))


def test_the_smallest_sizes_have_one_box_head_and_no_gate():
    network = DEIMv2Network(lite(), CLASSES)
    assert len(network.decoder.box_heads) == 1 and len(network.decoder.score_heads) == 3
    assert all(layer.gate is None for layer in network.decoder.layers)
    others = DEIMv2Network(whole(), CLASSES)
    assert len(others.decoder.box_heads) == 3 and all(layer.gate is not None for layer in others.decoder.layers)


@pytest.mark.parametrize("size", [(64, 64), (65, 37), (8, 200), (1, 1)])
def test_any_size_works(small, size):
    answer = small.eval()(torch.rand(1, 3, *size)).layers[-1]
    assert answer.boxes.isfinite().all() and answer.logits.isfinite().all()


@pytest.mark.parametrize("given", ["some", "empty", "none"])
def test_every_parameter_gets_a_gradient_with_and_without_targets(small, targets, given):
    some = {"some": targets, "empty": [targets[2]] * 3, "none": None}[given]
    output = small(IMAGES, targets=some)
    parts = [*output.layers, output.proposals, output.start, *(output.denoising.layers if output.denoising else ())]
    sum(part.logits.square().sum() + part.boxes.square().sum() for part in parts).backward()
    assert [name for name, parameter in small.named_parameters() if parameter.grad is None] == []


def test_mixed_precision_trains_without_a_warning(small, targets):
    with torch.autocast("cpu", torch.bfloat16):
        output = small.train()(IMAGES, targets=targets)
    assert output.layers[-1].boxes.dtype == torch.float32


def test_the_deployed_form_gives_the_same_with_fewer_parts(small):
    network = settled(small).double().eval()
    deployed = network.deploy()
    expected, found = network(IMAGES.double()).layers[-1], deployed(IMAGES.double()).layers[-1]
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-12)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    names = "".join(deployed.state_dict())
    assert "decoder.score_heads.2" in names and "decoder.score_heads.0" not in names and "denoising" not in names


def test_without_the_heads_of_the_first_layers_no_fewer_layers_can_be_run(small):
    small.eval().set_layers(2)
    deployed = small.deploy()
    deployed.set_layers(2)
    for count in (1, 3):
        with pytest.raises(UsageError, match=f"{count} decoder layers: expected 2, the only number left"):
            deployed.set_layers(count)


def test_a_file_without_what_only_training_needs_answers_the_same(small, tmp_path):
    whole_one = settled(small).eval()
    source = "deimv2-lite-official" if whole_one.config.shared_boxes else "deimv2-official"
    state = to_theirs(whole_one.state_dict(), source)
    for name in list(state):
        if "denoising" in name or any(f"{part}.{layer}." in name for part in PARTS for layer in (0, 1)):
            del state[name]
    path = tmp_path / "exported.safetensors"
    ours = to_ours(state, source)
    weights.write(path, ours, model=whole_one.config.model_dump(mode="json"), classes=CLASSES)
    loaded = load_model(str(path))
    torch.testing.assert_close(loaded(IMAGES).layers[-1].logits, whole_one(IMAGES).layers[-1].logits)
    assert loaded.denoising is None and len(list(loaded.parameters())) < len(list(whole_one.parameters()))


PARTS = ("lqe_layers", "dec_score_head")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder": {"kind": "lite"}}, "lite takes one level, the backbone gives 2"),
        ({"decoder": {"points": [6, 6, 6]}}, "decoder.points is for 3 levels, the encoder gives 2"),
        ({"encoder": {"heads": 7}}, "encoder.channels 256 can't be shared among 7 heads"),
        ({"input": {"resize": "short side"}}, "this one needs 'stretch'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        validated(DEIMv2Config, settings, "recipe")


@pytest.mark.parametrize("name", OFFICIAL)
def test_names_shapes_and_parameters_are_the_official_ones(name):
    entries, sha, parameters = OFFICIAL[name]
    with torch.device("meta"):
        network = build_model(name)
    theirs = official_state(network)
    rows = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in theirs.items())
    assert (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest()) == (entries, sha)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert identify(theirs) == source_for(network.config, "official")


@pytest.fixture(scope="module")
def atto(fill):
    """Weights by rule, as recorded: scales of affine activations lie around one, and one head has the last name's."""
    network = build_model("deimv2-atto").double().eval()
    theirs = to_theirs(network.state_dict(), "deimv2-lite-official")
    state = fill.filled_state({name: tuple(tensor.shape) for name, tensor in theirs.items()})
    for name in state:
        if name.endswith(".lab.scale"):
            state[name] += 1
        if name.startswith("decoder.dec_bbox_head."):
            state[name] = state["decoder.dec_bbox_head.2." + name.split(".", 3)[3]]
    network.load_state_dict(to_ours(state, "deimv2-lite-official"))
    return network, fill.image(7, 2, 320, 320), dict(np.load(GOLDEN / "deimv2-atto.npz"))


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours, torch.from_numpy(theirs).to(ours.dtype), rtol=0, atol=tolerance)


@torch.no_grad()
def test_atto_gives_the_official_numbers_all_the_way(atto):
    network, images, golden = atto
    seen = {}
    for part in ("backbone", "encoder", "queries"):
        keep = lambda module, inputs, output, part=part: seen.update({part: output})  # noqa: E731
        network.get_submodule(part).register_forward_hook(keep)
    answer = network(images).layers[-1]
    for room in ("backbone", "encoder"):
        for level, each in enumerate(seen[room]):
            close(each.mean((1, 2, 3)), golden[f"{room}{level}_mean"], 1e-12)
            close(each.std((1, 2, 3), correction=0), golden[f"{room}{level}_std"], 1e-12)
            close(each.mean((2, 3)), golden[f"{room}{level}_channel_mean"], 1e-12)
    close(seen["queries"].positions, golden["topk_indices"], 0)
    close(seen["queries"].proposals.logits.amax(-1), golden["topk_scores"], 1e-12)
    close(answer.logits[:, :16], golden["pred_logits"], 2e-6)
    close(answer.boxes, golden["pred_boxes"], 4e-7)


@torch.no_grad()
def test_atto_in_training_gives_the_official_boxes_edges_and_start(atto):
    network, images, golden = atto
    for module in network.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    output = network(images)
    network.eval()
    for index, layer in enumerate(output.layers):
        close(layer.boxes[:, :32], golden["layers_boxes"][index], 4e-7)
        close(layer.edges.logits[:, :4].flatten(-2), golden["layers_corners_first4"][index], 1e-9)
    close(output.start.boxes[:, :32], golden["pre_boxes"], 4e-7)
    close(output.proposals.boxes[:, :32], golden["enc_topk_boxes"], 4e-7)


@pytest.mark.parametrize(
    ("name", "source", "tolerance"),
    [("s", "deimv2-vit-official", 1e-12), ("x", "deimv2-dinov3-official", 1e-6)],  # DINOv3 turns in float32
)
@torch.no_grad()
def test_maps_are_the_official_ones_for_weights_by_rule(fill, name, source, tolerance):
    config = preset(f"deimv2-{name}")
    network = ViT(config.backbone).double().eval()
    ours = {f"backbone.{key}": tensor for key, tensor in network.state_dict().items()}
    theirs = to_theirs(ours, source)
    state = fill.filled_state({key: tuple(tensor.shape) for key, tensor in theirs.items()})
    state |= {key: tensor + 1 for key, tensor in state.items() if key.endswith(".gamma")}
    loaded = to_ours(state | derived_state(config, TABLES[source]), source)
    network.load_state_dict({key.removeprefix("backbone."): tensor for key, tensor in loaded.items()})
    golden = np.load(GOLDEN / "vit.npz")
    for level, each in enumerate(network(fill.image(7, 1, 96, 64))):
        expected = torch.from_numpy(golden[f"{name}{level}_channel_mean"])
        torch.testing.assert_close(each.mean((2, 3)), expected, rtol=0, atol=tolerance)
        expected = torch.from_numpy(golden[f"{name}{level}_corner"])
        torch.testing.assert_close(each[:, :8, :4, :4], expected, rtol=0, atol=tolerance)
