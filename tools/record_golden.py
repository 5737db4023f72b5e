"""Record in tests/golden the few reference outputs of the official code that the test-suite compares with.

    python tools/record_golden.py FOLDER

FOLDER is the one of tools/check_golden.py, which compares all of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import numpy as np
from check_golden import MODELS

RECORDED = Path(__file__).parent.parent / "tests" / "golden"
SLICES: dict[str, tuple[slice, ...]] = {
    "topk_indices": (),
    "topk_scores": (),
    "pred_boxes": (),
    "pred_logits": (slice(None), slice(16)),
    "aifi_first4_tokens": (),
    "layers_boxes": (slice(None), slice(None), slice(32)),
    "enc_topk_boxes": (slice(None), slice(32)),
    "pre_boxes": (slice(None), slice(32)),
    "layers_corners_first4": (),
} | {
    f"{room}{level}_{what}": ()
    for room in ("backbone", "encoder")
    for level in range(3)
    for what in ("mean", "std", "channel_mean")
}
OUTPUTS: dict[str, tuple[slice, ...]] = {
    "topk_indices": (),
    "pred_boxes": (slice(None), slice(32)),
    "pred_logits": (slice(None), slice(8)),
}
RECORDINGS = {
    "rtdetr_r18vd": ("rtdetr-r18", SLICES),
    "rtdetrv2_r18vd": ("rtdetrv2-r18", SLICES),
    "deimv2_hgnetv2_atto.lab1": ("deimv2-atto", SLICES),
    "dfine_n.lab1": ("dfine-n", SLICES),
    "deim_hgnetv2_n.lab1": ("deim-dfine-n", OUTPUTS),
    "deim_rtdetrv2_r18vd": ("deim-rtdetrv2-r18", OUTPUTS),
}
SETTINGS = ("decoder.up", "decoder.reg_scale")  # parameters in the official code, settings in ours
DENOISING_SLICES: dict[str, tuple[slice, ...]] = {
    "dn_class_ids": (),
    "dn_boxes_unact": (),
    "dn_layers_boxes": (slice(None), slice(None), slice(32)),
}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Record slices of the reference outputs in FOLDER."""
    for fixture, (name, slices) in RECORDINGS.items():
        outputs = np.load(folder / f"{fixture}.npz")
        arrays = {key: outputs[key][part] for key, part in slices.items() if key in outputs}
        if slices is SLICES and (folder / f"{fixture}.dn.npz").exists():
            denoising = np.load(folder / f"{fixture}.dn.npz")
            arrays |= {key: denoising[key][part] for key, part in DENOISING_SLICES.items()}
        np.savez_compressed(RECORDED / f"{name}.npz", **arrays)
    names = {}
    for official, name in MODELS.items():
        keys = json.loads((folder / f"{official}.keys.json").read_text())
        rows = sorted(f"{row['name']} {tuple(row['shape'])}" for row in keys["keys"] if not row["derived"])
        names[name] = {
            "entries": len(rows),
            "sha256": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
            "parameters": keys["total_parameters"] - sum(row["name"] in SETTINGS for row in keys["keys"]),
            "learnable": keys["learnable_parameters"],
        }
    (RECORDED / "official_names.json").write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    main()
