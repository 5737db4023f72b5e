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
    rooms = sorted(path for path in (ROOT / "detr").iterdir() if path.is_dir() and (path / "__init__.py").is_file())
    lines += [_line(path, "  ") for path in sorted((ROOT / "detr").glob("*.py"))]
    for room in rooms:
        lines.append(f"  {room.name}/")
        lines += [_line(path, "    ") for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
    lines.append("tools/")
    lines += [_line(path, "  ") for path in sorted((ROOT / "tools").glob("*.py"))]
    lines += [f"{name + '/':<30}{words}" for name, words in WORDS.items()]
    return "\n".join(lines) + "\n"


def with_tree(readme: str) -> str:
    """The text of README with the tree as it should be."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{tree()}{END}{after}"


def _line(path: Path, indent: str) -> str:
    words = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
    return f"{indent + path.name:<30}{words}".rstrip()


@click.command()
def command() -> None:
    """Write the tree of README.md from the files' docstrings."""
    readme = ROOT / "README.md"
    readme.write_text(with_tree(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    command()
