"""Exported files among what `detr benchmark` times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detr.errors import UsageError

if TYPE_CHECKING:
    from detr.engine.benchmark import Case
    from detr.runtime.runner import Runner

_SETTLED = ("model", "half", "compile", "int8", "layers", "queries", "sweep")


def cases_of_file(name: str, knobs: list[str], **options: Any) -> list[Case]:
    """An exported file as it is, at each batch and, where it takes any, each size; UsageError for what it settles."""
    from detr.engine.benchmark import Case, settings_to_measure
    from detr.engine.cost import flops_of, parameters_of
    from detr.export import open_runner, require_device
    from detr.models import build_model
    from detr.runtime.settings import input_of_size

    asked = options | {"sweep": knobs, "layers": any(options["layers"]), "queries": any(options["queries"])}
    for word in _SETTLED:
        if asked[word]:
            raise UsageError(f"--{word}: {name} was exported with its own; export it again to change it")
    if options["backend"] != "torch":
        raise UsageError(f"--backend: {name} is an exported file, which says how it is run; time it by itself")
    require_device(name, options["device"])
    about = open_runner(name).about
    network = build_model(about.config, classes=about.classes).eval()
    ((layers, queries),) = settings_to_measure(network)
    inputs = [input_of_size(about.config.input, side) for side in options["imgsz"] or [None]]
    if not about.form.open_size and any(input != about.config.input for input in inputs):
        raise UsageError(f"--imgsz: {name} takes {about.size[0]} x {about.size[1]}; export one with --dynamic size")
    return [
        Case(
            name,
            _Opener(name),
            input.model_copy(update={"mean": None, "std": None}) if about.form.preprocessing else input,
            batch,
            layers,
            queries,
            parameters_of(network),
            flops_of(network, input) / 1e9,
        )
        for input in inputs
        for batch in options["batch"]
    ]


@dataclass(frozen=True)
class _Opener:
    path: str

    def __call__(self) -> Runner:
        from detr.export import open_runner

        return open_runner(self.path)
