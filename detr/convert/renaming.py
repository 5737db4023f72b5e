"""How a rename table is written, and what is done with one.

A row pairs their name with ours. `{word}` stands for a number and `*` for whatever ends the name; both carry over by
word. Where they keep apart what we stack (queries, keys, values), the row's left side is a tuple, stacked in order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detr.errors import InputError

State = dict[str, Tensor]
Row = tuple[str | tuple[str, ...], str]


@dataclass(frozen=True)
class Table:
    """Names of one source. Where several rows fit a name, the first counts."""

    rows: tuple[Row, ...]
    marks: tuple[str, ...]  # names, as in the rows, that tell this source: all are there
    arch: str | None = None  # of the models that have these names; None: no whole model
    fields: tuple[tuple[str, Any], ...] = ()  # of the model section, that these names tell
    foreign: tuple[str, ...] = ()  # names that another source has and this one hasn't
    derived: tuple[str, ...] = ()  # theirs that follow from the settings; left out, and given back by `models.saving`
    # Layers that their program has and the authors' hasn't, and what converters fill them with: see `filler`.
    fillers: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()  # entries that are settings, and which: "section.setting"
    # Settings, "section.setting", of the only models that are written under these names.
    written_for: tuple[tuple[str, Any], ...] = ()
    # Theirs and ours of a tensor that each layer has: `{count}` in a row of theirs is how many there are.
    counted: tuple[str, str] | None = None
    # Second names of a tensor, and its first. A word that only the second has stands for all numbers that it stands for
    # in the rows: one head that they keep for each layer.
    aliases: tuple[tuple[str, str], ...] = ()
    # Ours that a file may hold once for all numbers of a word, and the one it holds.
    repeated: tuple[tuple[str, str], ...] = ()


def to_ours(state: Mapping[str, Tensor], table: Table) -> State:
    """Under our names. What no row knows keeps its name, so that loading it strictly says so.

    InputError if two names of one tensor (Hugging Face keeps such) hold different values, or a filler was trained.
    """
    fillers = dict(table.fillers)
    derived = [_pattern(name) for name in (*table.derived, *(name for name, _ in table.settings))]
    parts = [(_pattern(part), ours, place, count) for ours, place, count, part in _parts(_rows(table, state, 0))]
    aliases = [(_pattern(alias), theirs) for alias, theirs in table.aliases]
    result: State = {}
    numbers: dict[str, list[str]] = {}
    stacks: dict[str, list[tuple[str, Tensor] | None]] = {}
    for name, tensor in state.items():
        if any(pattern.fullmatch(name) for pattern in derived):
            continue
        if name in fillers:
            if not torch.equal(tensor, filler(fillers[name], len(tensor)).to(tensor)):
                raise InputError(f"{name} was trained: there is no such layer in the authors' model, nor in ours")
            continue
        ours, place, count = name, 0, 1
        first = _renamed(name, aliases)
        for pattern, template, at, of in parts:
            found = pattern.fullmatch(first)
            if found:
                ours, place, count = _filled(template, found), at, of
                _count(found, numbers)
                break
        if count == 1:
            if ours in result and not torch.equal(result[ours], tensor):
                raise InputError(f"two different tensors for {ours}; the second is {name}")
            result[ours] = tensor
        else:
            stacks.setdefault(ours, [None] * count)[place] = (name, tensor)
            result[ours] = tensor  # keeps the place in the order
    for ours, stack in stacks.items():
        there = [each for each in stack if each is not None]
        if len(there) == len(stack):
            result[ours] = torch.cat([tensor for _, tensor in there])
        else:
            del result[ours]
            result.update(there)
    every = _copies(result, ((first, each) for each, first in table.repeated), numbers)
    return {**every, **result}


def to_theirs(state: Mapping[str, Tensor], table: Table) -> State:
    """Under their names, second names included, without what they derive; what no row knows keeps its name."""
    rows = [(_pattern(ours), theirs) for theirs, ours in _rows(table, state, 1)]
    result: State = {}
    numbers: dict[str, list[str]] = {}
    for name, tensor in state.items():
        for pattern, theirs in rows:
            found = pattern.fullmatch(name)
            if not found:
                continue
            _count(found, numbers)
            if isinstance(theirs, str):
                result[_filled(theirs, found)] = tensor
            else:
                names = [_filled(part, found) for part in theirs]
                result.update(zip(names, tensor.chunk(len(names)), strict=True))
            break
        else:
            result[name] = tensor
    second = _copies(result, ((theirs, alias) for alias, theirs in table.aliases), numbers)
    return {**second, **result}


def _rows(table: Table, names: Iterable[str], side: int) -> tuple[Row, ...]:
    """The rows with a number for `{count}`, by the names of a state dict: theirs (`side` 0) or ours (1)."""
    if table.counted is None:
        return table.rows
    one_of_each = _pattern(table.counted[side])
    count = str(sum(one_of_each.fullmatch(name) is not None for name in names))
    return tuple(
        (their.replace("{count}", count) if isinstance(their, str) else their, our) for their, our in table.rows
    )


def _copies(state: State, rows: Iterable[tuple[str, str]], numbers: Mapping[str, list[str]]) -> State:
    """Under the second name of each row, the tensors that have the first."""
    result: State = {}
    for first, second in rows:
        pattern = _pattern(first)
        for name, tensor in state.items():
            found = pattern.fullmatch(name)
            if found:
                result |= dict.fromkeys(_every(second, found, numbers), tensor)
    return result


def _count(found: re.Match[str], numbers: dict[str, list[str]]) -> None:
    for word, number in found.groupdict().items():
        numbers.setdefault(word, []).append(number)


def filler(kind: str, channels: int) -> Tensor:
    """What converters fill in: "identity" [D, D], "ones" or "zeros" [D]."""
    if kind == "identity":
        return torch.eye(channels)
    assert kind in ("ones", "zeros")
    return torch.full((channels,), float(kind == "ones"))


def _every(template: str, found: re.Match[str], numbers: Mapping[str, list[str]]) -> Iterator[str]:
    """The template filled with what was found, and with every number of the words that weren't."""
    free = [word for word in re.findall(r"\{(\w+)\}", template) if word not in found.re.groupindex]
    for combination in itertools.product(*(sorted(set(numbers.get(word, ()))) for word in free)):
        part = template
        for word, number in zip(free, combination, strict=True):
            part = part.replace(f"{{{word}}}", number)
        yield _filled(part, found)


def _renamed(name: str, rows: Iterable[tuple[re.Pattern[str], str]]) -> str:
    """By the first row that fits; as it is where none does."""
    fits = ((pattern.fullmatch(name), template) for pattern, template in rows)
    return next((_filled(template, found) for found, template in fits if found), name)


def _parts(rows: Iterable[Row]) -> Iterable[tuple[str, int, int, str]]:
    """ours, place in the stack, size of the stack, their name"""
    for theirs, ours in rows:
        names = (theirs,) if isinstance(theirs, str) else theirs
        for place, name in enumerate(names):
            yield ours, place, len(names), name


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name).replace(r"\*", "(?P<rest>.+)")
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", text))


def _filled(template: str, found: re.Match[str]) -> str:
    numbers = found.groupdict()
    return template.replace("*", numbers.pop("rest", "")).format(**numbers)


def any_fits(name: str, names: Iterable[str]) -> bool:
    """Whether one of the names is what a row's `name` stands for."""
    pattern = _pattern(name)
    return any(pattern.fullmatch(each) for each in names)
