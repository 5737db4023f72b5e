"""Explanations of images and videos, written into a folder: pictures, numbers, and a page to click through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr.bands import Bands
from detr.draw import file_safe, write_image
from detr.engine.explaining import answering, explain, explain_place
from detr.engine.silence import spoken_of
from detr.errors import InputError, counted
from detr.explain import Explanation
from detr.explain.drawing import ON_A_SHEET, contact_sheet, draw_together
from detr.explain.faithfulness import Faithfulness, Trial, trials_of
from detr.explain.page import Page
from detr.explain.place import Asked
from detr.files import require_there, write_text
from detr.runtime.progress import progress
from detr.runtime.settings import Settings
from detr.video import Frame, FrameReader, Source, VideoWriter

if TYPE_CHECKING:
    from detr.engine.detector import Detector

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Explained:
    """A picture, and what its detections looked at."""

    name: str  # of its files, without an ending
    frame: Frame
    image: Bands
    found: list[Explanation]
    asked: Asked | None = None  # the place that was asked about


@dataclass(eq=False)
class Summary:
    """What was done."""

    folder: Path
    page: Path
    frames: int = 0  # images, and frames of videos
    detections: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)  # source, what was wrong
    notes: list[str] = field(default_factory=list)
    faithfulness: Faithfulness | None = None  # where it was asked for
    asked: list[dict[str, Any]] = field(default_factory=list)  # the place that was asked about, in each picture

    @property
    def text(self) -> str:
        """`2 pictures, 7 detections explained`"""
        if self.asked:
            return f"{counted(self.frames, 'picture')} asked"
        more = "" if self.detections or not self.frames else " (a lower --conf shows more)"
        return f"{counted(self.frames, 'picture')}, {counted(self.detections, 'detection')} explained{more}"

    def to_json(self) -> dict[str, Any]:
        failures = [{"source": source, "error": error} for source, error in self.failures]
        faithful = None if self.faithfulness is None else self.faithfulness.to_json()
        paths = {"folder": str(self.folder), "page": str(self.page)}
        return {**vars(self), **paths, "failures": failures, "faithfulness": faithful}


def explain_sources(
    detector: Detector,
    sources: list[Source],
    settings: Settings,
    folder: Path,
    *,
    every: int = 30,
    layer: int | None = None,
    head: int | None = None,
    faithful: bool = False,
    at: Sequence[float] | None = None,
    quiet: bool = False,
    say: Say = print,
) -> Summary:
    """Explain every image, and of videos every `every`-th frame; `layer` and `head` count from 0, None is the mean.

    An image leaves NAME.png with all of its detections, one picture for each in NAME/, and the numbers in NAME.json; a
    video NAME.mp4, with the times it had, and NAME.jsonl. index.html shows them all, as far as it holds them. With
    `faithful` each map is put to the test (see `detr.explain.faithfulness`): faithfulness.json. With `at` (see
    `explain_place`) the queries nearest to that place are explained in place of detections. A source that can't be
    read is noted, and the others go on. InputError where results can't be written.
    """
    page = Page(detector.source, detector.names, layer=layer, head=head)
    summary = Summary(folder, folder / "index.html")
    taken: set[str] = set()
    answer = answering(detector, settings) if faithful else None
    trials: list[Trial] = []
    with progress(total=None, description="explain", unit="picture", quiet=quiet) as bar:
        for source in sources:
            frames, detections, failures = summary.frames, summary.detections, len(summary.failures)
            with ExitStack() as stack:
                name = _free(source.name, taken)
                write = _writer_of(source, folder / name, layer, head, stack)
                for explained in _explained(detector, source, settings, name, every, summary, at):
                    if summary.frames:
                        require_there(folder)
                    write(explained)
                    tried = [] if answer is None else trials_of(explained.image, explained.found, answer)
                    page.add(explained.name, explained.image, explained.found, trials=tried, asked=explained.asked)
                    trials += tried
                    summary.frames += 1
                    summary.detections += len(explained.found)
                    bar.update()
            if at is None and len(summary.failures) == failures:
                count = counted(summary.frames - frames, "frame") + ", " if source.kind != "image" else ""
                say(f"{source.path}: {count}{counted(summary.detections - detections, 'detection')}")
            for row in summary.asked[frames:]:
                say(f"{row['source']}: {row['said']}")
    if trials:
        summary.faithfulness = Faithfulness(tuple(trials))
        write_text(folder / "faithfulness.json", json.dumps(summary.faithfulness.to_json(), indent=2) + "\n")
        say(summary.faithfulness.table())
    if summary.frames:
        page.write(summary.page, summary.faithfulness)
        summary.notes += page.notes
    return summary


def _explained(
    detector: Detector,
    source: Source,
    settings: Settings,
    name: str,
    every: int,
    summary: Summary,
    at: Sequence[float] | None,
) -> Iterator[Explained]:
    """Those of a source; what is wrong with it ends it, and the summary has it then."""
    stride, channels = 1 if source.kind == "image" else every, settings.input.channels
    try:
        with FrameReader(source, stride=stride, channels=channels, go_on=spoken_of(source)) as reader:
            for frame in reader:
                asked = None
                if at is None:
                    result, found = explain(detector, frame, settings)
                else:
                    result, asked, found = explain_place(detector, frame, settings, at)
                    number = "" if frame.index is None else f", frame {frame.index}"
                    summary.asked.append({"source": f"{frame.path}{number}", **asked.to_json()})
                called = name if frame.index is None else f"{name}_{frame.index}"
                yield Explained(called, frame, result.image, found, asked)
            summary.notes += [f"{source.path}: {note}" for note in reader.notes]
    except InputError as problem:
        summary.failures.append((source.path, str(problem)))


def _writer_of(
    source: Source, path: Path, layer: int | None, head: int | None, stack: ExitStack
) -> Callable[[Explained], None]:
    """Writes the pictures of a source, one after the other."""
    if source.kind == "image":
        return lambda explained: _write_image(explained, path, layer, head)
    video: list[VideoWriter] = []
    lines = stack.enter_context(
        path.with_name(f"{path.name}.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
    )

    def write(explained: Explained) -> None:
        frame = explained.frame
        if not video:
            writer = VideoWriter(path.with_name(f"{path.name}.mp4"), rate=frame.rate or 25, time_base=frame.time_base)
            video.append(stack.enter_context(writer))
        video[0].write(draw_together(explained.found, explained.image), pts=frame.pts)
        row = {"frame": frame.index, "time": frame.time, "detections": [each.to_json() for each in explained.found]}
        lines.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write


def _write_image(explained: Explained, path: Path, layer: int | None, head: int | None) -> None:
    sheet = [draw_together(explained.found, explained.image)]
    for number, each in enumerate(explained.found):
        picture = each.plot(layer=layer, head=head)
        write_image(path / f"{number:02d}-{file_safe(each.name)}.png", picture)
        sheet += [picture] if len(sheet) < ON_A_SHEET else []
    write_image(path.with_name(f"{path.name}.png"), contact_sheet(sheet))
    height, width = explained.image.shape[:2]
    numbers = {
        "source": explained.frame.path,
        "width": width,
        "height": height,
        **({} if explained.asked is None else {"asked": explained.asked.to_json()}),
        "detections": [each.to_json() for each in explained.found],
    }
    write_text(path.with_name(f"{path.name}.json"), json.dumps(numbers, ensure_ascii=False) + "\n")


def _free(name: str, taken: set[str]) -> str:
    """The name, or `name-2`, `name-3`, ... where it is taken; `index` is the page's."""
    number, free = 1, name
    while free.casefold() in taken | {"index"}:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free
