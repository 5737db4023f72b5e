"""Compare losses, matches and gradients with recorded ones of the official code, for the whole family.

    python tools/golden_losses.py FOLDER... [--only dfine_n.lab1]

A FOLDER holds NAME.loss.json (targets, matches, losses and norms of gradients) and NAME.meta.json (the input). What
has denoising is in NAME.dn.loss.json or NAME.dn.json. Leaves with 1 when anything differs by more than it may.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "golden"))
from training_step import Step, take

RELATIVE = 1e-6  # of a loss, or of the norm of a gradient
# The one number of a learnable scale or bias gathers the gradients of a whole map, which nearly cancel: what the
# reference loses by keeping its tables in float32 weighs more there.
OF_ONE_NUMBER = 2e-5
MOST = 12  # failures of one recording that are said
SMALLEST = 1e-9  # of the largest gradient: what is smaller only has to be small

Difference = tuple[str, float, float]  # what, how much, how much is allowed

MODELS = {
    "detr_resnet50": "detr-r50",
    "detr_resnet50_dc5": "detr-r50-dc5",
    "detr_resnet101": "detr-r101",
    "r50_deformable_detr": "deformable-detr-r50",
    "r50_deformable_detr_plus_iterative_bbox_refinement": "deformable-detr-r50-refine",
    "r50_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage": "deformable-detr-r50-two-stage",
    "dino_4scale_r50": "dino-r50-4scale",
    "dino_5scale_r50": "dino-r50-5scale",
    **{f"dfine_{size}": f"dfine-{size}" for size in "nsmlx"},
    **{f"deim_hgnetv2_{size}": f"deim-dfine-{size}" for size in "nsmlx"},
    **{f"deimv2_hgnetv2_{size}": f"deimv2-{size}" for size in ("atto", "femto", "pico", "n")},
    **{
        f"{theirs}_r{depth}": f"{ours}-r{depth.replace('vd', '').replace('_', '')}"
        for theirs, ours in (("rtdetr", "rtdetr"), ("rtdetrv2", "rtdetrv2"), ("deim_rtdetrv2", "deim-rtdetrv2"))
        for depth in ("18vd", "34vd", "50vd", "50vd_m", "101vd")
    },
    "rtdetrv2_r18vd_dsp": "rtdetrv2-r18-dsp",
}
SOURCES = {
    "deim_rtdetrv2": "rtdetrv2",
    "deim_hgnetv2": "dfine",
    **{f"deimv2_hgnetv2_{size}": "deimv2-lite" for size in ("atto", "femto", "pico")},
    "deimv2_hgnetv2_n": "deimv2",
    "r50_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage": "deformable_detr-two-stage",
    "r50_deformable_detr_plus_iterative_bbox_refinement": "deformable_detr-refine",
    "r50_deformable_detr": "deformable_detr",
}
"""Of the official tables, by how a recording's name starts."""

# One head under a name for each layer: its values follow from the last of these.
_OF_SIX = {"class_embed.0.": "class_embed.5.", "bbox_embed.0.": "bbox_embed.5."}
_OF_THREE = {"decoder.dec_bbox_head.0.": "decoder.dec_bbox_head.2."}
NAMED = dict.fromkeys(("deformable-detr-r50", "dino-r50-4scale", "dino-r50-5scale"), _OF_SIX) | {
    f"deimv2-{size}": _OF_THREE for size in ("atto", "femto", "pico")
}
NO_DROPOUT = {"detr": ["dropout"], "deformable": ["encoder.dropout", "decoder.dropout"]}


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="NAME", help="Only these, such as dfine_n.lab1 or dfine_n.lab1.dn.")
@click.option("--verbose", is_flag=True, help="Every comparison, not only the worst.")
def main(folders: tuple[Path, ...], only: tuple[str, ...], verbose: bool) -> None:
    """Compare with the recorded losses in FOLDERS."""
    bad = 0
    for folder in folders:
        for fixture in fixtures(folder):
            if only and fixture not in only:
                continue
            differences = list(compare(record_of(folder, fixture)))
            worst = max(differences, key=lambda each: each[1] / each[2])
            failed = [each for each in differences if not each[1] <= each[2]]
            bad += len(failed)
            click.echo(f"{fixture}: {len(differences)} comparisons, worst {worst[0]} {worst[1]:.1e} of {worst[2]:.0e}")
            for what, amount, allowed in differences if verbose else failed[:MOST]:
                click.echo(f"  {'ok ' if amount <= allowed else 'BAD'} {what}: {amount:.2e} of {allowed:.0e}")
    click.echo("all within tolerance" if not bad else f"{bad} differences")
    sys.exit(bool(bad))


def fixtures(folder: Path) -> list[str]:
    """Everything with losses of a model that is known here."""
    names = [path.name.removesuffix(".json").removesuffix(".loss") for path in folder.glob("*.loss.json")]
    names += [path.name.removesuffix(".json") for path in folder.glob("*.dn.json")]
    return sorted(name for name in names if name.split(".")[0] in MODELS)


