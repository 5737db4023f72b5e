"""A page to look at: pictures, a video and numbers in one HTML file beside its media; nothing from a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detr.files import write_text


@dataclass(frozen=True)
class Section:
    """A heading, a few words, and what to show below. Media are paths relative to the page, or `data:` addresses."""

    title: str
    text: str = ""
    table: Sequence[Sequence[str]] = ()  # the first row is the head
    pictures: Sequence[tuple[str, str]] = ()  # (file, caption)
    video: str | None = None
    words: bool = False  # the table has words, and no numbers to compare
    wide: bool = False  # each picture has the width of the page


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #2f6fdd; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 68rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
.words td, .words th, td:first-child, th:first-child { text-align: left; padding-left: 0; } th { font-weight: 600; }
figure { margin: 0; } figcaption { font-size: .85rem; opacity: .75; padding: .25rem 0 .6rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(28rem, 100%), 1fr)); gap: .8rem; }
.table { overflow-x: auto; } h1, h2, p { overflow-wrap: anywhere; }
.wide { display: block; overflow-x: auto; } .wide img { width: auto; }
.wide img, .pictures img[src^="data:image/png"] { background: #fff; }
img, video { width: 100%; border-radius: 6px; background: #8882; }
video { max-width: 44rem; } code { background: #8882; padding: .1rem .3rem; border-radius: 4px; }
"""


def write_page(path: str | Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write the page. All words are escaped; nothing in it comes from elsewhere."""
    body = "\n".join(_section(section) for section in sections)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>\n{body}\n</body></html>\n",
    )


def _section(section: Section) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    if section.video:
        parts.append(f'<video src="{html.escape(section.video)}" controls loop muted autoplay playsinline></video>')
    if section.table:
        head, *rows = section.table
        start = '<table class="words">' if section.words else "<table>"
        whole = start + _row(head, "th") + "".join(_row(row, "td") for row in rows) + "</table>"
        parts.append(f'<div class="table">{whole}</div>')
    if section.pictures:
        pictures = "".join(_picture(*picture) for picture in section.pictures)
        parts.append(f'<div class="pictures{" wide" * section.wide}">{pictures}</div>')
    return "\n".join([*parts, "</section>"])


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _picture(file: str, caption: str) -> str:
    return (
        f'<figure><img src="{html.escape(file)}" alt="{html.escape(caption)}" loading="lazy">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
