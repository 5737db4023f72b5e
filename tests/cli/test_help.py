"""Help that a stranger can read: on 80 columns, options where they belong."""

import click
import pytest

from detr.cli import VERBS, help, program


def commands():
    for verb in VERBS:
        command = program.get_command(None, verb)
        inner = command.commands if isinstance(command, click.Group) else {}
        yield from [(verb, command), *((f"{verb} {name}", each) for name, each in inner.items())]


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda given: given if isinstance(given, str) else ""
)
def test_help_fits_80_columns_and_cuts_nothing_short(name, command):
    context = click.Context(command, info_name=f"detr {name}", terminal_width=80)
    lines = command.get_help(context).splitlines()[1:]
    assert [line for line in lines if len(line) > 80 or line.endswith("...")] == []
    assert not any("RANGE" in line for line in lines), "numbers are N or X"


def test_every_heading_is_of_parameters_that_there_are():
    named = {parameter.name for _, command in commands() for parameter in command.params}
    assert set(help._HEADING_OF) <= named


def test_options_stand_under_their_heading():
    command = program.get_command(None, "predict")
    text = command.get_help(click.Context(command, terminal_width=80))
    first, second = text.index("\nDetections:\n"), text.index("\nLarge pictures:\n")
    assert first < text.index("  --conf") < second < text.index("  --slice") < text.index("\nOutput:\n")
