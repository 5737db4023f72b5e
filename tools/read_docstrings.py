"""For the documentation site: arguments in docstrings become lists, and the comment behind a field its description."""

from __future__ import annotations

import re
from typing import Any

import griffe

_COMMENT = re.compile(r"""^[^"'#]*(?:(?:"[^"]*"|'[^']*')[^"'#]*)*  # (.+)$""")


class ReadDocstrings(griffe.Extension):
    """Changes what griffe has collected of a package, before mkdocstrings shows it."""

    def on_package(self, *, pkg: griffe.Module, **others: Any) -> None:
        _walk(pkg)


def _walk(holder: griffe.Module | griffe.Class) -> None:
    for member in holder.members.values():
        if isinstance(member, griffe.Alias):
            continue
        if isinstance(member, griffe.Attribute) and member.docstring is None:
            _take_comment(member)
        elif isinstance(member, griffe.Function):
            member.overloads = None  # say nothing that the function itself doesn't
            if member.docstring is not None:
                names = {parameter.name for parameter in member.parameters}
                member.docstring.value = with_lists(member.docstring.value, names)
        elif isinstance(member, griffe.Module | griffe.Class):
            _walk(member)


def with_lists(text: str, names: set[str]) -> str:
    """Lines that begin with `name: ` or `name, other: `, of arguments, become items of a list."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        said = re.match(r"([\w`]+(?:, [\w`]+)*): ", line)
        if said and set(re.findall(r"\w+", said[1])) <= names:
            lines += [] if inside else [""]
            lines.append("- " + re.sub(r"`?\b(\w+)\b`?", r"`\1`", said[1]) + line[said.end() - 2 :])
            inside = True
        else:
            inside = inside and bool(line.strip())
            lines.append(line.strip() if not inside else "  " + line.strip())
    return "\n".join(lines)


def _take_comment(attribute: griffe.Attribute) -> None:
    """`boxes: Tensor  # [N, 4] in pixels`"""
    if attribute.lineno is not None and attribute.lineno == attribute.endlineno:
        comment = _COMMENT.match(attribute.source.strip())
        if comment:
            attribute.docstring = griffe.Docstring(comment[1], parent=attribute)
