"""Record in tests/golden the few reference outputs of DETR and its kin that the test-suite compares with.

    python tools/record_golden_detr.py FOLDER

FOLDER is the one of tools/check_golden_detr.py, which compares all of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import numpy as np
from check_golden_detr import FAMILIES

RECORDED = Path(__file__).parent.parent / "tests" / "golden"
LAYERS = {f"aux{layer}_boxes": 8 for layer in range(5)}
DETR = {
    "memory_tokens32_ch8": 8,
    "memory_last8valid_ch8": 8,
    "dec_layer5_raw_q4_ch8": 4,
    "hs5_q4_ch8": 4,
    "pred_logits": 8,
    "pred_boxes": 100,
    **LAYERS,
}
DEFORMABLE = {
    "memory_tokens32_ch8": 32,
    "memory_last8valid_ch8": 8,
    "topk_indices": 900,
    "pred_logits": 8,
    "pred_logits_q64": 8,
    "pred_boxes": 64,
    "enc_outputs_boxes_first64": 64,
    "interm_boxes": 64,
    **LAYERS,
}
# Of two images, one is enough where a network has shown that it never looks from one to another.
RECORDINGS: dict[str, tuple[str, dict[str, int], slice]] = {
    "detr_resnet50.diverse": ("detr-r50", DETR, slice(2)),
    "r50_deformable_detr.diverse": ("deformable-detr-r50", DEFORMABLE, slice(1, 2)),
    "r50_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage": (
        "deformable-detr-r50-two-stage",
        DEFORMABLE,
        slice(1, 2),
    ),
    "dino_4scale_r50": ("dino-r50-4scale", DEFORMABLE, slice(1, 2)),
}
"""Name of the recording -> ours, how many tokens or queries of what is recorded, and which images."""

NOISING = ("rand_label_p", "new_label", "rand_sign_01", "rand_part", "noised_labels", "query_bbox_unsigmoid")
"""What DINO's denoising drew, and what it made of it."""


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Record slices of the reference outputs in FOLDER."""
    for recording, (name, counts, images) in RECORDINGS.items():
        outputs = dict(np.load(folder / f"{recording}.npz"))
        arrays = {"backbone0_stats": outputs["backbone0_stats"]}
        for key, values in outputs.items():
            count = counts.get(key, counts.get(key.rpartition("_q")[0]))
            if count is not None:
                arrays[key] = values[images, :count]
        path = folder / f"{recording}.dn.npz"
        if path.exists():
            noising = dict(np.load(path))
            arrays |= {f"prep_{each}": noising[f"prep_{each}"] for each in NOISING}
            arrays |= {"dn_pred_boxes": noising["dn_pred_boxes"][images]}
            arrays |= {"dn_pred_logits_q24": noising["dn_pred_logits_q24"][images, :4]}
        np.savez_compressed(RECORDED / f"{name}.npz", **arrays)
    names = {}
    for family in FAMILIES:
        for official, name in family.presets.items():
            keys = json.loads((folder / f"{official}.keys.json").read_text())
            rows = sorted(f"{row['name']} {tuple(row['shape'])}" for row in keys["entries"] if not row["derived"])
            names[name] = {
                "entries": len(rows),
                "sha256": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
                "parameters": keys["n_parameters_total"],
                "learnable": keys["n_parameters_trainable"],
            }
    (RECORDED / "official_names_detr.json").write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    main()
