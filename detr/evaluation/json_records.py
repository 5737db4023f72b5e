"""A JSON list of records, a part at a time: a million of them need not stand in memory as objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detr.errors import InputError, UsageError
from detr.files import json_mistakes_of, read_text

_RECORDS_AT_ONCE = 20_000


def records_of(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """The records of a COCO results file in parts, each with the number of records before it.

    UsageError where there is no such file; InputError for what isn't JSON, with line and column, or isn't such a list.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; expected a COCO results file, such as predictions.json")
    return _batches(read_text(path), path)


def _batches(text: str, path: Path) -> Iterator[tuple[int, list[Any]]]:
    """The records, so many at a time, each batch with the number of records before it.

    A list is taken apart record by record, so that a million of them need not stand in memory as objects.
    """
    with json_mistakes_of(path):
        if text.lstrip()[:1] == "[":
            yield from _list_in_batches(text)
            return
        tree = json.loads(text)
    records = tree.get("annotations") if isinstance(tree, dict) else None
    if not isinstance(records, list):
        raise InputError(f'{path}: expected a list of detections, or an object with a list "annotations"')
    for start in range(0, len(records), _RECORDS_AT_ONCE):
        yield start, records[start : start + _RECORDS_AT_ONCE]


_BLANKS = (" ", "\t", "\n", "\r")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")


def _list_in_batches(text: str) -> Iterator[tuple[int, list[Any]]]:
    """The batches of a text that is a JSON list. JSONDecodeError where it is not."""
    decode = json.JSONDecoder().raw_decode
    at = _after_blanks(text, _after_blanks(text, 0) + 1)
    done = 0
    rows: list[Any] = []
    while text[at : at + 1] != "]" or done or rows:
        row, at = decode(text, at)
        rows.append(row)
        if len(rows) == _RECORDS_AT_ONCE:
            yield done, rows
            done, rows = done + len(rows), []
        comma = _COMMA.match(text, at)
        if comma is None:
            break
        at = comma.end()
    at = _after_blanks(text, at)
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
    at = _after_blanks(text, at + 1)
    if at < len(text):
        raise json.JSONDecodeError("Extra data", text, at)
    if rows:
        yield done, rows


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] in _BLANKS:
        at += 1
    return at
