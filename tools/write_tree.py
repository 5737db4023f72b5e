"""Write the tree of README.md: a line for each file, which is the first line of its docstring."""

from __future__ import annotations

import ast
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- tree: tools/write_tree.py -->\n```text\n", "```\n<!-- end of tree -->"
WORDS = {
    "configs": "recipes, one for each model, over two bases",
    "datasets": "how data sets are laid out",
    "weights": "the table of releases, and the embedded model",
    "tests": "mirrors detr/ file by file; golden/ holds numbers of the official code",
}


def tree() -> str:
    """Every module of the package by room, then the tools, then the other folders."""
    lines = ["detr/"]
    lines += [_line(path, "  ") for path in sorted((ROOT / "detr").glob("*.py"))]
    for room in _rooms(ROOT / "detr"):
        lines += _room(room, "  ")
    lines.append("tools/")
    lines += [_line(path, "  ") for path in sorted((ROOT / "tools").glob("*.py"))]
    lines += [f"{name + '/':<30}{words}" for name, words in WORDS.items()]
    return "\n".join(lines) + "\n"


def with_tree(readme: str) -> str:
    """The text of README with the tree as it should be."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{tree()}{END}{after}"


def _room(room: Path, indent: str) -> list[str]:
    """Its files, then the rooms within it."""
    lines = [_line(room / "__init__.py", indent, f"{room.name}/")]
    lines += [_line(path, indent + "  ") for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
    return lines + [line for inner in _rooms(room) for line in _room(inner, indent + "  ")]


def _rooms(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/__init__.py"))


def _line(path: Path, indent: str, name: str | None = None) -> str:
    words = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
    return f"{indent + (name or path.name):<29} {words}".rstrip()


@click.command()
def command() -> None:
    """Write the tree of README.md from the files' docstrings."""
    readme = ROOT / "README.md"
    readme.write_text(with_tree(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    command()
