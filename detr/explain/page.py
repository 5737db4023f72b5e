"""A page to click through: what every detection looked at, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detr.bands import Bands, shown
from detr.errors import counted
from detr.explain.drawing import LEVEL_COLOURS, chip
from detr.explain.faithfulness import Faithfulness, Trial
from detr.explain.levels import Level
from detr.explain.place import Asked
from detr.explain.plain import as_plain
from detr.explain.records import EncoderAttention, Explanation
from detr.files import write_text

MOST_PICTURES, MOST_BYTES = 60, 48_000_000
"""That a page holds. With deformable attention a picture takes half a megabyte or so, with dense attention several."""

_PARTS = ("page.html", "page.css", "page_map.js", "page_marks.js", "page_panels.js", "page.js")
_SIDE = 1400  # longer side of a picture, at most
_MOST_POSITIONS = 1024  # of the encoder's map: more would be too many pairs
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Page:
    """Gathers pictures, then writes them as one file; `layer` and `head` are what it shows first, None the mean."""

    def __init__(
        self, model: str, names: Mapping[int, str], *, layer: int | None = None, head: int | None = None
    ) -> None:
        self.model, self.names = model, names
        self.first = {"layer": layer, "head": head}
        self.notes: list[str] = []
        self._pictures: list[str] = []  # as JSON
        self._left_out = 0

    def add(
        self,
        name: str,
        image: Bands,
        found: Sequence[Explanation],
        *,
        trials: Sequence[Trial] = (),
        asked: Asked | None = None,
    ) -> None:
        """One more picture; beyond `MOST_PICTURES`, or `MOST_BYTES` of all, it and those after it are counted only."""
        full = self._left_out or len(self._pictures) == MOST_PICTURES
        picture = (
            "" if full else _json(self._picture(name, image, found, trials) | {"asked": asked and asked.to_json()})
        )
        if full or (self._pictures and sum(map(len, self._pictures)) + len(picture) > MOST_BYTES):
            self._left_out += 1
        else:
            self._pictures.append(picture)

    def write(self, path: Path, faithfulness: Faithfulness | None = None) -> None:
        if self._left_out:
            shown = f"{path.name} shows the first {len(self._pictures)} pictures"
            self.notes.append(f"{shown}; {counted(self._left_out, 'more is', 'more are')} in the folder only")
        colours = ["#" + "".join(f"{value:02x}" for value in colour) for colour in LEVEL_COLOURS]
        table = None if faithfulness is None else faithfulness.table()
        about = _json({"model": self.model, "first": self.first, "levelColours": colours, "faithfulness": table})
        data = f'{about[:-1]},"pictures":[{",".join(self._pictures)}]}}'
        write_text(path, _document(f"What {Path(self.model).name} looked at", data))

    def _picture(
        self, name: str, image: Bands, found: Sequence[Explanation], trials: Sequence[Trial]
    ) -> dict[str, Any]:
        encoder = found[0].encoder if found else None
        return {
            "name": name,
            "width": image.shape[1],
            "height": image.shape[0],
            "image": _as_url(image),
            "levels": [_grid(level) for level in found[0].levels] if found else [],
            "layers": found[0].num_layers if found else 0,
            "heads": found[0].num_heads if found else 0,
            "detections": [self._detection(*each) for each in zip_longest(found, trials)],
            "encoder": None if encoder is None else _encoder(encoder, whole=found[0].points is None),
        }

    def _detection(self, explanation: Explanation, trial: Trial | None) -> dict[str, Any]:
        plain = as_plain(explanation)
        plain["drops"] = None if trial is None else trial.score_drops
        if plain["proposal"] is not None:
            label = plain["proposal"]["class"]
            plain["proposal"]["name"] = None if label is None else self.names[label]
        looked = {key: plain.pop(key, None) for key in ("points", "attention", "levels")}
        plain["colour"] = chip(explanation.label)
        if looked["points"] is not None:
            points = explanation.points
            assert points is not None
            plain["points"] = _packed(np.concatenate([points.xy, points.weights[..., None]], -1).astype("<f4"))
            plain["pointLevels"] = list(points.levels)
        else:
            plain["attention"] = _bytes_of_shares(explanation.weights.reshape(-1, explanation.weights.shape[-1]))
        return plain


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _document(title: str, data: str) -> str:
    room = files("detr.explain")
    body, style, *scripts = ((room / name).read_text(encoding="utf-8") for name in _PARTS)
    script = '"use strict";\n' + "\n".join(scripts)
    plain = data.replace("</", "<\\/").replace("<!--", "<\\!--")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f'<body>\n{body}<script type="application/json" id="data">{plain}</script>\n<script>\n{script}</script>\n'
        "</body></html>\n"
    )


def _as_url(image: Bands) -> str:
    picture = Image.fromarray(shown(image))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _grid(level: Level) -> dict[str, int]:
    rows, columns = level.valid
    return {"height": level.height, "width": level.width, "rows": rows, "columns": columns, "start": level.start}


def _encoder(encoder: EncoderAttention, *, whole: bool) -> dict[str, Any] | None:
    """What each position looks at in the last layer, the mean over the heads; None of a map with too many positions.

    With `whole`, where the encoder is nothing but this attention, also where what each position holds came from.
    """
    if encoder.level.size > _MOST_POSITIONS:
        return None
    weights = encoder.weights(range(encoder.level.size)).mean(1)
    sources = _bytes_of_shares(encoder.sources) if whole else None
    return {**_grid(encoder.level), "weights": _bytes_of_shares(weights), "sources": sources}


def _bytes_of_shares(rows: NDArray[np.float32]) -> dict[str, str]:
    """[N, S] as bytes, of which 255 is the largest of its row, and these largest."""
    largest = np.maximum(rows.max(1, keepdims=True), 1e-12)
    return {
        "shares": _packed(np.round(rows / largest * 255).astype(np.uint8)),
        "largest": _packed(largest[:, 0].astype("<f4")),
    }


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
