"""DETR and its kin equal the official code: the same weights and images by rule, the recorded outputs.

See tests/golden/README.md. Sine tables are float32 here and there; the last bit of a sine differs between machines,
which moves logits by 1e-8 at most. All else agrees to the rounding of float64.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detr.convert import source_for, to_ours, to_theirs
from detr.models import build_model, preset
from detr.models.likeness import presets_like

GOLDEN = Path(__file__).parent.parent / "golden"
OFFICIAL = json.loads((GOLDEN / "official_names_detr.json").read_text())


def empty(config):
    with torch.device("meta"):
        return build_model(config)


@pytest.mark.parametrize("name", OFFICIAL)
def test_names_shapes_and_what_learns_are_the_official_ones(name):
    network = empty(name)
    state = to_theirs(network.state_dict(), source_for(network.config, "official"))
    rows = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    assert {
        "entries": len(rows),
        "sha256": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
        "parameters": sum(count for count, _ in counts),
        "learnable": sum(count for count, learns in counts if learns),
    } == OFFICIAL[name]
    same = {name, f"{name}-dc5", name.removesuffix("-dc5")}  # dilation has no weights
    assert set(presets_like(network.state_dict(), arch=network.config.arch)) - same == set()


@pytest.fixture(scope="module")
def images(fill):
    """Two images of 192 x 256, the second padded below 160 and to the right of 224."""
    padding = torch.zeros(2, 192, 256, dtype=torch.bool)
    padding[1, 160:] = padding[1, :, 224:] = True
    return fill.image(20240601, 2, 192, 256).masked_fill(padding[:, None], 0), padding


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours.double(), torch.from_numpy(theirs), rtol=0, atol=tolerance)


@torch.no_grad()
def test_detr_gives_the_official_numbers_all_the_way(fill, images):
    config = preset("detr-r50").model_copy(update={"dropout": 0.0})
    network, golden = empty(config), dict(np.load(GOLDEN / "detr-r50.npz"))
    shapes = to_theirs(network.state_dict(), "detr-official")
    state = fill.filled_state({key: tuple(tensor.shape) for key, tensor in shapes.items()})
    state["query_embed.weight"] *= 128  # so that queries differ
    network.load_state_dict(to_ours(state, "detr-official"), assign=True)

    seen = {}
    for part in ("backbone", "encoder", "decoder.layers.5", "decoder.norm"):
        keep = lambda module, inputs, output, part=part: seen.update({part: output})  # noqa: E731
        network.get_submodule(part).register_forward_hook(keep)
    layers = network.train()(*images).layers
    map_, tokens = seen["backbone"][-1], seen["encoder"].tokens
    close(torch.stack([map_.mean(), map_.std(correction=0), map_.min(), map_.max()]), golden["backbone0_stats"], 1e-9)
    close(tokens[:, :7, :8], golden["memory_tokens32_ch8"][:, :7], 1e-7)  # the eighth is padding in the second image
    valid = [list(range(48)), [row * 8 + column for row in range(5) for column in range(7)]]
    last = torch.stack([each[places[-8:], :8] for each, places in zip(tokens, valid, strict=True)])
    close(last, golden["memory_last8valid_ch8"], 1e-7)
    close(seen["decoder.layers.5"][:, :4, :8], golden["dec_layer5_raw_q4_ch8"], 1e-7)
    close(seen["decoder.norm"][:, :4, :8], golden["hs5_q4_ch8"], 1e-7)
    for index, layer in enumerate(layers[:-1]):
        close(layer.boxes[:, :8], golden[f"aux{index}_boxes_q100"], 3e-9)
    close(layers[-1].logits[:, :8], golden["pred_logits"], 3e-8)
    close(layers[-1].boxes, golden["pred_boxes"], 3e-9)
