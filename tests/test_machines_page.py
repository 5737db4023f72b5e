"""The commands of docs/machines.md have the options, recipes and settings that they say."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from detr.training.recipe import load_recipe

PAGE = (Path(__file__).parents[1] / "docs" / "machines.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def scripts():
    yield from blocks("bash")
    for block in blocks("yaml"):
        spec = yaml.safe_load(block)["spec"]
        pod = spec["template"] if "template" in spec else spec["pytorchReplicaSpecs"]["Worker"]["template"]
        for container in pod["spec"]["containers"]:
            assert container["command"] == ["sh", "-c"]
            yield from container["args"]


def commands():
    """Of each line that starts processes, its words; a shell's variables stand for what they are set to."""
    for script in scripts():
        choices = re.findall(r'^\s+what="(.*)"$', script, flags=re.MULTILINE) or [""]
        for line in script.splitlines():
            if found := re.match(r"\s*(?:srun |exec )?((?:detr|torchrun) .*)", line):
                for choice in choices:
                    yield shlex.split(found[1].replace("$what", choice).replace("$run", "x"))


COMMANDS = list(commands())


def parsed(words):
    """The options of `detr ...` as click understands them, without running anything."""
    command = importlib.import_module(f"detr.cli.{words[0]}").command
    return command.make_context(words[0], words[1:]).params


def test_the_page_has_commands():
    assert len(COMMANDS) == 15


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_has_the_options_that_it_says(words):
    if words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
        assert given.module and given.training_script == "detr"
        words = ["detr", *given.training_script_args]
    options = parsed(words[1:])
    if words[1] == "train" and not (options["resume"] or options["replay"]):
        assert load_recipe(options["recipe"], options["settings"])
