"""Record the official optimizer groups in a compact form.

    record_optimizer_groups.py FOLDER > tests/golden/optimizer_groups.json

FOLDER holds `NAME.optim.json` files: the groups of the official programs, each with its rate, decay and names.
Groups with the same rate and decay are one to an optimizer, so they are joined here.
"""

import hashlib
import json
import sys
from pathlib import Path

PRESETS = {
    f"rtdetr{version}-{size}": f"rtdetr{version}_{official}"
    for version in ("", "v2")
    for size, official in {
        "r18": "r18vd",
        "r34": "r34vd",
        "r50": "r50vd",
        "r50m": "r50vd_m",
        "r101": "r101vd",
    }.items()
} | {"rtdetrv2-r18-dsp": "rtdetrv2_r18vd_dsp"}


def digest(names):
    """The SHA-256 of sorted names, a line each."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def joined_groups(path):
    groups = {}
    for group in json.loads(path.read_text())["groups"]:
        groups.setdefault((group["lr"], group["weight_decay"]), []).extend(group["names"])
    return [
        {"lr": lr, "weight_decay": decay, "tensors": len(names), "sha256": digest(names)}
        for (lr, decay), names in sorted(groups.items())
    ]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    json.dump(
        {ours: joined_groups(folder / f"{theirs}.optim.json") for ours, theirs in PRESETS.items()}, sys.stdout, indent=1
    )
    print()
