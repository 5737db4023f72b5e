"""What the doctor says: one line for each kind of fault, how bad it is, and where it was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detr.archives import StoredFile
from detr.data.doctor_images import Seen
from detr.errors import counted

Level = Literal["error", "warning", "note"]

_MOST_NAMED = 100  # images of a finding in JSON


@dataclass(frozen=True)
class Shown:
    """An image that has a fault, the rows of the boxes that have it, and the other image where there are two."""

    split: str
    image: int
    rows: tuple[int, ...] = ()
    caption: str = ""
    other: tuple[str, int] | None = None


@dataclass(frozen=True)
class Finding:
    kind: str  # one word, for programs
    level: Level
    split: str  # empty: of all
    text: str
    count: int
    shown: tuple[Shown, ...] = ()

    def to_json(self, paths: Mapping[str, Sequence[StoredFile]]) -> dict[str, Any]:
        images = [
            {"image": str(paths[each.split][each.image]), "rows": list(each.rows), "what": each.caption}
            for each in self.shown[:_MOST_NAMED]
        ]
        own = {"kind": self.kind, "level": self.level, "split": self.split, "count": self.count, "text": self.text}
        return {**own, "images": images}


def of_images(
    seen: Seen,
    kind: str,
    level: Level,
    indices: Sequence[int],
    what: tuple[str, str],
    captions: Sequence[str | None],
) -> Iterator[Finding]:
    """A finding about some images, or none where there are none. `what` of one image, and of several."""
    if indices:
        shown = tuple(Shown(seen.split, i, (), words or "") for i, words in zip(indices, captions, strict=True))
        yield Finding(kind, level, seen.split, f"{seen.split}: {counted(len(indices), *what)}", len(indices), shown)


def of_rows(seen: Seen, kind: str, level: Level, wrong: NDArray[np.bool_], what: tuple[str, str]) -> Iterator[Finding]:
    """A finding about some boxes, [A], or none where there are none. `what` of one box, and of several."""
    count = int(wrong.sum())
    if count:
        rows: dict[int, list[int]] = {}
        for row in np.flatnonzero(wrong).tolist():
            rows.setdefault(int(seen.annotations.image_indices[row]), []).append(row)
        shown = tuple(
            Shown(seen.split, image, tuple(some), counted(len(some), "box", "boxes")) for image, some in rows.items()
        )
        text = f"{seen.split}: {count:,} of {counted(len(wrong), 'box', 'boxes')} {what[count > 1]}"
        yield Finding(kind, level, seen.split, text, count, shown)
