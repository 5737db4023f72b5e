"""What prediction leaves in its folder: drawn pictures and videos, JSON, labels, crops."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

from detr.classes import Classes
from detr.engine.json_list import JsonList
from detr.engine.results import Results, write_image
from detr.engine.shares import ListPart, Share
from detr.engine.tracking import counts_json
from detr.errors import InputError
from detr.files import require_there, write_text
from detr.video import Frame, Source, VideoWriter

_DRAWN_AS_THEY_WERE = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))


@dataclass(frozen=True)
class Wanted:
    """Which files to leave."""

    images: bool = True  # drawn
    videos: bool = True  # drawn
    json: bool = False  # predictions.json, COCO's result list, for images; NAME.jsonl for videos
    txt: bool = False  # labels/NAME.txt, YOLO's lines, and classes.txt
    mot: bool = False  # mot/NAME.txt of tracked videos, as MOTChallenge has it
    crop: bool = False  # crops/CLASS/NAME-N.jpg
    conf: bool = False  # scores in the labels
    line_width: int | None = None


class Saver:
    """Puts results into a folder, source after source, in a `with` block: however that ends, what there is stays."""

    def __init__(self, folder: Path, wanted: Wanted, classes: Classes, share: Share) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._wanted = wanted
        self._classes = classes
        self._share = share
        self._name, self._place = "", 0
        self._source: Source | None = None
        self._video: VideoWriter | None = None
        self._lines: IO[str] | None = None
        self._mot: IO[str] | None = None
        self._are_names_written = self._has_written = False
        self._list: JsonList | ListPart | None = None
        if wanted.json:
            self._list = JsonList(folder / "predictions.json") if share.of == 1 else ListPart(folder, share.rank)

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # each is closed, whatever happens to the others
            if self._list is not None:
                stack.callback(self._list.close)
            for lines in filter(None, (self._lines, self._mot)):
                stack.callback(lines.close)
            if self._video is not None:
                stack.callback(self._video.close, to_the_end=problem is None)

    def begin(self, number: int) -> None:
        """The source of that number in the share; files made from it get its name there."""
        self._source = self._share.sources[number]
        self._name, self._place = self._share.names[number], self._share.places[number]

    def add(self, result: Results, frame: Frame) -> None:
        """The next frame of the source. InputError where it can't be written."""
        if self._has_written:
            require_there(self.folder)
        name = self._name if frame.index is None else f"{self._name}_{frame.index}"
        if frame.index is None:
            self._add_image(result)
        else:
            self._add_to_video(result, frame)
        if self._wanted.txt:
            self._write_names()
            result.save_txt(self.folder / "labels" / f"{name}.txt", save_conf=self._wanted.conf)
        if self._wanted.crop:
            result.save_crop(self.folder / "crops", f"{name}.jpg")
        self._has_written = self._has_written or self.folder.is_dir()

    def end(self) -> None:
        """The source is through."""
        if self._video is not None:
            video, self._video = self._video, None
            video.close()
            self.notes += [f"{self._name}: {note}" for note in video.notes]
        for lines in filter(None, (self._lines, self._mot)):
            lines.close()
        self._lines = self._mot = None

    def _write_names(self) -> None:
        """`classes.txt`, without which the numbers in the labels say nothing; once."""
        if not self._are_names_written:
            names = (" ".join(name.split()) for name in self._classes.names)
            write_text(self.folder / "classes.txt", "".join(f"{name}\n" for name in names))
            self._are_names_written = True

    def _add_image(self, result: Results) -> None:
        assert self._source is not None
        if self._wanted.images:
            suffix = Path(self._source.path).suffix.lower()
            kept = suffix if suffix in _DRAWN_AS_THEY_WERE else ".jpg"
            write_image(self.folder / f"{self._name}{kept}", self._drawn(result))
        if self._list is not None:
            self._list.add(coco_rows(result, self._name, self._classes), self._place)

    def _add_to_video(self, result: Results, frame: Frame) -> None:
        assert self._source is not None
        if self._wanted.videos:
            if self._video is None:
                self._video = VideoWriter(
                    self.folder / f"{self._name}.mp4",
                    rate=frame.rate or 25,
                    time_base=frame.time_base,
                    audio_from=self._source.path if self._source.kind == "video" and not self._source.is_live else None,
                )
            self._video.write(self._drawn(result), pts=frame.pts)
        if self._wanted.json:
            row: dict[str, Any] = {"frame": frame.index, "time": frame.time, "detections": result.summary()}
            if result.counts:
                row["counts"] = counts_json(result.counts, result.names)
            path = self.folder / f"{self._name}.jsonl"
            self._lines = _appended(self._lines, path, json.dumps(row, ensure_ascii=False) + "\n")
        if self._wanted.mot:
            path = self.folder / "mot" / f"{self._name}.txt"
            self._mot = _appended(self._mot, path, mot_lines(result, self._classes))

    def _drawn(self, result: Results) -> Any:
        return result.plot(channels="rgb", line_width=self._wanted.line_width)


def _appended(lines: IO[str] | None, path: Path, text: str) -> IO[str]:
    """The file, open, with the text at its end and on the disk: whatever comes, what was found so far is kept."""
    try:
        if lines is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.open("w", encoding="utf-8", errors="backslashreplace")
        lines.write(text)
        lines.flush()
    except OSError as problem:
        raise InputError(f"{path}: cannot be written ({problem.strerror})") from problem
    return lines


def mot_lines(result: Results, classes: Classes) -> str:
    """MOTChallenge's lines: frame from 1, id, left, top, width, height, score, category id, -1 for the visibility."""
    assert result.frame is not None
    found = result.detections
    assert found.track_ids is not None
    categories = [classes.id_of(label) for label in found.labels.tolist()]
    rows = zip(found.track_ids.tolist(), found.boxes.tolist(), found.scores.tolist(), categories, strict=True)
    return "".join(
        f"{result.frame + 1},{track},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},{category},-1\n"
        for track, (x1, y1, x2, y2), score, category in sorted(rows)
    )


def coco_rows(result: Results, name: str, classes: Classes) -> list[dict[str, Any]]:
    """COCO's result rows with all digits, boxes as the network gave them: what `detr val` evaluates.

    The image id is the number in the file's name, or the name where it is none; the data set may number its images
    otherwise, so the name of the file stands beside it, and, as it may number its classes otherwise, too, that of the
    class: `detr val --predictions` goes by the names.
    """
    image_id = int(name) if name.isascii() and name.isdecimal() else name
    file_name = Path(result.path).name
    found = result.detections
    corners = found.boxes if result.as_found is None else result.as_found
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)  # in float32, as `validate` does
    about = {"image_id": image_id, "file_name": file_name}

    def called(label: int) -> dict[str, str]:
        return {"category": classes.names[label]} if classes.are_named else {}

    return [
        {**about, "category_id": classes.id_of(label), **called(label), "bbox": box, "score": score}
        for box, label, score in zip(boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    ]
