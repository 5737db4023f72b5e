"""The pages say what is so: each command in a `bash` block runs as it stands, without a network, and leaves with 0."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from detr.cli import VERBS, program
from detr.data.shapes_video import moving_shapes, write_video

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ["index", "predict", "train", "measure", "explain", "ship", "python"]  # as one would read them
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
    arguments = ["shapes", "my-data", "--images", "12", "--val-images", "4", "--size", "96", "--no-video"]
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
            continue
        code = program.main(words, prog_name="detr", standalone_mode=False)
        assert not code, f"{command}\n{capfd.readouterr().err}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(page, reader, monkeypatch):
    monkeypatch.chdir(reader)
    for block in blocks(page, "python"):
        exec(compile(block, f"{page}.md", "exec"), {})


def test_what_is_only_shown_has_options_that_there_are():
    shown = [
        line.removeprefix("$ ") for page in PAGES for block in blocks(page, "console") for line in block.splitlines()
    ]
    ours = [shlex.split(line) for line in shown if line.startswith("detr ")]
    assert ours
    for _, verb, *words in ours:
        command = program.get_command(None, verb)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def test_every_verb_has_a_word_somewhere():
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    assert [verb for verb in VERBS if not re.search(rf"detr {verb}\b", text)] == []


def test_every_page_is_in_the_menu_and_every_link_leads_somewhere():
    menu = {file for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"] for file in entry.values()}
    assert menu == {path.name for path in DOCS.glob("*.md")}
    for path in DOCS.glob("*.md"):
        links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (DOCS / link).exists()] == []
