"""From a request to the bytes of a picture, or to a video in a file."""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request

from detr.serve.limits import Refused

_EXPECTED = 'the bytes themselves, a form with one file, or JSON as {"image": "<base64>"}'
_BLOCK = 1 << 20


PICTURE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {"schema": {"properties": {"file": {"type": "string", "format": "binary"}}}},
        "application/json": {"schema": {"properties": {"image": {"type": "string", "format": "byte"}}}},
    },
}
VIDEO_BODY: dict[str, Any] = {
    "required": True,
    "content": {kind: PICTURE_BODY["content"][kind] for kind in ("application/octet-stream", "multipart/form-data")},
}
"""What a request is to bring, in the words of OpenAPI."""


@dataclass(frozen=True, eq=False)
class Upload:
    """What a request brought; names of files are not looked at."""

    content: bytes
    is_json: bool = False

    def picture(self) -> bytes:
        """The bytes of the picture; to unpack them takes a while. Refused where there are none."""
        return _of_json(self.content) if self.is_json else self.content


async def picture_in(request: Request) -> Upload:
    """What a request brings, which should be a picture; Refused where it brings nothing."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with _file_of_form(request) as file:
            upload = Upload(await file.read())
    else:  # by pieces, as a request keeps its body for as long as it is there
        upload = Upload(b"".join([piece async for piece in request.stream()]), kind == "application/json")
    if not upload.content:
        raise Refused(400, f"no picture in the request; expected {_EXPECTED}")
    return upload


@asynccontextmanager
async def video_in(request: Request) -> AsyncIterator[Path]:
    """The video that a request brings, as a file that is there within the block."""
    with tempfile.TemporaryDirectory(prefix="detr-serve-") as folder:
        path = Path(folder) / "video"
        with path.open("wb") as out:
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                async with _file_of_form(request) as file:
                    while block := await file.read(_BLOCK):
                        out.write(block)
            else:
                async for block in request.stream():
                    out.write(block)
        if not path.stat().st_size:
            raise Refused(400, "no video in the request; expected the bytes themselves, or a form with one file")
        yield path


@asynccontextmanager
async def _file_of_form(request: Request) -> AsyncIterator[UploadFile]:
    async with request.form(max_files=1, max_fields=16) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Refused(400, "a form without a file; expected one")
        yield files[0]


def _of_json(body: bytes) -> bytes:
    try:
        tree = json.loads(body)
        text = tree["image"] if isinstance(tree, dict) else None
        if not isinstance(text, str):
            raise ValueError('no text under "image"')
        return base64.b64decode(text.rpartition(";base64,")[2], validate=True)  # in front of that, browsers say a type
    except (ValueError, KeyError, RecursionError, binascii.Error) as problem:
        raise Refused(400, f'not {{"image": "<base64>"}}: {problem}') from None
