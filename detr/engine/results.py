"""What was found in one image, in the shape that users of other detectors know.

The attributes and methods carry the names of Ultralytics' result objects, so code written for those, and
`supervision.Detections.from_ultralytics`, takes ours. As there, arrays that leave are BGR, as OpenCV wants them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detr.draw import crop, draw, file_safe, write_image
from detr.engine.boxes import Boxes, Index
from detr.engine.draw_tracks import draw_tracks
from detr.errors import InputError
from detr.files import write_text
from detr.image import RGB
from detr.json_shape import found_row
from detr.records import Detections
from detr.tracking import Counted
from detr.tracking.counting import Point

if TYPE_CHECKING:
    from detr.engine.explaining import Explainer
    from detr.explain import Explanation
    from detr.explain.place import Asked


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """One image and what was found in it."""

    image: RGB = field(repr=False)  # [h, w, 3] RGB, upright
    path: str  # file or URL it came from, or what it is called
    names: dict[int, str] = field(repr=False)  # class index -> name
    boxes: Boxes = field(repr=False)  # best first
    speed: dict[str, float] = field(default_factory=dict)  # milliseconds of preprocess, inference, postprocess
    frame: int | None = None  # place in its video
    time: float | None = None  # seconds, in its video
    as_found: Tensor | None = field(default=None, repr=False)  # [N, 4] xyxy before they were clipped to the image
    explainer: Explainer | None = field(default=None, repr=False)  # who found it
    trails: Mapping[int, Sequence[Point]] = field(default_factory=dict, repr=False)  # of each track, where it came from
    counts: tuple[Counted, ...] = field(default=(), repr=False)  # at the lines and zones of a video, so far
    best_score: float | None = field(default=None, repr=False)  # of all the network said, left out or not

    masks = obb = keypoints = probs = None  # what other kinds of models find

    @classmethod
    def of(
        cls,
        image: RGB,
        detections: Detections,
        *,
        path: str,
        names: Mapping[int, str],
        speed: Mapping[str, float] | None = None,
        frame: int | None = None,
        time: float | None = None,
        as_found: Tensor | None = None,
        explainer: Explainer | None = None,
    ) -> Results:
        columns = [detections.boxes, detections.scores[:, None], detections.labels[:, None]]
        if detections.track_ids is not None:
            columns.insert(1, detections.track_ids[:, None])
        data = torch.cat([column.to(torch.float32) for column in columns], 1)
        boxes = Boxes(data, (image.shape[0], image.shape[1]))
        return cls(image, path, dict(names), boxes, dict(speed or {}), frame, time, as_found, explainer)

    @property
    def orig_img(self) -> RGB:
        """[h, w, 3] BGR."""
        return np.ascontiguousarray(self.image[:, :, ::-1])

    @property
    def orig_shape(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.boxes.orig_shape

    @property
    def detections(self) -> Detections:
        """The same as the record that the networks' side of the toolkit speaks of."""
        data = torch.as_tensor(self.boxes.data)
        tracks = data[:, 4].long() if self.boxes.is_track else None
        return Detections(data[:, :4], data[:, -2], data[:, -1].long(), tracks)

    def __repr__(self) -> str:
        height, width = self.orig_shape
        return f"Results({self.path!r}, {width} x {height}: {self.verbose()})"

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Index) -> Results:
        as_found = None if self.as_found is None else self.as_found[index].view(-1, 4)
        return replace(self, boxes=self.boxes[index], as_found=as_found)

    def __iter__(self) -> Iterator[Results]:
        return (self[index] for index in range(len(self)))

    def to(self, *args: Any, **options: Any) -> Results:
        """The same, its boxes, as `Tensor.to` has it."""
        return replace(self, boxes=self.boxes.to(*args, **options))

    def cpu(self) -> Results:
        """The same, its boxes on the CPU."""
        return replace(self, boxes=self.boxes.cpu())

    def cuda(self) -> Results:
        """The same, its boxes on the GPU."""
        return replace(self, boxes=self.boxes.cuda())

    def numpy(self) -> Results:
        """The same, its boxes as arrays."""
        return replace(self, boxes=self.boxes.numpy())

    def verbose(self) -> str:
        """`2 persons, 1 car`, most frequent first."""
        counts = Counter(self.names[int(label)] for label in self.boxes.cls)
        return ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts.most_common()) or "nothing"

    def plot(
        self,
        *,
        labels: bool = True,
        conf: bool = True,
        line_width: int | None = None,
        font_size: int | None = None,
        channels: str = "bgr",
    ) -> RGB:
        """The image with its boxes, [h, w, 3] uint8: BGR as OpenCV shows and writes it, or `channels="rgb"`."""
        if channels not in ("bgr", "rgb"):
            raise InputError(f"channels {channels!r}; expected 'bgr' or 'rgb'")
        options = {"line_width": line_width, "font_size": font_size}
        drawn = draw(self.image, self.detections, self.names, labels=labels, scores=conf, **options)
        drawn = draw_tracks(drawn, self.trails, self.counts, line_width=line_width, font_size=font_size)
        return drawn if channels == "rgb" else np.ascontiguousarray(drawn[:, :, ::-1])

    def save(self, filename: str | os.PathLike[str] | None = None, **plot: Any) -> str:
        """Write the drawn image; the ending says how. Without a name: `results_` and the name of the image, here."""
        target = Path(filename) if filename is not None else Path(f"results_{Path(self.path).stem or 'image'}.jpg")
        write_image(target, self.plot(**plot, channels="rgb"))
        return str(target)

    def explain(self, index: int) -> Explanation:
        """What one of its boxes looked at: points and maps, layer by layer, and where the box came from.

        The picture goes through the network once more. InputError where the detector that found it is gone, has
        changed, or saw another picture than this one.
        """
        return self._explainer()(self, index)

    def explain_place(
        self, box: Sequence[float], *, classes: Sequence[int | str] | int | str | None = None
    ) -> tuple[Asked, list[Explanation]]:
        """Why there is no box at a place: what became of it, and what the queries that came nearest looked at.

        box: x1, y1, x2, y2 in pixels, or as shares of the picture where none is over 1; `classes` are those that should
        be there, by default those that were looked for. InputError as from `explain`, and for a place outside.
        """
        return self._explainer().place(self, box, classes)

    def _explainer(self) -> Explainer:
        if self.explainer is None:
            raise InputError("these boxes weren't found by a detector here, so nothing is known of what they looked at")
        return self.explainer

    def show(self, **plot: Any) -> None:
        """Open the drawn image in the system's picture viewer."""
        Image.fromarray(self.plot(**plot, channels="rgb")).show(title=self.path)

    def save_txt(self, txt_file: str | os.PathLike[str], save_conf: bool = False) -> str:
        """Write YOLO lines: `class cx cy w h [conf]`, boxes as shares of the image. No box, no line."""
        rows = zip(self.boxes.cls.tolist(), self.boxes.xywhn.tolist(), self.boxes.conf.tolist(), strict=True)
        lines = []
        for label, box, score in rows:
            numbers = [f"{value:.6g}" for value in (*box, *([score] if save_conf else []))]
            lines.append(" ".join([str(int(label)), *numbers]) + "\n")
        write_text(txt_file, "".join(lines))
        return str(txt_file)

    def save_crop(self, save_dir: str | os.PathLike[str], file_name: str | None = None) -> list[Path]:
        """Write what each box shows to `save_dir/<class>/<name>-<n>.jpg`; a box outside the image shows nothing."""
        stem = Path(file_name if file_name is not None else self.path).stem or "image"
        written = []
        for number, (box, label) in enumerate(zip(self.boxes.xyxy.tolist(), self.boxes.cls.tolist(), strict=True)):
            shown = crop(self.image, box)
            if shown is not None:
                written.append(Path(save_dir) / file_safe(self.names[int(label)]) / f"{stem}-{number}.jpg")
                write_image(written[-1], shown)
        return written

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """A plain dict for each box: name, class, confidence, box (x1 y1 x2 y2), and track_id where there is one."""
        corners = (self.boxes.xyxyn if normalize else self.boxes.xyxy).tolist()
        tracks = [None] * len(self) if self.boxes.id is None else self.boxes.id.tolist()
        rows = []
        for box, label, score, track in zip(
            corners, self.boxes.cls.tolist(), self.boxes.conf.tolist(), tracks, strict=True
        ):
            row = found_row(self.names[int(label)], int(label), score, box, decimals=decimals)
            rows.append(row if track is None else {**row, "track_id": int(track)})
        return rows

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """`summary` as JSON text."""
        return json.dumps(self.summary(normalize, decimals), ensure_ascii=False, indent=2)

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """CSV text with a row for each box below a heading: name, class, confidence, x1, y1, x2, y2 (and track_id)."""
        text = io.StringIO()
        sheet = csv.DictWriter(text, self._columns(), lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(self._flat(normalize, decimals))
        return text.getvalue()

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """A pandas DataFrame: name, class, confidence, x1, y1, x2, y2 (and track_id)."""
        try:
            import pandas
        except ImportError:
            raise InputError("to_df() needs pandas: pip install pandas") from None
        return pandas.DataFrame(self._flat(normalize, decimals), columns=self._columns())

    def _flat(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        rows = [(row.pop("box"), row) for row in self.summary(normalize, decimals)]
        return [{**row, **box} for box, row in rows]

    def _columns(self) -> list[str]:
        return ["name", "class", "confidence", "x1", "y1", "x2", "y2"] + ["track_id"] * self.boxes.is_track

    def to_supervision(self) -> Any:
        """`supervision.Detections`."""
        try:
            from supervision import Detections as Supervised
        except ImportError:
            raise InputError("to_supervision() needs supervision: pip install supervision") from None
        return Supervised.from_ultralytics(self)
