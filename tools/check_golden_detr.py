"""Compare DETR and its kin with recorded reference outputs of the official code, number by number.

    python tools/check_golden_detr.py FOLDER [--only detr_resnet50]

FOLDER holds, per model, NAME.keys.json (official names and shapes), NAME.meta.json (the input), NAME.npz (intermediates
and outputs in float64) and NAME.loss.json; the weights follow the rule of tests/golden/fill.py. Every recorded number
is compared: what a family's table does not name is an error. Leaves with 1 when anything differs by more than its
tolerance.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from detr.config import Config
from detr.convert import to_ours, to_theirs
from detr.criterion import criterion_for
from detr.criterion.matcher import match
from detr.layers.position import shrunk, sine_embedding
from detr.models import build_model, preset
from detr.models.postprocess import Scoring, select
from detr.records import Output, Target

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "golden"))
from fill import filled_state, image
from golden_deformable import chosen, deformable_parts, denoised, dino_parts, noising, recorded_denoising

Difference = tuple[str, float, float]  # what, how much, how much is allowed
Calls = Mapping[str, list[Any]]  # path of a module -> what each of its calls gave out
Parts = Mapping[str, Tensor]  # name as recorded, without what says which part of the tensor was -> the tensor


@dataclass(frozen=True)
class Tolerances:
    """The reference computes tables in float32 even in a float64 model; the rest agrees to the rounding of float64."""

    logits: float = 2e-6
    boxes: float = 4e-7
    losses: float = 6e-7  # relative
    tables: float = 1e-6  # of sines in float32, whose last bit differs between machines

    def of(self, name: str) -> float:
        if name.startswith("pos"):
            return self.tables
        return self.boxes if "boxes" in name or "reference" in name else self.logits


@dataclass(frozen=True)
class Family:
    presets: Mapping[str, str]  # name of the recording -> ours
    source: str  # the rename table
    parts: Callable[[nn.Module, Calls, Output, Tensor], Parts]  # network, calls, output, padding -> what is recorded
    tolerances: Tolerances = Tolerances()


def detr_parts(network: Any, calls: Calls, output: Output, padding: Tensor) -> Parts:
    """DETR's intermediates."""
    projected = calls["projection"][0]
    mask = shrunk(padding, projected)
    assert mask is not None
    return {
        "backbone0": calls["backbone"][0][-1],
        "proj0": projected,
        "mask0": mask,
        "pos0": sine_embedding(projected, mask),
        "enc0_self_attn": calls["encoder.layers.0.self_attention"][0],
        **{f"enc_layer{i}": calls[f"encoder.layers.{i}"][0] for i in range(6)},
        "memory": calls["encoder"][0].tokens,
        **{f"dec_layer{i}_raw": calls[f"decoder.layers.{i}"][0] for i in range(6)},
        **{f"hs{i}": each for i, each in enumerate(calls["decoder.norm"])},
    }


FAMILIES = (
    Family(
        presets={
            "detr_resnet50": "detr-r50",
            "detr_resnet50_dc5": "detr-r50-dc5",
            "detr_resnet101": "detr-r101",
        },
        source="detr-official",
        parts=detr_parts,
        tolerances=Tolerances(logits=3e-8, boxes=3e-9, losses=2e-9),
    ),
    *(
        Family(
            presets={f"r50_deformable_detr{words}": f"deformable-detr-r50{variant}"},
            source=f"deformable_detr{variant}-official",
            parts=deformable_parts,
        )
        for words, variant in (
            ("", ""),
            ("_plus_iterative_bbox_refinement", "-refine"),
            ("_plus_iterative_bbox_refinement_plus_plus_two_stage", "-two-stage"),
        )
    ),
    Family(
        presets={"dino_4scale_r50": "dino-r50-4scale", "dino_5scale_r50": "dino-r50-5scale"},
        source="dino-official",
        parts=dino_parts,
    ),
)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="NAME", help="Only these recordings, such as detr_resnet50.diverse.")
@click.option("--verbose", is_flag=True, help="Every comparison, not only the worst.")
def main(folder: Path, only: tuple[str, ...], verbose: bool) -> None:
    """Compare with the reference outputs in FOLDER."""
    bad = 0
    for path in sorted(folder.glob("*.meta.json")):
        recording = path.name.removesuffix(".meta.json")
        model = recording.split(".")[0]
        family = next((each for each in FAMILIES if model in each.presets), None)
        if family is None or (only and recording not in only):
            continue
        with torch.no_grad():
            differences = list(compare(folder, recording, family))
        worst = max(differences, key=lambda each: each[1] / each[2])
        failed = [each for each in differences if not each[1] <= each[2]]
        bad += len(failed)
        click.echo(f"{recording}: {len(differences)} comparisons, worst {worst[0]} {worst[1]:.1e} of {worst[2]:.0e}")
        for what, amount, allowed in differences if verbose else failed:
            click.echo(f"  {'ok ' if amount <= allowed else 'BAD'} {what}: {amount:.2e} of {allowed:.0e}")
    click.echo("all within tolerance" if not bad else f"{bad} differences")
    sys.exit(bool(bad))


