"""What is recorded of Deformable DETR and DINO, in terms of our networks; for tools/check_golden_detr.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from detr.layers.position import anchors, shrunk, sine_embedding
from detr.records import Output, Target

Parts = dict[str, Tensor]
Calls = Mapping[str, list[Any]]
Difference = tuple[str, float, float]


def deformable_parts(network: Any, calls: Calls, output: Output, padding: Tensor) -> Parts:
    """Deformable DETR's intermediates."""
    start = calls["queries"][0]
    parts = _encoder_parts(network, calls, padding) | {"init_reference": start.boxes[:, :32]}
    given_on = [layer.boxes if network.config.refine else start.boxes for layer in output.layers]
    parts["inter_references_q8"] = torch.stack(given_on)[:, :, :8]
    parts |= {f"hs{i}": calls[f"decoder.layers.{i}"][0] for i in range(6)}
    if network.config.two_stage:
        scores = output.proposals.logits[..., 0]
        parts |= _chosen_parts(scores, calls["queries.select"][0])
        parts |= {"enc_outputs_boxes": output.proposals.boxes, "enc_outputs_logits": output.proposals.logits}
    return parts


def dino_parts(network: Any, calls: Calls, output: Output, padding: Tensor) -> Parts:
    """DINO's intermediates."""
    proposals, memory, decoder = calls["queries"][0], calls["encoder"][0], network.decoder
    parts = _encoder_parts(network, calls, padding)
    references = [proposals.chosen.boxes.sigmoid()]
    for i in range(6):
        references.append(decoder._moved(references[-1], calls[f"decoder.layers.{i}"][0]))
    places, _ = anchors(memory.shapes, like=memory.tokens, padding=memory.padding)
    return {
        **parts,
        "references_q8": torch.stack(references)[:, :, :8],
        **{f"hs{i}": each for i, each in enumerate(calls["decoder.norm"])},
        **_chosen_parts(proposals.all.logits.amax(-1), proposals),
        "interm_boxes": output.proposals.boxes,
        "interm_logits": output.proposals.logits,
        "interm_matching_pre_boxes": _at(places, proposals.positions).sigmoid(),
    }


def _encoder_parts(network: Any, calls: Calls, padding: Tensor) -> Parts:
    config, parts = network.config.encoder, {}
    for level, features in enumerate(calls["backbone"][0]):
        parts[f"backbone{level}"] = features
    for level in range(config.levels):
        projected = calls[f"encoder.projections.{level}"][0]
        mask = shrunk(padding, projected)
        parts |= {f"proj{level}": projected, f"mask{level}": mask}
        parts[f"pos{level}"] = sine_embedding(
            projected, mask, temperature=config.temperature, offset=config.position_offset
        )
    parts["enc0_self_attn"] = calls["encoder.layers.0.attention"][0]
    for i in range(6):
        parts |= {f"enc_layer{i}": calls[f"encoder.layers.{i}"][0]}
        parts |= {f"dec_layer{i}_raw": calls[f"decoder.layers.{i}"][0]}
    return parts | {"memory": calls["encoder"][0].tokens}


def _chosen_parts(scores: Tensor, proposals: Any) -> Parts:
    return {"enc_scores": scores, "topk_scores": scores.gather(1, proposals.positions)}


def chosen(calls: Calls, golden: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    """The selected positions in their order; empty ones score alike and propose the same, so any stands for any."""
    proposals = next(calls[name][0] for name in ("queries.select", "queries") if name in calls)
    memory = calls["encoder"][0]
    _, valid = anchors(memory.shapes, like=memory.tokens, padding=memory.padding)
    theirs = torch.from_numpy(golden["topk_indices"]).long()
    ours, other = (each.masked_fill(~_at(valid, each)[..., 0], -1) for each in (proposals.positions, theirs))
    yield "topk_indices", float((ours != other).sum()), 0.5


def _at(rows: Tensor, positions: Tensor) -> Tensor:
    """[B, S, n], [B, Q] -> [B, Q, n]"""
    return rows.gather(1, positions[..., None].expand(-1, -1, rows.shape[-1]))


def noising(network: Any, targets: list[Target], golden: Mapping[str, np.ndarray]) -> Iterator[Difference]:
    """The recorded draws make the recorded queries."""
    denoising, counts = network.denoising, [len(each.labels) for each in targets]
    most, groups = max(counts), golden["prep_attn_mask"].shape[0]
    copies = len(golden["prep_rand_label_p"]) // sum(counts)
    images = torch.tensor([i for i, count in enumerate(counts) for _ in range(count)]).repeat(copies)
    own = torch.tensor([n for count in counts for n in range(count)])
    places = images, (torch.arange(copies)[:, None] * most + own).flatten()

    def laid_out(drawn: Tensor) -> Tensor:
        """One for each copy of each target -> [B, K, ...], zeros where there is no target."""
        rows = drawn.new_zeros(len(targets), copies * most, *drawn.shape[1:])
        rows[places] = drawn
        return rows

    shares = torch.from_numpy(golden["prep_rand_label_p"])
    new = torch.zeros(len(shares), dtype=torch.int64)
    new[shares < denoising.label_noise * 0.5] = torch.from_numpy(golden["prep_new_label"])
    signs, amounts = (torch.from_numpy(golden[f"prep_rand_{each}"]).double() for each in ("sign_01", "part"))
    with (
        patch.object(torch, "rand", lambda *_, **__: laid_out(shares)),
        patch.object(torch, "randint", lambda *_, **__: laid_out(new)),
        patch.object(torch, "randint_like", lambda *_, **__: laid_out(signs)),
        patch.object(torch, "rand_like", lambda *_, **__: laid_out(amounts)),
    ):
        content, boxes, mask, noised = denoising(targets, groups - copies * most)
    labels = torch.from_numpy(golden["prep_noised_labels"])
    yield "noised labels", float((noised.labels[places] != labels).sum()), 0.5
    yield "noised boxes", _apart(boxes, golden["prep_query_bbox_unsigmoid"]), 1e-9
    yield "mask of groups", float((mask == torch.from_numpy(golden["prep_attn_mask"])).sum()), 0.5
    yield "label embeddings", _apart(content[..., :4], golden["prep_label_embed_ch4"]), 1e-12


def denoised(
    network: Any, images: Tensor, padding: Tensor, targets: list[Target], golden: Mapping[str, np.ndarray]
) -> tuple[Output, list[Difference]]:
    """A step of training on copies without any noise."""
    denoising = network.denoising
    noise = denoising.label_noise, denoising.box_noise
    denoising.label_noise, denoising.box_noise = 0.0, 0.0
    output = network.train()(images, padding, targets)
    denoising.label_noise, denoising.box_noise = noise
    last = output.denoising.layers[-1]
    return output, [
        ("dn_pred_logits", _apart(last.logits[:, :24], golden["dn_pred_logits_q24"]), 2e-6),
        ("dn_pred_boxes", _apart(last.boxes, golden["dn_pred_boxes"]), 4e-7),
    ]


def recorded_denoising(folder: Path, recording: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """What is recorded of a model's denoising, and its losses; None where nothing is."""
    path = folder / f"{recording}.dn.npz"
    return (dict(np.load(path)), json.loads(path.with_suffix(".json").read_text())) if path.is_file() else None


def _apart(ours: Tensor, theirs: np.ndarray) -> float:
    other = torch.from_numpy(theirs)
    assert ours.shape == other.shape, (ours.shape, other.shape)
    return float((ours.detach().double() - other.double()).abs().max())
