"""What a search may choose from: settings of a recipe, in the recipe's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from detr.errors import UsageError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(:log)?")
_EXPECTED = "expected key.sub=LOW..HIGH, key.sub=LOW..HIGH:log or key.sub=one,other"


class Trial(Protocol):
    """Who chooses; Optuna's trials can."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: tuple[str, ...]) -> Any: ...


@dataclass(frozen=True)
class Range:
    """All numbers between two; whole ones if both ends are written so."""

    key: str
    low: float
    high: float
    whole: bool
    log: bool

    def choose(self, trial: Trial) -> str:
        """`key.sub=value`"""
        if self.whole:
            return f"{self.key}={trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)}"
        return f"{self.key}={trial.suggest_float(self.key, self.low, self.high, log=self.log):.6g}"

    def ends(self) -> list[str]:
        return [f"{self.key}={int(end) if self.whole else end}" for end in (self.low, self.high)]


@dataclass(frozen=True)
class Choice:
    """One of a few values, as YAML has them."""

    key: str
    values: tuple[str, ...]

    def choose(self, trial: Trial) -> str:
        """`key.sub=value`"""
        return f"{self.key}={trial.suggest_categorical(self.key, self.values)}"

    def ends(self) -> list[str]:
        return [f"{self.key}={value}" for value in self.values]


Dimension = Range | Choice


def read_space(words: Iterable[str]) -> list[Dimension]:
    """`train.optimizer.lr=1e-5..1e-3:log` and `augment.flip=0,0.5`; UsageError for what is no such word.

    That the keys are settings, and the values fit them, is for a recipe to say: see `ends`.
    """
    space = [_dimension(word) for word in words]
    keys = [each.key for each in space]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UsageError(f"--search {twice[0]} is given twice")
    if not space:
        raise UsageError(f"nothing to search in: {_EXPECTED} after --search")
    return space


def _dimension(word: str) -> Dimension:
    key, equals, text = (part.strip() for part in word.partition("="))
    if not key or not equals or not text:
        raise UsageError(f"--search {word}: {_EXPECTED}")
    if found := _RANGE.fullmatch(text):
        return _range(word, key, *found.groups())
    values = tuple(part.strip() for part in _parts(text))
    if ".." in text or len(values) < 2 or len(set(values)) < len(values) or not all(values):
        raise UsageError(f"--search {word}: {_EXPECTED}")
    return Choice(key, values)


def _range(word: str, key: str, low: str, high: str, log: str | None) -> Range:
    whole = all(re.fullmatch(r"[-+]?\d+", end) for end in (low, high))
    if float(low) >= float(high):
        raise UsageError(f"--search {word}: expected the lower end first")
    if log and float(low) <= 0:
        raise UsageError(f"--search {word}: a logarithmic range begins above 0")
    return Range(key, float(low), float(high), whole, log is not None)


def _parts(text: str) -> list[str]:
    """Split at commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
