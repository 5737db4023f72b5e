"""Help that is read: options under headings, the same for every verb, and numbers as N."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from detr.cli.completion import offer

_HEADINGS: dict[str, str] = {
    "Model": "weights model fresh predictions",
    "Data": "data images split trains train_images",
    "Experiment": "finetune epochs accumulate amp teacher freeze patience seed trials searched",
    "Going on": "resume check replay allow_changes save_every",
    "Detections": "conf classes max_det max_dets vid_stride every evaluator allow_extra_images",
    "Explanation": "at layer head faithful",
    "Large pictures": "tile overlap tiles_only",
    "Tracking and counting": "track lines zones count_at weak lost_after trail fps",
    "File": "formats out dynamic with_preprocessing with_postprocessing",
    "Proof": "verify most recorded",
    "Server": "host port root_path origins wait queue",
    "Limits": "queue_mb max_mb max_megapixels max_video_mb max_video_megapixels max_frames",
    "Computing": "imgsz batch layers queries device half compile backend int8 calibrate deterministic workers cache",
    "Timing": "sweep warmup seconds",
    "Output": "why",
}
"""Names of parameters. What is in none of these is of the run and its output."""
_LAST = "Output"
_FEW = 9  # options that need no headings
_HEADING_OF = {name: heading for heading, names in _HEADINGS.items() for name in names.split()}


_SAID_OTHERWISE = {
    "--source": ("sources", "sources stand for themselves, such as: detr predict street.jpg"),
    "--lr": ("settings", "it is a setting of the recipe, such as train.optimizer.lr=1e-4"),
    "--cfg": ("recipe", "the recipe stands for itself, such as: detr train rtdetr-r18"),
    "--config": ("recipe", "the recipe stands for itself, such as: detr train rtdetr-r18"),
    "-c": ("recipe", "the recipe stands for itself, such as: detr train rtdetr-r18"),
    "--save": ("no_save", "pictures are saved unless --no-save is said"),
    "--output": ("project", "results go to the folder that --project and --name say"),
    "--view-img": ("show", "it is --show"),
    "--img-size": ("imgsz", "it is --imgsz"),
    "--conf-thres": ("conf", "it is --conf"),
}
"""Options of other programs: which argument of ours takes them, and how."""

_TAKES_NAMES = ("weights", "predictions", "data")


class Verb(click.Command):
    """A command whose help has headings."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        offer(self.params)
        for parameter in self.params:
            if isinstance(parameter, click.Option) and parameter.metavar is None and not parameter.is_flag:
                parameter.metavar = _plain(parameter.type)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for before, word in zip(["", *args], args, strict=False):
            if not before.startswith("-") and (instead := self._with_dashes(word)) is not None:
                raise click.UsageError(f"{word}: here that is written {instead}", ctx)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as problem:
            argument, instead = _SAID_OTHERWISE.get(problem.option_name, ("", ""))
            if any(parameter.name == argument for parameter in self.params):
                raise click.UsageError(f"No such option {problem.option_name!r}; {instead}", ctx) from None
            raise
        except click.UsageError as problem:
            if problem.message.startswith("Got unexpected extra argument"):
                names = (f"--{parameter.name}" for parameter in self.params if parameter.name in _TAKES_NAMES)
                said = f"{problem.message}; which option is it for: {', '.join(names)}?"
                raise click.UsageError(said, ctx) from None
            raise

    def _with_dashes(self, word: str) -> str | None:
        """How `key=value`, as other programs take it, is written here; None where it is something else."""
        key, _, value = word.partition("=")
        if not key.isidentifier() or not value or value.startswith("{") or Path(word).exists():
            return None
        names = {parameter.name for parameter in self.params}
        if (key == "source" and "sources" in names) or (key == "model" and "recipe" in names):
            return value
        if key == "model" and "weights" in names:
            positional = any(isinstance(each, click.Argument) and each.name == "weights" for each in self.params)
            return value if positional else f"--weights {value}"
        flag = f"--{key.replace('_', '-')}"
        for parameter in self.params:
            if isinstance(parameter, click.Option) and flag in parameter.opts:
                return flag if parameter.is_flag else f"{flag} {value}"
        return None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if len(self.params) <= _FEW:
            return super().format_options(ctx, formatter)
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in _HEADINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                rows[_HEADING_OF.get(parameter.name or "", _LAST)].append(record)
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _plain(kind: click.ParamType) -> str | None:
    """None leaves it to click."""
    kinds = {"N": click.types.IntParamType, "X": click.types.FloatParamType}
    return next((letter for letter, type in kinds.items() if isinstance(kind, type)), None)
