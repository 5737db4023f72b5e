"""What a shell offers after TAB: presets, releases, devices and splits by name, and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem


class Offered(click.types.StringParamType):
    """Any text, of which some is offered; files too, if `files`."""

    def __init__(self, names: Callable[[], Iterable[str]], *, files: bool = False) -> None:
        self._names, self._files = names, files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # bash shows files where no name fits, and only if they are asked for before the names.
        files = [CompletionItem(incomplete, type="file")] if self._files else []
        return files + [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


def _presets() -> Iterable[str]:
    from detr.config import recipe_names

    return recipe_names()


def _releases() -> Iterable[str]:
    from detr.releases import RELEASES

    return RELEASES


_WEIGHTS = Offered(_releases, files=True)
_FILES = Offered(tuple, files=True)
OFFERED = {
    "weights": _WEIGHTS,
    "names": _WEIGHTS,
    "teacher": _WEIGHTS,
    "recipe": Offered(_presets, files=True),
    "model": Offered(_presets),
    "sources": _FILES,
    "file": _FILES,
    "calibrate": _FILES,
    "project": _FILES,
    "device": Offered(lambda: ("auto", "cpu", "cuda", "mps")),
    "split": Offered(lambda: ("train", "val", "test")),
}
"""By the names of parameters, which mean the same in every command."""


def offer(parameters: Iterable[click.Parameter]) -> None:
    """Texts among the parameters get what is offered for their names."""
    for parameter in parameters:
        if type(parameter.type) is click.types.StringParamType and parameter.name in OFFERED:
            parameter.type = OFFERED[parameter.name]
