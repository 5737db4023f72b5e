"""The command line: one small file per verb, loaded only when it is called, so `detr --help` answers at once."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import threading
import warnings
from typing import Any, NoReturn

import click

from detr import __version__
from detr.cli.stopping import Stop, Terminated
from detr.errors import InputError, did_you_mean, visible

VERBS = {
    "demo": "See a detector at work: evaluate, predict a video, write a page.",
    "train": "Train a model, from scratch or from weights.",
    "tune": "Search for the settings that train best.",
    "val": "Measure a model, or a file of predictions, on a data set.",
    "predict": "Find objects in images, videos, cameras and streams.",
    "track": "Follow objects through videos, cameras and streams, and count them.",
    "explain": "Show what each detection looked at.",
    "serve": "Answer requests over HTTP, with a page to try it on.",
    "export": "Write a model for ONNX Runtime, OpenVINO or PyTorch, and prove the file.",
    "parity": "Measure a model in every way there is, and whether they agree.",
    "data": "Make, look at and convert data sets.",
    "doctor": "Find what is wrong with a data set, or with this machine.",
    "weights": "List, download, inspect and convert weights.",
    "models": "List the models.",
    "benchmark": "Time models, and what their layers and queries buy.",
}
ALIASES = {"eval": "val"}
ELSEWHERE = {
    "detect": "predict", "infer": "predict", "inference": "predict", "test": "val", "validate": "val",
    "evaluate": "val", "fit": "train", "finetune": "train", "convert": "data convert", "check": "data check",
    "download": "weights download", "checks": "doctor", "info": "weights inspect",
}  # fmt: skip
"""What other programs call our verbs."""

COMPUTING = {"demo", "train", "val", *ALIASES, "predict", "track", "explain", "export", "parity", "benchmark"}


class _Verbs(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        name = ALIASES.get(name, name)
        if name not in VERBS:
            return None
        return importlib.import_module(f"detr.cli.{name}").command

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            meant = ELSEWHERE.get(args[0])
            nearest = f"; did you mean {meant!r}?" if meant else did_you_mean(args[0], [*VERBS, *ALIASES])
            raise click.UsageError(f"no such command {args[0]!r}{nearest}", context)
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="detr")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def program(context: click.Context, debug: bool) -> None:
    """Object detection with transformers of the DETR family."""
    _require_place()
    if context.invoked_subcommand in COMPUTING:
        from detr.cli.allocation import keep_freed_memory

        keep_freed_memory()


def _require_place() -> None:
    """Libraries that are loaded later end the program without a word, or worse, where it is nowhere."""
    try:
        os.getcwd()
    except OSError:
        raise InputError("the current folder is gone; change to another one, and try again") from None


def main() -> NoReturn:
    """Run the command line; leave with 0, 1 (failed), 2 (wrong usage), 130 (Ctrl-C) or 143 (SIGTERM)."""
    stop, of_threads = Stop(), threading.excepthook
    try:
        _open_streams()
        if "--debug" not in sys.argv[1:]:
            threading.excepthook = _one_line_of_thread
        _run(stop)
    finally:
        threading.excepthook = of_threads
        stop.over()


def _run(stop: Stop) -> NoReturn:
    debug = "--debug" in sys.argv[1:]
    if not debug:
        warnings.formatwarning = _one_line
        # Pillow's, of pictures that are large but below our own limit.
        warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        code = program.main(arguments, prog_name="detr", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, click.Abort, Terminated) as stopped:
        if debug:
            raise
        _leave_stopped(128 + (signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT))
    except click.exceptions.NoArgsIsHelpError as nothing_said:
        click.echo(nothing_said.format_message(), err=True)
        sys.exit(nothing_said.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`detr ... | head`): nothing is left to say, and flushing would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as problem:
        if debug:
            raise
        if stop.number:  # what was under way, an import for one, said in words of its own that it was cut short
            _leave_stopped(stop.code)
        print(f"error: {visible(_said(problem))}", file=sys.stderr)
        sys.exit(_exit_code(problem))


def _leave_stopped(code: int) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # of several processes, which all hear of it
        print("terminated" if code == 128 + signal.SIGTERM else "interrupted", file=sys.stderr)
    sys.exit(code)


def _open_streams() -> None:
    """What is said where nobody listens (`2>&-`) is lost, rather than written into the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))  # the lowest free number: its own
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: letters that the terminal's encoding lacks


def _said(problem: Exception) -> str:
    if isinstance(problem, click.ClickException):
        return " ".join(problem.format_message().split())
    if isinstance(problem, InputError):
        return " ".join(str(problem).split())
    if isinstance(problem, MemoryError):
        return "out of memory"
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename}: {problem.strerror}" if problem.filename else problem.strerror
    return f"{type(problem).__name__}: {' '.join(str(problem).split())} (detr --debug ... shows where)"


def _one_line(message: Warning | str, *place: Any, **where: Any) -> str:
    """A warning as its reader needs it; where in the code it was given is for --debug."""
    return f"warning: {visible(' '.join(str(message).split()))}\n"


def _one_line_of_thread(about: threading.ExceptHookArgs) -> None:
    """What ends a thread of a library's: who waits for it says what came of that."""
    if isinstance(about.exc_value, Exception):
        print(f"warning: {visible(_said(about.exc_value))}", file=sys.stderr)


def _exit_code(problem: Exception) -> int:
    return getattr(problem, "exit_code", 1)
