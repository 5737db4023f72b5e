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
RECORDINGS = {
    "r50_deformable_detr.diverse": "deformable-detr-r50",
    "r50_deformable_detr_plus_iterative_bbox_refinement_plus_plus_two_stage": "deformable-detr-r50-two-stage",
    "dino_4scale_r50": "dino-r50-4scale",
}
IMAGE = 1
"""Of the two: one is enough of a network that never looks from one image to another."""
SLICES: dict[str, slice] = {
    "memory_tokens32_ch8": slice(None),
    "memory_last8valid_ch8": slice(None),
    "topk_indices": slice(None),
    "pred_logits": slice(8),
    "pred_logits_q64": slice(8),
    "pred_boxes": slice(64),
    **{f"aux{layer}_{kind}": slice(16) for layer in range(5) for kind in ("boxes_q100", "boxes_q300")},
    "interm_boxes": slice(64),
    "enc_outputs_boxes_first64": slice(None),
    "dn_pred_boxes": slice(None),
    "dn_pred_logits_q24": slice(4),
}
DRAWS = (
    "prep_rand_label_p",
    "prep_new_label",
    "prep_rand_sign_01",
    "prep_rand_part",
    "prep_noised_labels",
    "prep_query_bbox_unsigmoid",
)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Record slices of the reference outputs in FOLDER."""
    for recording, name in RECORDINGS.items():
        outputs = dict(np.load(folder / f"{recording}.npz"))
        draws = folder / f"{recording}.dn.npz"
        if draws.exists():
            drawn = dict(np.load(draws))
            outputs |= drawn
        arrays = {key: outputs[key][IMAGE, part] for key, part in SLICES.items() if key in outputs}
        arrays |= {key: outputs[key] for key in DRAWS if key in outputs}
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
