"""A video from its file to the video with boxes, against the network alone: what the way in and out costs.

    python tools/benchmark_video.py VIDEO --weights rtdetr-r18.pth --out tools/results/video.md

Takes turns (A B C A B C ...): the network alone on frames of the video that are prepared already, batch by batch; the
same with as many batches at once as `predict` has under way; and `predict` with everything around it: decoding,
resizing, choosing, drawing and encoding. Without VIDEO it is that of the
`shapes` data set; without --weights the embedded network.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path

import click
import torch
from benchmark_peers import footer

from detr.cli.allocation import keep_freed_memory
from detr.data.shapes import make_shapes
from detr.engine.detecting import Prepared, prepare
from detr.engine.detector import Detector
from detr.engine.predict import predict
from detr.runtime.settings import Settings
from detr.runtime.streams import in_streams, streams_of
from detr.video import FrameReader, Source


@click.command()
@click.argument("video", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--weights", default="rtdetr-tiny", show_default=True)
@click.option("--model", help="Preset, where the weights don't say.")
@click.option("--imgsz", type=int, help="Side of the input.")
@click.option("--half", is_flag=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--frames", default=120, show_default=True, help="Of the network alone, in a turn.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True, help="On a CPU.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this Markdown file, and a .json, too.")
def main(
    video: Path | None,
    weights: str,
    model: str | None,
    imgsz: int | None,
    half: bool,
    batch: int,
    frames: int,
    rounds: int,
    device: str,
    threads: int,
    out: Path | None,
) -> None:
    warnings.filterwarnings("ignore")
    keep_freed_memory()  # as `detr predict` does
    torch.set_num_threads(threads)
    detector = Detector(weights, model=model, device=device)
    settings = detector.settings(imgsz=imgsz, half=half)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Source("video", str(video or shapes_video(Path(folder) / "shapes")))
        prepared = prepared_frames(source, settings, frames)
        for turn in range(rounds + 1):
            streams = streams_of(detector.runner(half=half))
            now = {
                "the network alone": network_alone(detector, prepared, settings, batch, 1),
                f"the network alone, {streams} at once": network_alone(detector, prepared, settings, batch, streams),
                "video to video with boxes": end_to_end(
                    detector, source, settings, batch, Path(folder) / f"turn{turn}"
                ),
            }
            for way, rate in now.items() if turn else ():  # the first turn warms up
                rates.setdefault(way, []).append(rate)
    alone, at_once, whole = map(statistics.median, rates.values())
    height, width = prepared[0].frame.image.shape[:2]
    lines = [
        f"# {Path(source.path).name} ({width} x {height}), {Path(weights).stem}, batch {batch}, {device}",
        "",
        "| | frames/s, median | turns |",
        "|---|---|---|",
        *(
            f"| {way} | {statistics.median(turns):.2f} | {min(turns):.2f}-{max(turns):.2f} |"
            for way, turns in rates.items()
        ),
        "",
        f"End to end {whole / alone:.2f} times the rate of the network alone, {whole / at_once:.2f} times that of the",
        "network asked as `predict` asks it.",
        "",
        *footer(Path(__file__).name, threads, device),
    ]
    print("\n".join(lines))
    if out:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        out.with_suffix(".json").write_text(json.dumps(rates) + "\n", encoding="utf-8")


def shapes_video(folder: Path) -> Path:
    make_shapes(folder, images=2, val_images=1)
    return folder / "video" / "moving.mp4"


def prepared_frames(source: Source, settings: Settings, count: int) -> list[Prepared]:
    with FrameReader(source) as reader:
        return [prepare(frame, settings) for frame in islice(reader, count)]


def network_alone(detector: Detector, prepared: list[Prepared], settings: Settings, batch: int, streams: int) -> float:
    """Frames/s from prepared frames to results."""
    batches = [prepared[start : start + batch] for start in range(0, len(prepared), batch)]
    begun = time.perf_counter()
    for _ in in_streams(lambda group: detector.detect(group, settings), batches, streams=streams):
        pass
    return len(prepared) / (time.perf_counter() - begun)


def end_to_end(detector: Detector, source: Source, settings: Settings, batch: int, folder: Path) -> float:
    folder.mkdir()
    summary = predict(detector, [source], settings, folder, batch=batch, quiet=True, say=lambda line: None)
    if summary.failures:
        sys.exit(summary.failures[0][1])
    return summary.frames / summary.seconds


if __name__ == "__main__":
    main()
