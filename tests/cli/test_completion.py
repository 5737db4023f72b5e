import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from detr.cli import VERBS, program
from detr.cli.completion import OFFERED
from tests.cli.test_help import commands

FILES = ("file", "dei")


def offered(words, incomplete=""):
    items = ShellComplete(program, {}, "detr", "_DETR_COMPLETE").get_completions(words.split(), incomplete)
    return [(item.type, item.value) for item in items]


def names(words, incomplete=""):
    return [value for kind, value in offered(words, incomplete) if kind == "plain"]


def test_commands_and_flags_are_offered():
    assert names("") == list(VERBS)
    assert names("data") == ["check", "convert", "shapes"]
    assert "--weights" in names("predict", "--w") and "--zone" not in names("predict", "--w")
    assert names("val --evaluator", "p") == ["pycocotools"]


@pytest.mark.parametrize("words", ["train", "predict --weights", "predict a.jpg --weights", "benchmark", "export"])
def test_models_are_offered_and_files(words):
    assert offered(words, "dei")[0] == FILES
    assert {"deim-dfine-n", "deimv2-atto"} <= set(names(words, "dei")) < set(names(words))


@pytest.mark.parametrize(
    "words", ["predict", "explain", "weights inspect", "doctor", "val --data", "serve --calibrate"]
)
def test_files_are_offered_where_files_are_meant(words):
    assert offered(words, "dei") == [FILES]


def test_devices_and_splits_are_offered():
    assert names("predict --device", "c") == ["cpu", "cuda"] and names("val --split") == ["train", "val", "test"]


def test_everything_offered_is_of_parameters_that_there_are():
    assert set(OFFERED) <= {parameter.name for _, command in commands() for parameter in command.params}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_offers_what_click_does(tmp_path):
    """As its user would see it: sourced by bash, which calls the program."""
    detr = tmp_path / "detr"
    detr.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from detr.cli import main; main()' \"$@\"\n")
    detr.chmod(0o755)
    script = """
        PATH=.:$PATH
        eval "$(_DETR_COMPLETE=bash_source detr)"
        for line in "detr pre" "detr predict --weights deimv2-a" "detr predict st"; do
            COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            _detr_completion detr; echo "$line: ${COMPREPLY[*]}"
        done
    """
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    said = ["detr pre: predict", "detr predict --weights deimv2-a: deimv2-atto", "detr predict st: "]
    assert done.stdout.splitlines() == said, done.stderr