def compare(folder: Path, recording: str, family: Family) -> Iterator[Difference]:
    """All that is recorded of one model."""
    model = recording.split(".")[0]
    keys = json.loads((folder / f"{model}.keys.json").read_text())
    meta = json.loads((folder / f"{recording}.meta.json").read_text())
    golden = dict(np.load(folder / f"{recording}.npz"))
    network = build_model(without_dropout(preset(family.presets[model]))).double()
    yield from load(network, family.source, keys["entries"], meta["weights"]["fill_scale"])
    parameters = [(p.numel(), p.requires_grad) for p in network.parameters()]
    yield "parameters", abs(sum(n for n, _ in parameters) - meta["parameters"]["total"]), 0.5
    learnable = sum(n for n, learns in parameters if learns)
    yield "learnable parameters", abs(learnable - meta["parameters"]["trainable"]), 0.5

    images, padding = batch(meta["input"])
    allowed = family.tolerances
    output, calls = watched(network.train(), images, padding)
    parts = {"input": images, **family.parts(network, calls, output, padding)}
    for number, layer in enumerate(output.layers[:-1]):
        parts |= {f"aux{number}_logits": layer.logits, f"aux{number}_boxes": layer.boxes}
    parts |= {"pred_logits": output.layers[-1].logits, "pred_boxes": output.layers[-1].boxes}
    compared = {"input_mask_valid_hw", "post_scores", "post_labels", "post_boxes", "topk_indices"}
    for name, theirs in golden.items():
        if name not in compared:
            yield name, apart(part_of(parts, name, theirs.shape), theirs), allowed.of(name)
    if "topk_indices" in golden:
        yield from chosen(calls, golden)
    sizes = [tuple(size) for size in meta["postprocess_original_sizes_hw"]]
    yield from selected(network, output, sizes, golden, allowed)
    yield from evaluated(network.eval(), images, padding, output)
    record = json.loads((folder / f"{recording}.loss.json").read_text())
    targets = targets_of(network, record)
    yield from matches(network, output, targets, record)
    yield from losses(network, output, targets, record, allowed)
    extra = recorded_denoising(folder, recording)
    if extra is not None:
        yield from noising(network, targets, extra[0])
        output, differences = denoised(network, images, padding, targets, extra[0])
        yield from differences
        yield from losses(network, output, targets, extra[1], allowed)


def without_dropout(config: Any) -> Any:
    """Settings with no dropout in any part: the reference was recorded in evaluation."""
    parts = {name: without_dropout(part) for name, part in config if isinstance(part, Config)}
    return config.model_copy(update=parts | ({"dropout": 0.0} if hasattr(config, "dropout") else {}))


