"""Record in tests/golden/losses.json the reference losses, matches and gradients that the test-suite compares with.

    python tools/record_golden_losses.py FOLDER

FOLDER is the one of tools/check_golden.py, which compares all of it. Gradients are the norm of each parameter's, of the
class losses and of the box losses, in ten digits: only with denoising, which has all of the other losses too, and not
of the backbone's early stages, which would double the time of the tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

RECORDED = Path(__file__).parent.parent / "tests" / "golden" / "losses.json"
FIXTURES = ("rtdetr_r18vd", "rtdetr_r18vd.dn", "rtdetrv2_r18vd.dn")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Record the losses of three fixtures in FOLDER."""
    rows = []
    for fixture in FIXTURES:
        record = json.loads((folder / f"{fixture}.loss.json").read_text())
        facts = record.get("denoising")
        row = {
            "input": {each: record["input"][each] for each in ("seed", "batch", "height", "width")},
            "targets": record["targets"],
            "denoising": facts and {"seed": facts["torch_manual_seed"], "groups": facts["dn_num_group"]},
            "losses": record["losses_weighted"],
            "matches": [[(each["pred"], each["gt"]) for each in call] for call in record["matcher_calls"].values()],
        }
        if facts:
            row["gradients"] = {kind: _norms(record, kind) for kind in ("classification", "localisation")}
        rows.append(f"{json.dumps(fixture)}: {json.dumps(row)}")
    RECORDED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def _norms(record: dict[str, Any], kind: str) -> dict[str, float]:
    norms = record["gradients"][kind]["per_parameter_l2_norm"]
    late = [name for name in norms if not name.startswith("backbone.") or name.startswith("backbone.res_layers.3.")]
    return {name: float(f"{norms[name]:.10g}") for name in late}


if __name__ == "__main__":
    main()
