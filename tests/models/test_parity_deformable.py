"""Deformable DETR and DINO equal the official code: weights by rule, one padded image, the recorded outputs.

See tests/golden/README.md. Tables are float32 here and there, hence 2e-6 for logits and 4e-7 for boxes.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from detr.convert import source_for, to_ours, to_theirs
from detr.models import build_model, preset
from detr.models.denoising import Noised
from detr.records import Target

GOLDEN = Path(__file__).parent.parent / "golden"
LOGITS, BOXES = 2e-6, 4e-7
FRAMES = {  # seed, the frame, and what of it the image fills
    "deformable-detr-r50": (2108, (160, 416), (160, 224)),
    "deformable-detr-r50-two-stage": (2108, (160, 416), (160, 224)),
    "dino-r50-4scale": (3112, (256, 416), (256, 352)),
}
COUNTS = (3, 1)  # targets of the two images of the recorded denoising
BOXES_OF_TARGETS = (
    [[0.3, 0.4, 0.25, 0.35], [0.62, 0.55, 0.4, 0.5], [0.8, 0.2, 0.1, 0.15]],
    [[0.5, 0.5, 0.6, 0.8]],
)


@pytest.fixture(scope="module")
def recorded(fill):
    """Name -> network in training but without dropout, image, padding, recorded outputs."""

    @cache
    def of(name):
        config = preset(name)
        parts = {part: getattr(config, part).model_copy(update={"dropout": 0.0}) for part in ("encoder", "decoder")}
        network = build_model(config.model_copy(update=parts)).double()
        source = source_for(network.config, "official")
        shapes = {key: tuple(tensor.shape) for key, tensor in to_theirs(network.state_dict(), source).items()}
        one_head = not getattr(network.config, "refine", False)
        state = fill.filled_state({key: shapes[key] for key in {last_name(key, one_head) for key in shapes}})
        state = {key: state[last_name(key, one_head)] for key in shapes}
        if name == "deformable-detr-r50":
            state["query_embed.weight"] = state["query_embed.weight"] * 16  # so that queries differ
        network.load_state_dict(to_ours(state, source))
        seed, (height, width), (image_height, image_width) = FRAMES[name]
        padding = torch.ones(1, height, width, dtype=torch.bool)
        padding[:, :image_height, :image_width] = False
        image = fill.image(seed, 2, height, width)[1:].masked_fill(padding[:, None], 0)
        return network, image, padding, dict(np.load(GOLDEN / f"{name}.npz"))

    return of


def last_name(name, one_head):
    """The rule takes a tensor of several names by the last: the sixth of one head, or that without a prefix."""
    own = name.removeprefix("transformer.decoder.") if "_embed." in name else name
    return re.sub(r"^(class|bbox)_embed\.\d", r"\1_embed.5", own) if one_head else own


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours.detach().double(), torch.from_numpy(theirs).double(), rtol=0, atol=tolerance)


def close_memory(memory, golden):
    close(memory.tokens[:, :32, :8].masked_fill(memory.padding[:, :32, None], 0), golden["memory_tokens32_ch8"], LOGITS)
    close(memory.tokens[~memory.padding][None, -8:, :8], golden["memory_last8valid_ch8"], LOGITS)


def close_layers(layers, golden):
    for index, layer in enumerate(layers[:-1]):
        name = next(key for key in golden if key.startswith(f"aux{index}_boxes"))
        close(layer.boxes[:, :8], golden[name], BOXES)
    logits = next(golden[key] for key in golden if key.startswith("pred_logits"))
    close(layers[-1].logits[:, :8], logits, LOGITS)
    close(layers[-1].boxes[:, :64], golden["pred_boxes"], BOXES)


@torch.no_grad()
def run(network, selection, *given):
    """What the network says, and what its encoder and the selection of its queries gave out on the way."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: seen.append(output))
        for module in (network.encoder, selection)
    ]
    output = network(*given)
    for hook in hooks:
        hook.remove()
    return output, *seen


@torch.no_grad()
def test_deformable_detr_gives_the_official_numbers(recorded):
    network, image, padding, golden = recorded("deformable-detr-r50-two-stage")
    output, memory, selected = run(network, network.queries.select, image, padding)
    close_memory(memory, golden)
    close(selected.positions, golden["topk_indices"], 0)
    close(output.proposals.boxes[:, :64], golden["enc_outputs_boxes_first64"], BOXES)
    close_layers(output.layers, golden)

    network, _, _, golden = recorded("deformable-detr-r50")  # by the rule it has the same backbone and encoder
    close_memory(memory, golden)
    close_layers(network.decoder(network.queries(memory, 300), memory), golden)


def targets_of(network):
    labels = ([17, 3, 62], [1])
    return [
        Target(torch.tensor([network.slots.index(each) for each in ids]), torch.tensor(boxes, dtype=torch.float64))
        for ids, boxes in zip(labels, BOXES_OF_TARGETS, strict=True)
    ]


def test_dino_gives_the_official_numbers_beside_its_denoising(recorded, monkeypatch):
    network, image, padding, golden = recorded("dino-r50-4scale")
    monkeypatch.setattr(network.denoising, "label_noise", 0.0)
    monkeypatch.setattr(network.denoising, "box_noise", 0.0)
    both = network.denoising.noise(targets_of(network))  # the image here is the second, which has fewer targets
    second = Noised(both.labels[1:], both.boxes[1:], both.queries[1:], both.targets[1:], both.num_groups)
    monkeypatch.setattr(network.denoising, "noise", lambda targets: second)
    output, memory, selected = run(network, network.queries, image, padding, targets_of(network)[1:])
    close_memory(memory, golden)
    close(selected.positions, golden["topk_indices"], 0)
    close(output.proposals.boxes[:, :64], golden["interm_boxes"], BOXES)
    close_layers(output.layers, golden)
    last = output.denoising.layers[-1]
    close(last.boxes, golden["dn_pred_boxes"], BOXES)
    close(last.logits[:, :4], golden["dn_pred_logits_q24"], LOGITS)


def test_dino_makes_of_its_draws_what_the_official_code_makes(recorded, monkeypatch):
    network, _, _, golden = recorded("dino-r50-4scale")
    copies = len(golden["prep_rand_label_p"]) // sum(COUNTS)
    images = torch.tensor([0, 0, 0, 1]).repeat(copies)
    places = images, (torch.arange(copies)[:, None] * max(COUNTS) + torch.tensor([0, 1, 2, 0])).flatten()

    def laid_out(drawn):
        rows = drawn.new_zeros(2, copies * max(COUNTS), *drawn.shape[1:])
        rows[places] = drawn
        return lambda *given, **settings: rows

    shares, signs, amounts = (torch.from_numpy(golden[f"prep_rand_{each}"]) for each in ("label_p", "sign_01", "part"))
    new = torch.zeros(len(shares), dtype=torch.int64)
    new[shares < 0.25] = torch.from_numpy(golden["prep_new_label"])
    for name, drawn in (("rand", shares), ("randint", new), ("randint_like", signs.double()), ("rand_like", amounts)):
        monkeypatch.setattr(torch, name, laid_out(drawn))
    noised = network.denoising.noise(targets_of(network))
    close(noised.labels[places], golden["prep_noised_labels"], 0)
    close(noised.boxes, golden["prep_query_bbox_unsigmoid"], 1e-12)
    assert noised.num_groups == 33
