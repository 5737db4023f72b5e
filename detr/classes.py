"""The class-id contract: original category id <-> 0-based index <-> name.

Users see indices and names. The original ids come back only where COCO JSON is written. The table travels inside
every checkpoint and export, so nobody ever types the number of classes.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detr.errors import InputError, listed

CategoryId = int | str


@dataclass(frozen=True)
class Classes:
    """Category ids and names, both in index order."""

    ids: tuple[CategoryId, ...]
    names: tuple[str, ...]
    _index_of: Mapping[CategoryId, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(_plain_id(id) for id in self.ids))
        object.__setattr__(self, "names", tuple(self.names))
        nameless = [name for name in self.names if not isinstance(name, str)]
        if nameless:
            raise InputError(f"class name {nameless[0]!r} is not text")
        if len(self.ids) != len(self.names):
            raise InputError(f"{len(self.ids)} category ids for {len(self.names)} class names")
        for what, values in (("category id", self.ids), ("class name", self.names)):
            twice = [value for value, times in Counter(values).items() if times > 1]
            if twice:
                raise InputError(f"{what} {twice[0]!r} is given more than once")
        object.__setattr__(self, "_index_of", {id: index for index, id in enumerate(self.ids)})

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def are_named(self) -> bool:
        """Whether names are known; else they are class_0, class_1, ..."""
        return self.names != tuple(f"class_{index}" for index in range(len(self)))

    def index_of(self, category_id: CategoryId) -> int:
        """The 0-based index of an original category id; InputError when there is no such category.

        `1`, `"1"` and `True` are three different things, whatever a dict thinks of them.
        """
        index = self._index_of.get(_plain_id(category_id))
        if index is None:
            raise InputError(f"category id {category_id!r} is none of the {len(self)} known ({listed(self.ids)})")
        return index

    def id_of(self, index: int) -> CategoryId:
        """The original category id of a 0-based index; InputError when there is no such class."""
        if not 0 <= index < len(self):
            raise InputError(f"class index {index} is not in 0..{len(self) - 1}")
        return self.ids[index]

    def matches_by_name(self, other: Classes) -> dict[int, int]:
        """Index here -> index in `other`, for every name both have.

        Case and outer blanks don't count, unless `other` has names that differ in nothing else: then the very same one.
        """
        same = {name: index for index, name in enumerate(other.names)}
        times = Counter(_plain(name) for name in other.names)
        alike = {_plain(name): index for name, index in same.items() if times[_plain(name)] == 1}
        found = ((i, same.get(name, alike.get(_plain(name)))) for i, name in enumerate(self.names))
        return {i: index for i, index in found if index is not None}

    def as_dict(self) -> dict[int, str]:
        """Index -> name, as result objects show it."""
        return dict(enumerate(self.names))

    def rows(self) -> list[dict[str, Any]]:
        """For a report: `index`, `id` and `name` of each."""
        return [{"index": index, **row} for index, row in enumerate(self.to_json())]

    def to_json(self) -> list[dict[str, Any]]:
        """Rows of `id` and `name`, as in COCO's `categories`."""
        return [{"id": id, "name": name} for id, name in zip(self.ids, self.names, strict=True)]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> Classes:
        """The inverse of `to_json`, and of COCO's `categories`; InputError for rows that aren't of that kind."""
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            raise InputError(f"expected a list of classes, each with id and name, found {type(rows).__name__}")
        for row in rows:
            if not isinstance(row, Mapping) or not {"id", "name"} <= set(row):
                raise InputError(f"class {row!r:.80} has no id and name")
        return cls(tuple(row["id"] for row in rows), tuple(row["name"] for row in rows))

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Classes:
        """With ids 0, 1, 2, ..."""
        names = tuple(names)
        return cls(tuple(range(len(names))), names)

    def table(self, counts: Sequence[int] | None = None) -> str:
        """The contract as text: index, original id, name and, where given, how many boxes."""
        head = ["index", "id", "name"] + ([] if counts is None else ["boxes"])
        rows = [[str(i), printable(str(self.ids[i])), printable(self.names[i])] for i in range(len(self))]
        if counts is not None:
            rows = [[*row, str(count)] for row, count in zip(rows, counts, strict=True)]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if title == "name" else cell.rjust(width)
                for title, cell, width in zip(head, row, widths, strict=True)
            ).rstrip()
            for row in [head, *rows]
        )


def _plain_id(value: Any) -> CategoryId:
    """A category id as `int` or `str`, NumPy's whole numbers included; InputError for anything else."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"category id {value!r:.80} is neither a whole number nor text")
    return operator.index(value)


def printable(text: str) -> str:
    """Without line breaks and terminal codes, which an annotation file may hold."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _plain(name: str) -> str:
    return name.strip().casefold()


_COCO = """
1 person|2 bicycle|3 car|4 motorcycle|5 airplane|6 bus|7 train|8 truck|9 boat|10 traffic light|11 fire hydrant|
13 stop sign|14 parking meter|15 bench|16 bird|17 cat|18 dog|19 horse|20 sheep|21 cow|22 elephant|23 bear|24 zebra|
25 giraffe|27 backpack|28 umbrella|31 handbag|32 tie|33 suitcase|34 frisbee|35 skis|36 snowboard|37 sports ball|
38 kite|39 baseball bat|40 baseball glove|41 skateboard|42 surfboard|43 tennis racket|44 bottle|46 wine glass|47 cup|
48 fork|49 knife|50 spoon|51 bowl|52 banana|53 apple|54 sandwich|55 orange|56 broccoli|57 carrot|58 hot dog|59 pizza|
60 donut|61 cake|62 chair|63 couch|64 potted plant|65 bed|67 dining table|70 toilet|72 tv|73 laptop|74 mouse|
75 remote|76 keyboard|77 cell phone|78 microwave|79 oven|80 toaster|81 sink|82 refrigerator|84 book|85 clock|86 vase|
87 scissors|88 teddy bear|89 hair drier|90 toothbrush
"""
_COCO_ROWS = [row.strip().split(" ", 1) for row in _COCO.replace("\n", "").split("|")]

COCO = Classes(tuple(int(id) for id, _ in _COCO_ROWS), tuple(name for _, name in _COCO_ROWS))
"""The 80 classes of COCO 2017; their original ids run from 1 to 90 with ten gaps."""
