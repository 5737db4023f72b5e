"""The pages say what is so: each command in a `bash` block runs as it stands, without a network, and leaves with 0."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from detr.cli import VERBS, program
from detr.data.shapes_video import moving_shapes, write_video
from detr.training.recipe import load_recipe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [  # as one would read them
    *("index", "predict", "train", "measure", "explain", "ship", "json"),
    *("coming-from", "troubleshooting", "python", "networks", "parts", "own"),
]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, kind):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return [content for found, content in _BLOCK.findall(text) if found == kind]


def commands(page):
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    """A folder with what the pages speak of: `my-data`, `photos`, `street.jpg`, `walk.mp4`."""
    folder = tmp_path_factory.mktemp("reader")
    arguments = ["shapes", "my-data", "--images", "8", "--val-images", "4", "--size", "96", "--no-video"]
    subprocess.run([sys.executable, "-m", "detr", "data", *arguments], cwd=folder, check=True, capture_output=True)
    pictures = sorted((folder / "my-data" / "images" / "val").iterdir())
    (folder / "photos").mkdir()
    for picture in pictures[:2]:
        shutil.copy(picture, folder / "photos")
    shutil.copy(pictures[0], folder / "street.jpg")
    write_video(folder / "walk.mp4", (image for image, _ in moving_shapes(0, frames=6)))
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_runs(page, reader, monkeypatch, capfd):
    monkeypatch.chdir(reader)
    monkeypatch.setenv("DETR_OFFLINE", "1")
    for command in commands(page):
        name, *words = shlex.split(command)
        assert name == "detr"
        if words[:2] == ["data", "shapes"]:  # there already, and smaller
            require_options(command)
            continue
        code = program.main(words, prog_name="detr", standalone_mode=False)
        assert not code, f"{command}\n{capfd.readouterr().err}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != "ship"])
def test_the_python_of_a_page_runs(page, reader, monkeypatch):
    """That of `ship` needs an exported file; it runs in tests/export/test_without_us.py."""
    monkeypatch.chdir(reader)
    names: dict[str, object] = {}  # a block goes on with what those before it made
    for block in blocks(page, "python"):
        exec(compile(block, f"{page}.md", "exec"), names)


def require_options(command):
    """That a command line names a verb and options that there are."""
    _, verb, *words = shlex.split(command)
    found = program.get_command(None, verb)
    assert found is not None, command
    if words and isinstance(found, click.Group):
        found = found.get_command(None, words.pop(0))
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, command


def test_what_is_only_shown_has_options_that_there_are():
    shown = [
        line.removeprefix("$ ") for page in PAGES for block in blocks(page, "console") for line in block.splitlines()
    ]
    text = "".join((DOCS / f"{page}.md").read_text(encoding="utf-8") for page in PAGES)
    ours = [line for line in [*shown, *re.findall(r"`(detr [^`]+)`", text)] if line.startswith("detr ")]
    assert ours
    for command in ours:
        require_options(command)


def test_every_recipe_word_that_is_shown_is_a_setting():
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    shown = [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^(?:\$ )?detr .+$", text, re.MULTILINE)]
    together = {tuple(re.findall(r"(?<!--search )\b(?:train|augment|model)\.[\w.]+=\S+", each)) for each in shown} - {
        ()
    }
    assert together
    for words in together:
        load_recipe("detr-r50-dc5" if "model.num_queries=50" in words else "rtdetr-r18", words)


@pytest.mark.parametrize("module", ["detr", "detr.layers"])
def test_every_public_name_is_in_the_reference(module):
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    names = [name for name in importlib.import_module(module).__all__ if not name.startswith("__")]
    assert [name for name in names if not re.search(rf"^::: detr\.[\w.]*\b{name}$", text, re.MULTILINE)] == []


def test_every_verb_has_a_word_somewhere():
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    assert [verb for verb in VERBS if not re.search(rf"detr {verb}\b", text)] == []


def test_every_page_is_in_the_menu_and_every_link_leads_somewhere():
    menu = re.findall(r"[\w-]+\.md", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(menu) == sorted(path.name for path in DOCS.glob("*.md"))
    for path in DOCS.glob("*.md"):
        links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (DOCS / link).exists()] == []
