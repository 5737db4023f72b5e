"""A JSON list written row by row, in constant memory."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from detr.errors import InputError
from detr.files import written_aside


class JsonList:
    """Whole under its name once it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = ExitStack()
        self._file: IO[str] | None = None
        self._empty = True

    def add(self, rows: list[dict[str, Any]], place: int) -> None:
        """Rows of one more image, maybe none; the file exists once there was an image.

        `place` is that of the image among all; images come in their order.
        """
        try:
            if self._file is None:
                aside = self._aside.enter_context(written_aside(self._path))
                # A file name that is no UTF-8 becomes \\udc.., which JSON reads as the same name.
                self._file = aside.open("w", encoding="utf-8", errors="backslashreplace")
                self._file.write("[")
            for row in rows:
                self._file.write(("\n" if self._empty else ",\n") + json.dumps(row, ensure_ascii=False))
                self._empty = False
        except OSError as problem:
            raise InputError(f"{self._path}: cannot be written ({problem.strerror})") from problem

    def close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        with self._aside:
            try:
                with file:
                    file.write("\n]\n")
            except OSError as problem:
                raise InputError(f"{self._path}: cannot be written ({problem.strerror})") from problem
