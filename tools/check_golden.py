"""Compare RT-DETR and RT-DETRv2 with recorded reference outputs of the official code, number by number.

    python tools/check_golden.py FOLDER [--only rtdetr_r18vd]

FOLDER holds, per model, NAME.keys.json (official names and shapes), NAME.meta.json (the input), NAME.npz (intermediates
and outputs in float64), and where recorded NAME.dn.npz, NAME.loss.json, NAME.dn.loss.json. Weights follow the rule
of tests/golden/fill.py. Leaves with 1 when anything differs by more than its tolerance.
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

from detr.convert import to_ours, to_theirs
from detr.criterion import MatcherConfig, criterion_for
from detr.criterion.matcher import match
from detr.criterion.truth import in_one_row
from detr.models import build_model
from detr.models.denoising import Noised
from detr.models.postprocess import select
from detr.models.queries import Queries
from detr.records import Output, Target

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "golden"))
from fill import filled_state, image

MODELS = {
    f"rtdetr{version}_{official}": f"rtdetr{version}-{ours}"
    for version in ("", "v2")
    for official, ours in (
        ("r18vd", "r18"),
        ("r34vd", "r34"),
        ("r50vd", "r50"),
        ("r50vd_m", "r50m"),
        ("r101vd", "r101"),
    )
} | {"rtdetrv2_r18vd_dsp": "rtdetrv2-r18-dsp"}

Difference = tuple[str, float, float]  # what, how much, how much is allowed

# The reference computes position tables and anchors in float32 even in a float64 model, and the float32 logarithm of
# two machines differs in the last bit. What doesn't depend on anchors has to agree to the rounding of float64.
EXACT, LOGITS, BOXES, RELATIVE = 1e-9, 2e-6, 4e-7, 1e-6


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only these fixtures, such as rtdetr_r18vd or rtdetr_r18vd.640."
)
@click.option("--verbose", is_flag=True, help="Every comparison, not only the worst.")
def main(folder: Path, only: tuple[str, ...], verbose: bool) -> None:
    """Compare with the reference outputs in FOLDER."""
    bad = 0
    for meta in sorted(folder.glob("rtdetr*.meta.json")):
        fixture = meta.name.removesuffix(".meta.json")
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


def _compare(folder: Path, fixture: str) -> Iterator[Difference]:
    official = fixture.split(".")[0]
    keys = json.loads((folder / f"{official}.keys.json").read_text())
    meta = json.loads((folder / f"{fixture}.meta.json").read_text())
    shapes = {row["name"]: tuple(row["shape"]) for row in keys["keys"] if not row["derived"]}
    state = filled_state(shapes)
    if ".encb0" in fixture:
        state.update(
            {name: 0 * state[name] for name in state if name.endswith((".enc_output.0.bias", ".enc_output.proj.bias"))}
        )
    source = f"{official.split('_')[0]}-official"
    network: Any = build_model(MODELS[official]).double().eval()
    network.load_state_dict(to_ours(state, source))
    yield "names missing or too many", len(set(to_theirs(network.state_dict(), source)) ^ set(shapes)), 0.5
    parameters = [(p.numel(), p.requires_grad) for p in network.parameters()]
    yield "parameters", abs(sum(n for n, _ in parameters) - keys["total_parameters"]), 0.5
    yield "learnable parameters", abs(sum(n for n, learns in parameters if learns) - keys["learnable_parameters"]), 0.5

    images = image(*(meta["input"][each] for each in ("seed", "batch", "height", "width")))
    golden = dict(np.load(folder / f"{fixture}.npz"))
    yield from _intermediates(network, images, golden)
    if (folder / f"{fixture}.loss.json").exists():
        yield from _losses(network, images, json.loads((folder / f"{fixture}.loss.json").read_text()), source)
    if (folder / f"{fixture}.dn.npz").exists():
        record = json.loads((folder / f"{fixture}.dn.loss.json").read_text())
        yield from _denoising(network, images, dict(np.load(folder / f"{fixture}.dn.npz")), record)
        yield from (
            ("denoising " + what, amount, allowed) for what, amount, allowed in _losses(network, images, record, source)
        )


class Watch:
    """What the parts of a network give out during one forward."""

    def __init__(self, network: Any) -> None:
        self.seen: dict[str, list[Any]] = {}
        parts = ["backbone", "encoder", "queries", "queries.score_head", "encoder.attention.0"]
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


def _losses(network: Any, images: Tensor, record: dict[str, Any], source: str) -> Iterator[Difference]:
    denoising = network.denoising
    if "denoising" not in record:
        network.denoising = None
    else:
        torch.manual_seed(record["denoising"]["torch_manual_seed"])
    targets = _targets(record, torch.float64)
    output = _training(network)(images, targets=_targets(record, torch.float32))
    network.denoising = denoising
    yield from _assignments(output, targets, record)
    losses = criterion_for(network)(output, targets)
    theirs = record["losses_weighted"]
    yield "losses missing or too many", len(set(losses) ^ set(theirs)), 0.5
    for name in set(losses) & set(theirs):
        yield name, abs(float(losses[name].detach()) - theirs[name]) / abs(theirs[name]), RELATIVE

    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    official = dict(zip(named, to_theirs({name: p.detach() for name, p in named.items()}, source), strict=True))
    for kind, wanted in (("classification", True), ("localisation", False)):
        total = sum(loss for name, loss in losses.items() if ("vfl" in name) == wanted)
        assert isinstance(total, Tensor)
        gradients = torch.autograd.grad(total, list(named.values()), retain_graph=True, allow_unused=True)
        norms = record["gradients"][kind]["per_parameter_l2_norm"]
        largest = max(norms.values())
        for name, gradient in zip(named, gradients, strict=True):
            norm, recorded = 0.0 if gradient is None else float(gradient.norm()), norms.get(official[name], 0.0)
            yield f"{kind} gradient of {name}", abs(norm - recorded) / (recorded + 1e-9 * largest), RELATIVE
    network.eval()


def _assignments(output: Output, targets: list[Target], record: dict[str, Any]) -> Iterator[Difference]:
    assert output.proposals is not None
    heads = [output.layers[-1], *output.layers[:-1], output.proposals]
    truth = in_one_row(targets, device=torch.device("cpu"), dtype=torch.float64)
    calls = record["matcher_calls"]
    for (name, images), pairs in zip(calls.items(), match(heads, truth, MatcherConfig()), strict=True):
        theirs = [(i, q, t) for i, each in enumerate(images) for q, t in zip(each["pred"], each["gt"], strict=True)]
        rows = zip(pairs.images.tolist(), pairs.queries.tolist(), pairs.targets.tolist(), strict=True)
        ours = [(image, query, target - truth.starts[image]) for image, query, target in rows]
        yield f"matches of {name}", float(ours != theirs), 0.5


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
