"""Class names in a text file, one per line in the order of their indices: `classes.txt`, `obj.names`, `labels.txt`."""

from __future__ import annotations

from pathlib import Path

from detr.classes import Classes
from detr.errors import InputError
from detr.files import read_text


def read_names(file: Path) -> Classes:
    """The classes of a file of names; InputError where one is given twice, or a blank line leaves its number open."""
    lines = [line.strip() for line in read_text(file).rstrip().splitlines()]
    if not any(lines):
        raise InputError(f"{file}: expected class names, one per line; it is empty")
    if "" in lines:
        raise InputError(f"{file}:{lines.index('') + 1}: expected a class name; the line is empty")
    try:
        return Classes.from_names(lines)
    except InputError as problem:
        raise InputError(f"{file}: {problem}") from None
