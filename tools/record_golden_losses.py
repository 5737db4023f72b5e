"""Record in tests/golden/losses.json the reference losses, matches and gradients that the test-suite compares with.

    python tools/record_golden_losses.py FOLDER...

The FOLDERS are those of tools/golden_losses.py, which compares all that they hold. Gradients are the norm of each
parameter's, of the class losses and of the others, in ten digits; not of the backbone's early stages, which would
double the time of the tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from golden_losses import record_of

RECORDED = Path(__file__).parent.parent / "tests" / "golden" / "losses.json"
FIXTURES = ("rtdetr_r18vd.dn", "rtdetrv2_r18vd.dn", "dfine_n.lab1.dn", "deimv2_hgnetv2_atto.lab1")
STAGES = [f"{name}.{stage}" for name in ("res_layers", "stages") for stage in range(3)]
EARLY = tuple(f"backbone.{part}." for part in ("conv1", "stem", *STAGES))


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folders: tuple[Path, ...]) -> None:
    """Record the losses of some of the fixtures in FOLDERS."""
    rows = []
    for fixture in FIXTURES:
        folder = next(each for each in folders if (each / f"{fixture.removesuffix('.dn')}.meta.json").exists())
        record = record_of(folder, fixture)
        record["losses"] = {name: _ten_digits(value) for name, value in record["losses"].items()}
        record["gradients"] = {
            kind: {name: _ten_digits(norm) for name, norm in norms.items() if not name.startswith(EARLY)}
            for kind, norms in record["gradients"].items()
        }
        said = {key: value for key, value in record.items() if value not in ({}, [])}
        rows.append(f"{json.dumps(fixture)}: {json.dumps(said)}")
    RECORDED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def _ten_digits(value: float) -> float:
    return float(f"{value:.10g}")


if __name__ == "__main__":
    main()
