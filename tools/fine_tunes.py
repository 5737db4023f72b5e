"""Fine-tune small models on a small data set by README's command, one after the other, and write what came of it.

    python tools/fine_tunes.py bccd.yaml --start deimv2-atto=deimv2-atto --start deimv2-atto --write

Each `--start RECIPE=WEIGHTS` is a training from WEIGHTS (a release or a file), without `=WEIGHTS` from random ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from detr.engine.benchmark import in_words, machine
from detr.engine.device import choose_device

OUT = Path(__file__).parent / "results" / "fine_tuning.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--start", action="append", required=True, metavar="RECIPE[=WEIGHTS]")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    options = parser.parse_args()
    made_on = in_words(machine(choose_device("cpu")))
    with tempfile.TemporaryDirectory() as project:
        rows = [fine_tuned(start, options.data, project) for start in options.start]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text = f"| recipe | starts from | AP | AP50 | best epoch of | minutes |\n|---|---|--:|--:|--:|--:|\n{table}\n"
    print(text)
    if options.write:
        data = Path(options.data).stem
        command = "detr train RECIPE --data DATA --finetune --weights WEIGHTS"
        about = f"{made_on}. `{command}`; minutes with the evaluation of each epoch."
        OUT.write_text(f"# Fine-tuning on {data}\n\n{about}\n\n{text}")


def fine_tuned(start: str, data: str, project: str) -> list[str]:
    """A row of the table."""
    recipe, _, weights = start.partition("=")
    words = ["train", recipe, "--data", data, "--finetune", "--project", project, "--json"]
    words += ["--weights", weights] if weights else []
    done = _json_of(words)
    best = f"{done['out']}/best.safetensors"
    stats = _json_of(["val", "--weights", best, "--data", data, "--project", project, "--json"])["metrics"]
    return [
        f"`{recipe}`",
        f"`{Path(weights).stem}`" if weights else "random weights",
        f"{stats['AP']:.3f}",
        f"{stats['AP50']:.3f}",
        f"{done['best_epoch']} of {done['epochs']}",
        f"{done['seconds'] / 60:.1f}",
    ]


def _json_of(words: list[str]) -> dict[str, Any]:
    answer = subprocess.run([sys.executable, "-m", "detr", *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout)


if __name__ == "__main__":
    main()
