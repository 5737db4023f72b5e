"""README says what is so."""

import importlib.util
import re
from pathlib import Path

import detr.cli
from detr.config import recipe_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tree_is_that_of_the_files():
    assert tool("write_tree").with_tree(README) == README, "run: python tools/write_tree.py"


def test_tables_are_those_of_what_was_measured_and_published():
    writer, weights = tool("write_models_table"), (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    again = "run: python tools/write_models_table.py"
    assert writer.with_table(README, writer.MODELS_BEGIN, writer.models_table()) == README, again
    assert writer.with_table(weights, writer.RELEASES_BEGIN, writer.releases_table()) == weights, again


def test_every_verb_it_types_is_there():
    verbs = set(re.findall(r"^(?:\.venv/bin/)?detr (\w+)", README, re.MULTILINE))
    assert verbs
    assert verbs <= {*detr.cli.VERBS, *detr.cli.ALIASES}


def test_every_model_it_names_is_there():
    named = set(re.findall(r"`(rtdetr(?:v2)?-[a-z0-9-]+)`", README)) | set(re.findall(r'RTDETR\("([^"/.]+)"\)', README))
    assert named
    assert named <= set(recipe_names())


def test_every_file_it_links_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
