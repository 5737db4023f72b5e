"""Resident memory of `detr track` over a long video, and what is left of a video that breaks off.

    python tools/video_memory.py --frames 10000 --out tools/results/video_memory.md

The video is made here: small frames with shapes that come and go, so that thousands of tracks begin and end. The
program runs as typed, with everything that it can leave (drawn video, JSON, MOT text, counts), and its memory is read
from outside, as Linux tells it. Then the same video is cut in two thirds of its length, in the middle of a packet.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import click
import numpy as np
import torch
from benchmark_peers import footer

from detr.data.shapes_video import moving_shapes
from detr.image import RGB
from detr.video import VideoWriter

WORDS = ["--imgsz", "96", "--conf", "0.3", "--save-json", "--save-mot", "--line", "0.5,0,0.5,1:middle", "--quiet"]


@click.command()
@click.option("--frames", default=10_000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file, too.")
def main(frames: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film(folder / "long.mp4", frames)
        readings = watched(folder, "long")
        about = left_behind(folder, "long")
        cut(folder / "long.mp4", folder / "cut.mp4", packet=frames * 2 // 3)
        watched(folder, "cut")
        broken = left_behind(folder, "cut")
        whole_before = broken["lines"] > frames * 2 // 3 - 5 and before_the_break(folder, "cut").issubset(
            before_the_break(folder, "long")
        )
    lines = [
        f"# detr track, {frames:,} frames of 96 x 64",
        "",
        "| frames so far | resident memory, MiB |",
        "|---:|---:|",
        *(f"| {done:,} | {mebibytes:.0f} |" for done, mebibytes in readings),
        "",
        f"{about['tracks']:,} tracks; {about['lines']:,} lines of JSON, {about['rows']:,} of MOT text, "
        f"{about['drawn']:,} frames drawn.",
        "",
        f"Cut through packet {frames * 2 // 3:,}: {broken['lines']:,} lines of JSON, {broken['drawn']:,} frames drawn, "
        f"{broken['rows']:,} lines of MOT text; {'all' if whole_before else 'NOT all'} as for the whole video.",
        "",
        *footer(Path(__file__).name, torch.get_num_threads(), "cpu"),
    ]
    click.echo("\n".join(lines))
    if out is not None:
        out.write_text("\n".join(lines) + "\n")


def film(path: Path, count: int) -> None:
    """The moving shapes, small, again and again with another seed."""
    with VideoWriter(path, rate=25) as writer:
        for image in _pictures(count):
            writer.write(image)


def _pictures(count: int) -> Iterator[RGB]:
    scene = [np.ascontiguousarray(image[::5, ::5]) for image, _ in moving_shapes(0, frames=min(200, count))]
    ways = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    for number in range(count):
        down, right = ways[number // len(scene) % len(ways)]
        yield np.ascontiguousarray(scene[number % len(scene)][::down, ::right])


def watched(folder: Path, name: str) -> list[tuple[int, float]]:
    """Run `detr track` -> (frames done, MiB) at ten moments."""
    words = [sys.executable, "-m", "detr", "track", f"{name}.mp4", "--name", name, *WORDS]
    lines = folder / "runs" / "track" / name / f"{name}.jsonl"
    readings: list[tuple[int, float]] = []
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.5)
            memory = _resident(process.pid)
            if memory and lines.exists():
                readings.append((_count(lines), memory))
    if process.returncode:
        raise click.ClickException(f"detr track left with {process.returncode}")
    step = max(1, len(readings) // 12)
    return [*readings[step::step][:-1], readings[-1]]


def cut(whole: Path, part: Path, *, packet: int) -> None:
    with av.open(str(whole)) as container:
        places = [one.pos for one in container.demux(video=0) if one.pos is not None]
    part.write_bytes(whole.read_bytes()[: places[packet] + 5])


def left_behind(folder: Path, name: str) -> dict[str, int]:
    run = folder / "runs" / "track" / name
    with av.open(str(run / f"{name}.mp4")) as container:
        drawn = sum(1 for _ in container.decode(video=0))
    rows = (run / "mot" / f"{name}.txt").read_text().splitlines()
    tracks = max((int(row.split(",")[1]) for row in rows), default=0)
    for line in (run / f"{name}.jsonl").read_text().splitlines():
        json.loads(line)
    return {"lines": _count(run / f"{name}.jsonl"), "rows": len(rows), "tracks": tracks, "drawn": drawn}


def before_the_break(folder: Path, name: str) -> set[str]:
    """All lines, but those of the last frames: the break may have taken a frame between two that arrived."""
    run = folder / "runs" / "track" / name
    lines = (run / f"{name}.jsonl").read_text().splitlines()[:-4]
    rows = (run / "mot" / f"{name}.txt").read_text().splitlines()
    return {*lines, *(row for row in rows if int(row.split(",")[0]) <= len(lines))}


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _resident(process: int) -> float:
    """MiB; 0 where it has just ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
