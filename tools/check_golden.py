"""Compare RT-DETR, D-FINE and what came of them with recorded reference outputs of the official code.

    python tools/check_golden.py FOLDER [--only rtdetr_r18vd]

FOLDER holds, per model, NAME.keys.json (official names and shapes) and where recorded NAME.meta.json (the input),
NAME.npz (intermediates and outputs in float64), NAME.dn.npz and NAME.dn.loss.json (denoising). Weights follow the rule
of tests/golden/fill.py; ".lab1" and ".encb0" in a name say how they depart from it. Losses: tools/golden_losses.py.
Leaves with 1 when anything differs by more than its tolerance.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from detr.convert import TABLES, source_for, to_ours, to_theirs
from detr.layers.edges import bin_positions
from detr.models import build_model
from detr.models.denoising import Noised
from detr.models.postprocess import select
from detr.models.queries import Queries
from detr.records import Output, Target

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "golden"))
from fill import filled_state, image

MODELS = {
    **{
        f"{theirs}_r{depth}": f"{ours}-r{depth.replace('vd', '').replace('_', '')}"
        for theirs, ours in (("rtdetr", "rtdetr"), ("rtdetrv2", "rtdetrv2"), ("deim_rtdetrv2", "deim-rtdetrv2"))
        for depth in ("18vd", "34vd", "50vd", "50vd_m", "101vd")
    },
    "rtdetrv2_r18vd_dsp": "rtdetrv2-r18-dsp",
    **{f"dfine_{size}": f"dfine-{size}" for size in "nsmlx"},
    **{f"deim_hgnetv2_{size}": f"deim-dfine-{size}" for size in "nsmlx"},
    **{f"deimv2_hgnetv2_{size}": f"deimv2-{size}" for size in ("atto", "femto", "pico", "n")},
}

Difference = tuple[str, float, float]  # what, how much, how much is allowed

# The reference computes position tables and anchors in float32 even in a float64 model, and the float32 logarithm of
# two machines differs in the last bit. What doesn't depend on anchors has to agree to the rounding of float64.
EXACT, LOGITS, BOXES = 1e-9, 2e-6, 4e-7


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only these fixtures, such as rtdetr_r18vd or rtdetr_r18vd.640."
)
@click.option("--verbose", is_flag=True, help="Every comparison, not only the worst.")
def main(folder: Path, only: tuple[str, ...], verbose: bool) -> None:
    """Compare with the reference outputs in FOLDER."""
    bad = 0
    for fixture in _fixtures(folder):
        if only and fixture not in only:
            continue
        differences = list(_compare(folder, fixture))
        worst = max(differences, key=lambda each: each[1] / each[2])
        failed = [each for each in differences if not each[1] <= each[2]]
        bad += len(failed)
        click.echo(f"{fixture}: {len(differences)} comparisons, worst {worst[0]} {worst[1]:.1e} of {worst[2]:.0e}")
        for what, amount, allowed in differences if verbose else failed:
            click.echo(f"  {'ok ' if amount <= allowed else 'BAD'} {what}: {amount:.2e} of {allowed:.0e}")
    click.echo("all within tolerance" if not bad else f"{bad} differences")
    sys.exit(bool(bad))


def _fixtures(folder: Path) -> list[str]:
    """Whatever has names of a model that is known here; with outputs, under the names of those."""
    outputs = {path.name.removesuffix(".meta.json") for path in folder.glob("*.meta.json")}
    names = {path.name.removesuffix(".keys.json") for path in folder.glob("*.keys.json")}
    alone = names - {fixture.split(".")[0] for fixture in outputs}
    return sorted(fixture for fixture in outputs | alone if fixture.split(".")[0] in MODELS)


def _compare(folder: Path, fixture: str) -> Iterator[Difference]:
    official = fixture.split(".")[0]
    keys = json.loads((folder / f"{official}.keys.json").read_text())
    network: Any = build_model(MODELS[official])
    source = source_for(network.config, "official")
    assert source is not None
    theirs = to_theirs(network.state_dict(), source)
    shapes = {row["name"]: tuple(row["shape"]) for row in keys["keys"] if not row["derived"]}
    differing = set({name: tuple(tensor.shape) for name, tensor in theirs.items()}.items()) ^ set(shapes.items())
    yield "names and shapes missing or too many", len(differing), 0.5
    parameters = [(p.numel(), p.requires_grad) for p in network.parameters()]
    settings = len(TABLES[source].settings)  # parameters in the reference
    yield "parameters", abs(sum(n for n, _ in parameters) + settings - keys["total_parameters"]), 0.5
    yield "learnable parameters", abs(sum(n for n, learns in parameters if learns) - keys["learnable_parameters"]), 0.5
    if not (folder / f"{fixture}.npz").exists():
        return

    network.double().eval().load_state_dict(to_ours(_weights(fixture, shapes, keys), source))
    meta = json.loads((folder / f"{fixture}.meta.json").read_text())
    images = image(*(meta["input"][each] for each in ("seed", "batch", "height", "width")))
    yield from _intermediates(network, images, dict(np.load(folder / f"{fixture}.npz")))
    if (folder / f"{fixture}.dn.npz").exists():
        record = json.loads((folder / f"{fixture}.dn.loss.json").read_text())
        yield from _denoising(network, images, dict(np.load(folder / f"{fixture}.dn.npz")), record)


def _weights(fixture: str, shapes: dict[str, tuple[int, ...]], keys: dict[str, Any]) -> dict[str, Tensor]:
    state = filled_state(shapes)
    for name in state:
        if ".lab1" in fixture and name.endswith(".lab.scale"):
            state[name] = 1 + state[name]
        if ".encb0" in fixture and name.endswith((".enc_output.0.bias", ".enc_output.proj.bias")):
            state[name] = 0 * state[name]
    for names in keys["shared_tensors"]:
        if names[-1] in state:
            state.update(dict.fromkeys(names, state[names[-1]]))
    return state


class Watch:
    """What the parts of a network give out during one forward."""

    def __init__(self, network: Any) -> None:
        self.seen: dict[str, list[Any]] = {}
        parts = ["backbone", "encoder", "queries"]
        parts += ["encoder.attention.0"] if hasattr(network.encoder, "attention") else []
        parts += [f"decoder.layers.{index}" for index in range(len(network.decoder.layers))]
        self._hooks = [network.get_submodule(part).register_forward_hook(self._keep(part)) for part in parts]

    def _keep(self, part: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self.seen.setdefault(part, []).append(output)

        return hook

    def close(self) -> dict[str, Any]:
        for hook in self._hooks:
            hook.remove()
        return {part: outputs[0] for part, outputs in self.seen.items()}


@torch.no_grad()
def _intermediates(network: Any, images: Tensor, golden: dict[str, np.ndarray]) -> Iterator[Difference]:
    watch = Watch(network)
    output = network(images)
    seen = watch.close()
    for room in ("backbone", "encoder"):
        for level, each in enumerate(seen[room]):
            name = f"{room}{level}"
            yield f"{name}_shape", _apart(torch.tensor(each.shape), golden[f"{name}_shape"]), 0.5
            yield f"{name}_mean", _apart(each.mean((1, 2, 3)), golden[f"{name}_mean"]), EXACT
            yield f"{name}_std", _apart(each.std((1, 2, 3), correction=0), golden[f"{name}_std"]), EXACT
            yield f"{name}_corner", _apart(each[:, :4, :8, :8], golden[f"{name}_corner"]), EXACT
            yield f"{name}_channel_mean", _apart(each.mean((2, 3)), golden[f"{name}_channel_mean"]), EXACT
    if "aifi_first4_tokens" in golden:
        yield "aifi_first4_tokens", _apart(seen["encoder.attention.0"][:, :4], golden["aifi_first4_tokens"]), EXACT

    queries: Queries = seen["queries"]
    order = _pairing(queries.positions, golden["topk_indices"])
    scores = queries.proposals.logits.amax(-1)
    yield "topk_scores", _apart(_in(order, scores), golden["topk_scores"]), EXACT
    yield "init_reference_points", _apart(_in(order, queries.boxes.sigmoid()), golden["init_reference_points"]), BOXES
    yield "init_content_first4", _apart(_in(order, queries.content)[:, :4], golden["init_content_first4"]), EXACT
    hidden = [seen[f"decoder.layers.{index}"] for index in range(len(golden["decoder_hidden_first4"]))]
    yield (
        "decoder_hidden_first4",
        _apart(torch.stack([_in(order, each)[:, :4] for each in hidden]), golden["decoder_hidden_first4"]),
        LOGITS,
    )
    answer = output.layers[-1]
    yield "pred_logits", _apart(_in(order, answer.logits), golden["pred_logits"]), LOGITS
    yield "pred_boxes", _apart(_in(order, answer.boxes), golden["pred_boxes"]), BOXES
    yield from _selected(output, golden)

    deployed = network.deploy()(images).layers[-1]
    yield "deploy logits", float((deployed.logits - answer.logits).abs().max()), 1e-6
    yield "deploy boxes", float((deployed.boxes - answer.boxes).abs().max()), 1e-6

    if "layers_boxes" in golden:
        trained = _training(network)(images)
        network.eval()
        boxes = torch.stack([_in(order, layer.boxes) for layer in trained.layers])
        logits = torch.stack([_in(order, layer.logits)[:, :16] for layer in trained.layers])
        yield "layers_boxes", _apart(boxes, golden["layers_boxes"]), BOXES
        yield "layers_logits_first16", _apart(logits, golden["layers_logits_first16"]), LOGITS
        yield "enc_topk_boxes", _apart(_in(order, trained.proposals.boxes), golden["enc_topk_boxes"]), BOXES
        first = _in(order, trained.proposals.logits)[:, :16]
        yield "enc_topk_logits_first16", _apart(first, golden["enc_topk_logits_first16"]), EXACT
        yield from _edges(network, trained, order, golden)


def _edges(network: Any, output: Output, order: Tensor, golden: dict[str, np.ndarray]) -> Iterator[Difference]:
    """What D-FINE says beyond boxes."""
    if output.start is None:
        return
    edges = [layer.edges for layer in output.layers if layer.edges is not None]
    yield "pre_boxes", _apart(_in(order, output.start.boxes), golden["pre_boxes"]), BOXES
    yield "pre_logits_first16", _apart(_in(order, output.start.logits)[:, :16], golden["pre_logits_first16"]), LOGITS
    corners = torch.stack([_in(order, each.logits.flatten(2))[:, :4] for each in edges])
    yield "layers_corners_first4", _apart(corners, golden["layers_corners_first4"]), LOGITS
    yield "fdr_ref_points", _apart(_in(order, edges[-1].start), golden["fdr_ref_points"]), BOXES
    decoder = network.config.decoder
    positions = bin_positions(decoder.bins, scale=decoder.scale, up=decoder.up)
    yield "fdr_project", _apart(positions, golden["fdr_project"]), EXACT


def _selected(output: Output, golden: dict[str, np.ndarray]) -> Iterator[Difference]:
    sizes = [(int(h), int(w)) for w, h in golden["post_orig_sizes_wh"]]
    for index, found in enumerate(select(output, sizes)):
        yield f"post_scores {index}", _apart(found.scores, golden["post_scores"][index]), LOGITS
        # Pairs with equal scores come in any order: compare them sorted by score, label and box.
        ours = _sorted(found.scores, found.labels, found.boxes)
        theirs = _sorted(
            *(torch.from_numpy(golden[f"post_{each}"][index]) for each in ("scores", "labels", "boxes_xyxy"))
        )
        yield f"post_labels {index}", float((ours[:, 1] - theirs[:, 1]).abs().max()), 0.5
        yield f"post_boxes {index}", float((ours[:, 2:] - theirs[:, 2:]).abs().max()), BOXES * 1000


@torch.no_grad()
def _denoising(
    network: Any, images: Tensor, golden: dict[str, np.ndarray], record: dict[str, Any]
) -> Iterator[Difference]:
    facts = record["denoising"]
    targets = _targets(record, torch.float32)
    torch.manual_seed(facts["torch_manual_seed"])
    drawn = network.denoising.noise(targets)
    yield "denoising classes drawn", _apart(drawn.labels, golden["dn_class_ids"]), 0.5
    yield "denoising boxes drawn", _apart(drawn.boxes, golden["dn_boxes_unact"]), 1e-5
    yield "denoising groups", abs(drawn.num_groups - facts["dn_num_group"]), 0.5
    positive = [each.tolist() for each in drawn.queries]
    yield "denoising positive queries", float(positive != facts["dn_positive_idx"]), 0.5
    _, _, mask, _ = network.denoising(targets, facts["dn_num_split"][1])
    count = facts["attn_mask_shape"][0] ** 2
    hidden = torch.from_numpy(np.unpackbits(golden["attn_mask_packed"])[:count]).bool().view(facts["attn_mask_shape"])
    yield "denoising mask", float((hidden == mask).sum()), 0.5

    network.denoising.noise = lambda targets: _injected(drawn, golden)
    output = _training(network)(images, targets=targets)
    del network.denoising.noise
    embedded = network.denoising.class_embedding(torch.from_numpy(golden["dn_class_ids"]).long())[:, :4]
    yield "dn_embed_first4", _apart(embedded, golden["dn_embed_first4"]), EXACT
    layers = output.denoising.layers
    yield "dn_layers_boxes", _apart(torch.stack([each.boxes for each in layers]), golden["dn_layers_boxes"]), BOXES
    logits = torch.stack([each.logits[:, :4] for each in layers])
    yield "dn_layers_logits_first4", _apart(logits, golden["dn_layers_logits_first4"]), LOGITS
    yield "pred_boxes beside denoising", _apart(output.layers[-1].boxes, golden["pred_boxes"]), BOXES
    network.eval()


def _targets(record: dict[str, Any], dtype: torch.dtype) -> list[Target]:
    return [
        Target(torch.tensor(each["labels"]), torch.tensor(each["boxes_cxcywh_normalised"], dtype=dtype).view(-1, 4))
        for each in record["targets"]
    ]


def _injected(drawn: Noised, golden: dict[str, np.ndarray]) -> Noised:
    labels, boxes = torch.from_numpy(golden["dn_class_ids"]).long(), torch.from_numpy(golden["dn_boxes_unact"])
    return replace(drawn, labels=labels, boxes=boxes)


def _training(network: Any) -> Any:
    """In training, but with the batch norms in evaluation, as the reference was recorded."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def _pairing(ours: Tensor, theirs: np.ndarray) -> Tensor:
    """[B, Q] such that our rows in this order are theirs; exact ties, which are equal rows, pair as they come."""
    rows = []
    for mine, other in zip(ours.tolist(), theirs.tolist(), strict=True):
        place = {position: row for row, position in enumerate(mine)}
        spare = iter([row for row, position in enumerate(mine) if position not in set(other)])
        rows.append([place[position] if position in place else next(spare) for position in other])
    return torch.tensor(rows)


def _in(order: Tensor, rows: Tensor) -> Tensor:
    return rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1])) if rows.dim() == 3 else rows.gather(1, order)


def _sorted(scores: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
    rows = torch.cat([-(scores * 1e9).round()[:, None], labels[:, None], boxes], 1)
    return torch.tensor(sorted(rows.tolist()))


def _apart(ours: Tensor, theirs: np.ndarray) -> float:
    other = torch.from_numpy(np.asarray(theirs))
    assert ours.shape == other.shape, (ours.shape, other.shape)
    return float((ours.double() - other.double()).abs().max())


if __name__ == "__main__":
    main()