def record_of(folder: Path, fixture: str) -> dict[str, Any]:
    """A recording in the form that `training_step` knows."""
    official, *variants = fixture.split(".")
    path = folder / f"{fixture}.loss.json"
    given = json.loads((path if path.exists() else folder / f"{fixture}.json").read_text())
    meta = json.loads((folder / f"{fixture.removesuffix('.dn')}.meta.json").read_text())
    fill: dict[str, Any] = {}
    if "lab1" in variants:
        fill["added"] = {".lab.scale": 1.0}
    if "fill_scale" in meta.get("weights", {}):
        fill["scaled"] = meta["weights"]["fill_scale"]
    if MODELS[official] in NAMED:
        fill["named"] = NAMED[MODELS[official]]
    record = {
        "model": MODELS[official],
        "source": _source(official),
        "input": _input(meta["input"]),
        "fill": fill,
        "changed": _changed(MODELS[official], given, variants),
        "targets": _targets(folder, official, given),
        "criterion": _criterion(given.get("criterion", {}), given["weight_dict"]),
        "losses": _weighted(given),
        "matches": [
            [(image.get("pred", image.get("pred_idx")), image.get("gt", image.get("target_idx"))) for image in head]
            for head in (given.get("matcher_calls") or given.get("matching") or {}).values()
        ],
        "union": [(image["pred"], image["gt"]) for image in given.get("go_union_indices", [])],
        "gradients": {
            kind: given["gradients"][kind]["per_parameter_l2_norm"]
            for kind in ("classification", "localisation")
            if "gradients" in given
        },
    }
    if "dn" in variants:
        record["denoising"] = {"seed": given.get("denoising", {}).get("torch_manual_seed", 0)}
    return record


def compare(record: dict[str, Any]) -> Iterator[Difference]:
    """Everything the record has, against ours."""
    step = take(record, gradients=bool(record["gradients"]))
    yield from _losses(step, record["losses"])
    for head, (ours, theirs) in enumerate(zip(step.matches(), record["matches"], strict=bool(record["matches"]))):
        yield f"matches of head {head}", float(_plain(ours) != _plain(theirs)), 0.5
    if record["union"]:
        yield "union of the matches", float(_plain(step.union()) != _plain(record["union"])), 0.5
    for kind, norms in record["gradients"].items():
        smallest = SMALLEST * max(norms.values())
        ours = step.gradients(kind)
        yield f"{kind}: parameters", len(set(norms) - set(ours)), 0.5
        for name, norm in ours.items():
            recorded = norms.get(name, 0.0)
            allowed = OF_ONE_NUMBER if name.endswith((".lab.scale", ".lab.bias")) else RELATIVE
            yield f"{kind} gradient of {name}", abs(norm - recorded) / (recorded + smallest), allowed


def _losses(step: Step, recorded: dict[str, float]) -> Iterator[Difference]:
    ours = step.values()
    yield "losses missing or too many", len(set(ours) ^ set(recorded)), 0.5
    for name in sorted(set(ours) & set(recorded)):
        yield name, abs(ours[name] - recorded[name]) / abs(recorded[name]), RELATIVE


def _plain(images: Any) -> list[list[tuple[int, int]]]:
    return [sorted(zip(queries, targets, strict=True)) for queries, targets in images]


def _source(official: str) -> str:
    start = next((value for key, value in SOURCES.items() if official.startswith(key)), official.split("_")[0])
    return f"{start}-official"


def _input(given: dict[str, Any]) -> dict[str, Any]:
    if "canvas_hw" not in given:
        return {each: given[each] for each in ("seed", "batch", "height", "width")}
    height, width = given["canvas_hw"]
    sizes = given["image_sizes_hw"]
    return {"seed": given["seed"], "batch": given["batch"], "height": height, "width": width, "sizes": sizes}


def _targets(folder: Path, official: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    targets = given.get("targets") or json.loads((folder / f"{official}.loss.json").read_text())["targets"]
    return [
        {"labels": each["labels"], "boxes": each.get("boxes", each.get("boxes_cxcywh_normalised"))} for each in targets
    ]


def _criterion(given: dict[str, Any], weights: dict[str, float]) -> dict[str, Any]:
    """The settings that a recording of DEIM or DEIMv2 was made with; none where they are those of the arch."""
    if "use_uni_set" not in given:
        return {}
    local = "local" in given["losses"]
    return {
        "classification": "mal",
        "gamma": given["gamma"],
        "fgl_weight": weights["loss_fgl"] if local else 0.0,
        "ddf_weight": weights["loss_ddf"] if local else 0.0,
        "union": given["use_uni_set"],
    }


def _changed(model: str, given: dict[str, Any], variants: list[str]) -> dict[str, float]:
    """Settings that are not the preset's."""
    changed = dict.fromkeys(NO_DROPOUT.get(model.split("-")[0], []), 0.0)
    if "dn" in variants and "denoising" not in given:
        changed |= {"label_noise": 0.0, "box_noise": 0.0}
    return changed


def _weighted(given: dict[str, Any]) -> dict[str, float]:
    """Those that are trained and are not zero by their definition."""
    if "losses_weighted" in given:
        losses = given["losses_weighted"]
    else:
        losses = {
            name: given["losses"][name] * w for name, w in given["weight_dict"].items() if name in given["losses"]
        }
    return {name: value for name, value in losses.items() if value}


if __name__ == "__main__":
    main()
