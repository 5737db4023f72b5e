"""Everything that only a GPU can tell, in order of value: tests, operator, latency, training, the same bytes twice.

    python tools/measure_gpu.py --out runs/gpu            # about 25 minutes on one GPU
    python tools/measure_gpu.py --only tests --only ops --minutes 9   # parts by their names, where time is short
    python tools/measure_gpu.py --toy                     # on a CPU, at toy size: does the program itself work?

Each part is a program of its own with a time limit: one that fails or takes too long is said so and the next begins.
After each the summary, with all tables, is written anew, so that whatever ends the machine leaves what was measured
until then. What needs a package that isn't installed is left out, and said; the tests and the operator need the fewest.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from commit import commit

ROOT = Path(__file__).parents[1]
KERNELS = "tests/ops/test_deformable_attention_triton.py"
PLAIN = ("-q", "-c", os.devnull, f"--rootdir={ROOT}", "--noconftest", "-p", "no:cacheprovider")
"""Of pytest: the operator's tests need nothing of the others, nor what those import."""
NETWORKS = ("pydantic", "scipy", "safetensors", "yaml")
LINES = 12  # of what a part said last, where it failed


@dataclass(frozen=True)
class Part:
    """`words` for Python, which `program` may start; `toy` in their place on a CPU, None where it can't run there."""

    name: str
    about: str
    words: tuple[str, ...]
    minutes: float
    toy: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()  # packages
    program: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def lacking(self, *, toy: bool) -> str | None:
        """Why it is left out, if it is."""
        if toy and self.toy is None:
            return "it needs a CUDA device"
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        missing += [name for name in self.program[:1] if not toy and shutil.which(name) is None]
        return f"{', '.join(missing)}: not installed" if missing else None


def parts(out: Path) -> list[Part]:
    """Those that tell most first."""
    few = ("-k", "no_queries")
    peers = ("tools/benchmark_peers.py", "--out", f"{out}/peers.md")
    training = ("tools/benchmark_training.py", "rtdetr-r18", "--out", f"{out}/training.md")
    return [
        Part(
            "tests", "the operator's tests, natively: outputs, gradients, full sizes, 20 runs with the same bits",
            ("-m", "pytest", *PLAIN, KERNELS), 6,
            toy=("-m", "pytest", *PLAIN, KERNELS, *few), needs=("pytest", "triton"),
        ),
        Part(
            "sanitizer", "reads and writes outside of what was allocated",
            ("-m", "pytest", *PLAIN, KERNELS, "-k", "each_gradient or any_number"), 5,
            needs=("pytest", "triton"), program=("compute-sanitizer", "--error-exitcode", "9"),
            environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        ),
        Part(
            "ops", "the operator's forms side by side, with the memory-traffic floor",
            ("tools/benchmark_ops.py", "--no-cpu", "--seconds", "3", "--out", f"{out}/ops.md"), 4,
            toy=("tools/benchmark_ops.py", "--threads", "1", "--seconds", "0.1", "--only", "decoder, batch 1",
                 "--out", f"{out}/ops.md"),
        ),
        Part(
            "latency", "networks, prepared images to boxes, against transformers eager and compiled",
            (*peers, "--device", "cuda", "--rounds", "30"), 8, needs=NETWORKS,
            toy=(*peers, "rtdetr-r18", "--device", "cpu", "--size", "160", "--rounds", "2", "--without", "ompile",
                 "--without", "backend", "--without", "OpenVINO"),
        ),
        Part(
            "training", "a step of training, batch 16",
            (*training, "--device", "cuda", "--batch", "16", "--rounds", "15"), 4, needs=NETWORKS,
            toy=(*training, "--device", "cpu", "--batch", "1", "--size", "160", "--rounds", "2"),
        ),
        Part(
            "bytes", "the other tests of a GPU, among them 200 deterministic steps, twice, to the same bytes",
            ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/ops", "tests/runtime",
             "tests/export", "--deselect", KERNELS), 5,
            needs=("pytest", "pytest_timeout", "hypothesis", *NETWORKS, "pycocotools", "cv2", "av", "tqdm"),
        ),
    ]  # fmt: skip


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/gpu"), show_default=True)
@click.option("--only", multiple=True, help="Parts, by name; all unless given.")
@click.option("--toy", is_flag=True, help="On the CPU, each part that can, as small as it goes.")
@click.option("--minutes", default=28.0, show_default=True, help="For all; a part may take no more than what is left.")
def main(out: Path, only: tuple[str, ...], toy: bool, minutes: float) -> None:
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    chosen = parts(out)
    for name in set(only) - {part.name for part in chosen}:
        raise click.UsageError(f"no part {name!r}; there are {', '.join(part.name for part in chosen)}")
    end = time.monotonic() + 60 * minutes
    lines = ["# What only a GPU can tell", "", machine(), ""]
    failed = False
    for part in chosen:
        if only and part.name not in only:
            continue
        reason = part.lacking(toy=toy)
        if not toy and reason is None and not torch.cuda.is_available():
            reason = "there is no CUDA device"
        said = f"left out: {reason}" if reason else run(part, out, toy=toy, seconds=end - time.monotonic())
        failed |= said.startswith(("failed", "stopped"))
        lines += [f"## {part.name}: {part.about}", "", said, ""]
        print(f"{part.name}: {said.splitlines()[0]}", flush=True)
        (out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(f"written: {out / 'summary.md'}")
    sys.exit(1 if failed else 0)


def run(part: Part, out: Path, *, toy: bool, seconds: float) -> str:
    """What became of it, then its table, or the end of what it said; all of that is in a .log."""
    seconds = min(seconds, 60 * part.minutes)
    if seconds < 1:
        return "left out: no time is left"
    words = part.toy if toy and part.toy is not None else part.words
    command = [*(() if toy else part.program), sys.executable, *words]
    places = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))  # packages may have been brought along
    about = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1", **part.environment}
    if toy:
        about["TRITON_INTERPRET"] = "1"
    log, table = out / f"{part.name}.log", out / f"{'peers' if part.name == 'latency' else part.name}.md"
    table.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=about, stdout=file, stderr=subprocess.STDOUT, start_new_session=os.name != "nt"
        )
        try:
            code: int | None = process.wait(seconds)
        except BaseException as problem:
            stop(process)
            if not isinstance(problem, subprocess.TimeoutExpired):
                raise
            code = None
    took = f"{time.monotonic() - began:.0f} s"
    end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:])
    measured = ""
    if table.exists():  # of one that was stopped as far as it came
        measured = table.read_text(encoding="utf-8")
        table.unlink()
    if code == 0:
        return f"done in {took}\n\n" + (measured or f"```\n{end}\n```")
    what = f"stopped after {took}, its limit" if code is None else f"failed after {took} (exit code {code})"
    return f"{what}; the end of {log.name}:\n\n```\n{end}\n```\n\n{measured}"


def stop(process: subprocess.Popen[bytes]) -> None:
    """It and whatever it started."""
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine() -> str:
    what = "no CUDA device"
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        what = f"{about.name}, capability {about.major}.{about.minor}, {about.total_memory / 1e9:.0f} GB"
    triton = "no Triton"
    if importlib.util.find_spec("triton") is not None:
        import triton as package

        triton = f"Triton {package.__version__}"
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__} (CUDA {torch.version.cuda}), {triton}"
    return f"{what}; {versions}; commit {commit()}."


if __name__ == "__main__":
    main()
