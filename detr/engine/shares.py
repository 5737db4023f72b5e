"""Sources shared out among the processes of a team, and what they found put together again, in order."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr.engine.json_list import JsonList
from detr.files import written_aside
from detr.runtime.distributed import Team
from detr.video import Source

if TYPE_CHECKING:
    from detr.engine.predict import Summary


@dataclass(frozen=True)
class Share:
    """What one process has to do."""

    sources: list[Source]
    places: list[int]  # of each among all sources
    names: list[str]  # of the files made from it, which no other source of any process has
    rank: int = 0
    of: int = 1  # processes


def share_of(sources: Sequence[Source], *, rank: int = 0, of: int = 1, batch: int = 1) -> Share:
    """Every source is in one share. `batch` images stay together, batched as one process does; videos go round."""
    names = _names(sources)
    places = [place for place, turn in enumerate(_turns(sources, batch)) if turn % of == rank]
    return Share([sources[place] for place in places], places, [names[place] for place in places], rank, of)


def _turns(sources: Sequence[Source], batch: int) -> Iterator[int]:
    """Of each source, as the how manieth it is dealt out."""
    turn, together = -1, batch
    for source in sources:
        together = together + 1 if source.kind == "image" else batch + 1
        if together > batch:
            turn, together = turn + 1, 1 if source.kind == "image" else batch
        yield turn


def put_together(own: Summary, sources: Sequence[Source], team: Team, *, json: bool) -> Summary:
    """The summary of all processes, in each; where wanted, the one that leads also makes one list of their lists.

    To be called by all of them at the end, in a folder that all of them see.
    """
    if team.size == 1:
        return own
    summaries = team.gathered(own)
    places = {source.path: place for place, source in reversed(list(enumerate(sources)))}
    if json and team.leads:
        _join_lists(own.folder, team.size)
    whole = type(own)(own.folder, conf=own.conf, seconds=max(each.seconds for each in summaries))
    for each in summaries:
        whole.images += each.images
        whole.videos += each.videos
        whole.frames += each.frames
        whole.detections += each.detections
        whole.best_score = max(whole.best_score, each.best_score)
        whole.tracks += each.tracks
        whole.counts |= each.counts
        whole.failures += each.failures
        whole.notes += each.notes
    whole.counts = dict(sorted(whole.counts.items(), key=lambda counted: places[counted[0]]))
    whole.failures.sort(key=lambda failure: places[failure[0]])
    return whole


class ListPart:
    """What one of several processes found in its images; parts are joined to one list at the end."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._open = ExitStack()
        aside = self._open.enter_context(written_aside(_part(folder, rank)))
        self._file = self._open.enter_context(aside.open("w", encoding="utf-8", errors="backslashreplace"))

    def add(self, rows: list[dict[str, Any]], place: int) -> None:
        """Rows of one more image, maybe none."""
        self._file.write(json.dumps([place, rows], ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._open.close()


def _names(sources: Sequence[Source]) -> list[str]:
    """A name of its own for each: that of the file, or `name-2` where an earlier one has it."""
    taken: set[str] = set()
    names = []
    for source in sources:
        name = next(n for n in _numbered(source.name) if n.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def _part(folder: Path, rank: int) -> Path:
    return folder / f"predictions.part-{rank}.jsonl"


def _join_lists(folder: Path, size: int) -> None:
    """`predictions.json` as one process would have written it, in memory for one image at a time."""
    paths = [path for path in (_part(folder, rank) for rank in range(size)) if path.is_file()]
    whole = JsonList(folder / "predictions.json")
    with ExitStack() as stack:
        files = [stack.enter_context(path.open(encoding="utf-8")) for path in paths]
        for place, rows in heapq.merge(*(map(json.loads, file) for file in files), key=lambda row: row[0]):
            whole.add(rows, place)
    whole.close()
    for path in paths:
        path.unlink()
