"""What every verb shares: exit codes, one line on stderr, and a start that costs nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import warnings

import click
import pytest

import detr.cli
from detr.errors import InputError, UsageError


def leave(monkeypatch, capsys, problem, *options):
    """Run a verb that ends with `problem`; the exit code and what stood on stderr."""

    @click.command()
    def verb():
        raise problem

    monkeypatch.setattr(detr.cli._Verbs, "get_command", lambda self, context, name: verb)
    monkeypatch.setattr(sys, "argv", ["detr", *options, "verb"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        detr.cli.main()
    captured = capsys.readouterr()
    assert captured.out == ""
    return left.value.code, captured.err


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (InputError("boxes.json: no\n categories"), 1, "error: boxes.json: no categories\n"),
        (UsageError("no such model"), 2, "error: no such model\n"),
        (click.BadParameter("must be at most 1"), 2, "error: Invalid value: must be at most 1\n"),
        (OSError(28, "No space left on device", "out.mp4"), 1, "error: out.mp4: No space left on device\n"),
        (MemoryError(), 1, "error: out of memory\n"),
        (ZeroDivisionError("oh"), 1, "error: ZeroDivisionError: oh (detr --debug ... shows where)\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),  # on a line of its own, after the terminal's ^C
        (detr.cli.Terminated(), 143, "terminated\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_end_has_its_exit_code_and_one_line(monkeypatch, capsys, problem, code, said):
    assert leave(monkeypatch, capsys, problem) == (code, said)


def test_debug_shows_the_traceback(monkeypatch, capsys):
    with pytest.raises(InputError):
        leave(monkeypatch, capsys, InputError("x"), "--debug")


def run(*arguments, **settings):
    command = [sys.executable, "-c", "from detr.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)


def test_unknown_verb_names_the_nearest():
    done = run("trian")
    assert (done.returncode, done.stderr) == (2, "error: no such command 'trian'; did you mean 'train'?\n")


def test_every_verb_and_alias_has_its_command():
    for verb in [*detr.cli.VERBS, *detr.cli.ALIASES]:
        command = detr.cli._Verbs().get_command(None, verb)
        assert isinstance(command, click.Command), verb
        assert command.help, f"detr {verb} doesn't say what it does"


@pytest.mark.parametrize("words", [(), ("data",), ("weights",)])
def test_nothing_to_do_shows_the_help_on_stderr(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: detr") and "\nCommands:\n" in done.stderr


def test_a_warning_is_one_line_without_the_code_that_gave_it(monkeypatch, capfd):
    @click.command()
    def verb():
        warnings.warn("a.jpg is turned\n the other way", stacklevel=1)

    monkeypatch.setattr(detr.cli._Verbs, "get_command", lambda self, context, name: verb)
    monkeypatch.setattr(sys, "argv", ["detr", "verb"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(warnings, "showwarning", lambda *said: sys.stderr.write(warnings.formatwarning(*said[:4])))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            detr.cli.main()
    assert capfd.readouterr().err == "warning: a.jpg is turned the other way\n"


def test_help_lists_every_verb():
    shown = run("--help").stdout
    assert all(f"  {verb} " in shown for verb in detr.cli.VERBS)


@pytest.mark.parametrize(
    "start", ["import detr", "import detr.cli", "from detr.cli import program; program.list_commands(None)"]
)
def test_start_imports_nothing_heavy(start):
    heavy = ["torch", "numpy", "cv2", "scipy", "pydantic", "PIL", "av", "yaml"]
    check = f"{start}; import sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


def test_public_names_are_all_there():
    import detr as package

    for name in package.__all__:
        assert getattr(package, name) is not None, name


def test_sigterm_unwinds_and_leaves_with_143(tmp_path):
    program = textwrap.dedent("""
        import os, signal, sys, time, click, detr.cli
        @click.command()
        def verb():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                open("cleaned", "w").close()
        detr.cli._Verbs.get_command = lambda self, context, name: verb
        sys.argv = ["detr", "verb"]
        detr.cli.main()
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (143, "terminated\n")
    assert os.listdir(tmp_path) == ["cleaned"]