def load(network: Any, source: str, entries: list[Any], scales: Mapping[str, float]) -> Iterator[Difference]:
    """The weights by rule into the network; names have to be the official ones, no more and no fewer."""
    state = filled_state({row["name"]: tuple(row["shape"]) for row in entries})
    state |= {name: state[name] * scale for name, scale in scales.items()}
    state |= {row["name"]: state[row["alias_of"]] for row in entries if row["alias_of"]}
    network.load_state_dict(to_ours(state, source))
    back = to_theirs(network.state_dict(), source)
    yield "names missing or too many", len(set(back) ^ set(state)), 0.5
    changed = [name for name in back.keys() & state.keys() if not torch.equal(back[name], state[name])]
    yield "tensors that don't survive the way there and back", len(changed), 0.5


def batch(recorded: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """[B, 3, h, w] images of several sizes, and their padding [B, h, w]."""
    images = image(recorded["seed"], recorded["batch"], *recorded["canvas_hw"])
    padding = torch.ones(len(images), *recorded["canvas_hw"], dtype=torch.bool)
    for index, (height, width) in enumerate(recorded["image_sizes_hw"]):
        padding[index, :height, :width] = False
    return images.masked_fill(padding[:, None], 0), padding


def watched(network: Any, images: Tensor, padding: Tensor) -> tuple[Output, Calls]:
    """What the network says, and what each of its modules gave out on the way."""
    calls: dict[str, list[Any]] = {}
    hooks = [
        module.register_forward_hook(lambda _module, _given, out, path=path: calls.setdefault(path, []).append(out))
        for path, module in network.named_modules()
    ]
    output = network(images, padding)
    for hook in hooks:
        hook.remove()
    return output, calls


def part_of(parts: Parts, name: str, shape: tuple[int, ...]) -> Tensor:
    """What a recorded name such as `memory_tokens32_ch8` means, of our tensors."""
    base = max((each for each in parts if f"{name}_".startswith(f"{each}_")), key=len, default=None)
    assert base is not None, f"the recording has {name}, which no table names"
    ours, rest = parts[base].detach(), name[len(base) + 1 :]
    valid = _valid(parts, base)
    if valid is not None:  # padded tokens are recorded as 0 and left out of the statistics
        ours = ours.expand(len(valid), -1, -1).masked_fill(~valid[..., None], 0)
    for word in rest.split("_") if rest else ():
        ours = _step(ours, word, shape, valid)
    return ours


def _valid(parts: Parts, base: str) -> Tensor | None:
    """[B, S] True where there is an image, for the tokens of one level or of all."""
    masks = {name: ~mask.flatten(1) for name, mask in parts.items() if name.startswith("mask")}
    if base == "memory":
        return torch.cat(list(masks.values()), 1)
    return masks[f"mask{base[3:]}"] if base.startswith("pos") else None


def _step(ours: Tensor, word: str, shape: tuple[int, ...], valid: Tensor | None) -> Tensor:
    """One word of what was recorded of a tensor."""
    kind, number = re.match(r"([a-z]*)(\d*)", word).groups()  # type: ignore[union-attr]
    if kind == "stats":
        ours = ours if valid is None else ours[valid]
        return torch.stack([ours.mean(), ours.std(correction=0), ours.min(), ours.max()])
    if kind == "shape":
        return torch.tensor(ours.shape)
    if kind == "corner":
        return ours[tuple(slice(size) for size in shape)]
    if kind in ("tokens", "q", "first"):
        return ours[:, : int(number)]
    if kind == "last":
        assert valid is not None
        return torch.stack([each[there][-int(number) :] for each, there in zip(ours, valid, strict=True)])
    if word == "ch0to3":  # of the half that says y; those of x follow
        half = ours.shape[-1] // 2
        return torch.cat([ours[..., :4], ours[..., half : half + 4]], -1)
    if kind == "ch":
        return ours[..., : int(number)]
    assert word in ("128to131", "valid", "float32"), f"no rule for {word!r}"
    return ours


def selected(
    network: Any, output: Output, sizes: list[Any], golden: Mapping[str, np.ndarray], allowed: Tolerances
) -> Iterator[Difference]:
    """The detections, by score where they come in any order; classes are the original category ids here."""
    scoring = Scoring(None, exclusive=network.scoring.exclusive)
    output = replace(output, layers=output.layers[-1:])
    for index, found in enumerate(select(output, sizes, scoring=scoring, max_det=golden["post_scores"].shape[1])):
        theirs = [torch.from_numpy(golden[f"post_{each}"][index]) for each in ("scores", "labels", "boxes")]
        ours_sorted = by_score(found.scores, found.labels, found.boxes)
        theirs_sorted = by_score(*theirs)
        for part, tolerance in ((0, allowed.logits), (1, 0.5), (slice(2, 6), allowed.boxes * 1000)):
            amount = float((ours_sorted[:, part] - theirs_sorted[:, part]).abs().max())
            yield f"post {('scores', 'labels')[part] if isinstance(part, int) else 'boxes'} {index}", amount, tolerance


@torch.no_grad()
def evaluated(network: Any, images: Tensor, padding: Tensor, trained: Output) -> Iterator[Difference]:
    """Evaluation, as built and deployed, says what the last layer says in training."""
    for what, each in (("evaluated", network), ("deployed", network.deploy())):
        last, expected = each(images, padding).layers[-1], trained.layers[-1]
        yield f"{what} logits", float((last.logits - expected.logits).abs().max()), 1e-9
        yield f"{what} boxes", float((last.boxes - expected.boxes).abs().max()), 1e-9


def targets_of(network: Any, record: Mapping[str, Any]) -> list[Target]:
    """The recorded targets, whose labels are original category ids."""
    return [
        Target(
            torch.tensor([network.slots.index(label) for label in each["labels"]]),
            torch.tensor(each["boxes"], dtype=torch.float64).view(-1, 4),
        )
        for each in record["targets"]
    ]


def matches(network: Any, output: Output, targets: list[Target], record: Mapping[str, Any]) -> Iterator[Difference]:
    """The pairs of queries and targets, of each layer and of the proposals."""
    criterion = criterion_for(network)
    layers = {"final": output.layers[-1], **{f"aux_{n}": each for n, each in enumerate(output.layers[:-1])}}
    if output.proposals is not None:
        layers["enc" if criterion.one_class_proposals else "interm"] = output.proposals
    for name, layer in layers.items():
        truth, pairs = criterion.matched(Output((layer,)), targets)
        if name == "enc":
            pairs = match([layer], truth.as_one_class(), criterion.config.matcher)[0]
        rows = zip(pairs.images.tolist(), pairs.queries.tolist(), pairs.targets.tolist(), strict=True)
        ours = sorted((image, query, target - truth.starts[image]) for image, query, target in rows)
        recorded = enumerate(record["matching"][name])
        pairs_of = ((i, zip(each["pred_idx"], each["target_idx"], strict=True)) for i, each in recorded)
        yield f"matches of {name}", float(ours != sorted((i, q, t) for i, each in pairs_of for q, t in each)), 0.5
    yield "matchings missing or too many", len(set(layers) ^ set(record["matching"])), 0.5


def losses(
    network: Any, output: Output, targets: list[Target], record: Mapping[str, Any], allowed: Tolerances
) -> Iterator[Difference]:
    """The weighted losses, by their official names."""
    criterion = criterion_for(network)
    ours_weighted = {name: float(value.detach()) for name, value in criterion(output, targets).items()}
    weights, plain = record["weight_dict"], record["losses"]
    theirs = {name: value * weights[name] for name, value in plain.items() if name in weights}
    yield "losses missing or too many", len(set(ours_weighted) ^ set(theirs)), 0.5
    for name in ours_weighted.keys() & theirs.keys():
        yield name, abs(ours_weighted[name] - theirs[name]) / abs(theirs[name]), allowed.losses


def by_score(scores: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
    """[N, 6] best first; pairs with equal scores by label and box"""
    rows = torch.cat([scores[:, None], labels[:, None], boxes], 1).double().tolist()
    return torch.tensor(sorted(rows, key=lambda row: (-round(row[0] * 1e9), *row[1:])), dtype=torch.float64)


def apart(ours: Tensor, theirs: np.ndarray) -> float:
    other = torch.from_numpy(np.asarray(theirs))
    assert ours.shape == other.shape, (ours.shape, other.shape)
    return float((ours.double() - other.double()).abs().max())


if __name__ == "__main__":
    main()
