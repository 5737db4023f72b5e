"""What every verb shares: exit codes, one line on stderr, and a start that costs nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import click
import PIL.Image
import pytest

import detr.cli
from detr.cli.stopping import Terminated
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
        (Terminated(), 143, "terminated\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_end_has_its_exit_code_and_one_line(monkeypatch, capsys, problem, code, said):
    assert leave(monkeypatch, capsys, problem) == (code, said)


def test_of_several_processes_that_are_stopped_one_says_so(monkeypatch, capsys):
    for rank, said in (("0", "terminated\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert leave(monkeypatch, capsys, Terminated()) == (143, said)


def test_what_ends_a_thread_is_a_line_too(monkeypatch, capsys):
    class Threaded(InputError):
        def __str__(self):
            begun = threading.Thread(target=os.stat, args=("absent\x1b",))
            begun.start()
            begun.join()
            return "so it ended"

    before = threading.excepthook
    said = "warning: absent\\x1b: No such file or directory\nerror: so it ended\n"
    assert leave(monkeypatch, capsys, Threaded()) == (1, said)
    assert threading.excepthook is before


def test_debug_shows_the_traceback(monkeypatch, capsys):
    with pytest.raises(InputError):
        leave(monkeypatch, capsys, InputError("x"), "--debug")


def run(*arguments, **settings):
    command = [sys.executable, "-c", "from detr.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)


@pytest.mark.parametrize(("word", "ours"), [("detect", "predict"), ("validate", "val"), ("finetune", "train")])
def test_a_verb_of_other_programs_names_ours(monkeypatch, capsys, word, ours):
    monkeypatch.setattr(sys, "argv", ["detr", word])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit) as left:
        detr.cli.main()
    assert (left.value.code, capsys.readouterr().err) == (
        2,
        f"error: no such command {word!r}; did you mean {ours!r}?\n",
    )


def test_unknown_verb_names_the_nearest():
    done = run("trian")
    assert (done.returncode, done.stderr) == (2, "error: no such command 'trian'; did you mean 'train'?\n")


def test_every_verb_and_alias_has_its_command():
    for verb in [*detr.cli.VERBS, *detr.cli.ALIASES]:
        command = detr.cli._Verbs().get_command(None, verb)
        assert isinstance(command, click.Command), verb
        assert command.help, f"detr {verb} doesn't say what it does"


def test_no_range_of_any_verb_has_nan_or_infinity_in_it():
    for verb in detr.cli.VERBS:
        command = detr.cli._Verbs().get_command(None, verb)
        for option in command.params:
            if isinstance(option.type, click.FloatRange):
                for text in ("nan", "inf", "1e999"):
                    with pytest.raises(click.BadParameter):
                        option.type.convert(text, option, None)


@pytest.mark.parametrize("words", [(), ("data",), ("weights",)])
def test_nothing_to_do_shows_the_help_on_stderr(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: detr") and "\nCommands:\n" in done.stderr


BOMB = "Image size (108000000 pixels) exceeds limit of 89478485 pixels, could be decompression bomb DOS attack."


def test_a_warning_is_one_line_without_the_code_that_gave_it(monkeypatch, capfd):
    @click.command()
    def verb():
        warnings.warn("a.jpg is turned\n the other way", stacklevel=1)
        warnings.warn(BOMB, stacklevel=1)

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


def test_finding_objects_in_a_picture_waits_for_nothing_it_does_not_need(tmp_path):
    needless = ["torch._dynamo", "sympy", "torchvision", "triton", "matplotlib", "scipy", "pycocotools"]
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    check = f"""
import sys
from detr.cli import program
program(["predict", "grey.png", "--device", "cpu"], standalone_mode=False)
print([name for name in {needless} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_public_names_are_all_there():
    import detr as package

    for name in package.__all__:
        assert getattr(package, name) is not None, name


@pytest.mark.parametrize(
    ("ends", "code", "said", "left"),
    [
        ("kill(SIGTERM); sleep(5)", 143, "terminated\n", ["cleaned"]),
        ("kill(SIGINT); sleep(5)", 130, "\ninterrupted\n", ["cleaned"]),
        ("stopping._SAME = 9; twice.append(SIGINT); kill(SIGINT); sleep(5)", 130, "\ninterrupted\n", ["cleaned"]),
        ("stopping._SAME = 0; twice.append(SIGTERM); kill(SIGTERM); sleep(5)", -15, "", []),  # the shell calls it 143
        ("atexit.register(kill, SIGTERM)", -15, "", ["cleaned"]),
        ("kill_in_import()", 130, "interrupted\n", ["cleaned"]),
    ],
    ids=["SIGTERM", "SIGINT", "twice at once", "twice", "at exit", "in an import"],
)
def test_a_signal_unwinds_once_and_leaves_with_its_code(tmp_path, ends, code, said, left):
    program = textwrap.dedent("""
        import atexit, os, signal, sys, click, detr.cli
        from detr.cli import stopping
        from signal import SIGINT, SIGTERM
        from time import sleep
        signal.signal(SIGINT, signal.default_int_handler)  # the tests' own background may ignore it
        twice = []
        def kill(number):
            signal.raise_signal(number)
        def kill_in_import():
            try:
                kill(SIGINT)
            except KeyboardInterrupt:
                raise ImportError("cut short") from None
        @click.command()
        def verb():
            try:
                ENDS
            finally:
                for number in twice:
                    kill(number)
                open("cleaned", "w").close()
        detr.cli._Verbs.get_command = lambda self, context, name: verb
        sys.argv = ["detr", "verb"]
        detr.cli.main()
    """).replace("ENDS", ends)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (code, said)
    assert os.listdir(tmp_path) == left


def in_shell(line, **settings):
    """`line` in sh, where `detr` is this program."""
    start = f"detr() {{ '{sys.executable}' -c 'from detr.cli import main; main()' \"$@\"; }}\n"
    return subprocess.run(["sh", "-c", start + line], capture_output=True, text=True, timeout=60, **settings)


@pytest.mark.skipif(os.name == "nt", reason="the shell of other systems")
@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("detr trian 2>&-", 2, "", ""),
        ("detr trian >&-", 2, "", "error: no such command 'trian'; did you mean 'train'?\n"),
        ("detr --version | true; detr trian <&- >&- 2>&-", 2, "", ""),
        ("mkdir gone && cd gone && rmdir ../gone && detr models", 1, "", "error: the current folder is gone; "),
        (r"""detr "$(printf 'a\033[31mb\377')" """, 2, "", r"error: no such command 'a\x1b[31mb\udcff'"),
    ],
)
def test_odd_surroundings_get_a_line_on_stderr_or_nothing(tmp_path, line, code, out, err):
    done = in_shell(line, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(err) and done.stderr.count("\n") == bool(err)


def test_what_nobody_listens_to_is_written_into_no_file(tmp_path):
    program = "import os; from detr.cli import _open_streams; _open_streams(); print(os.open('f', os.O_CREAT) > 2)"
    done = in_shell(f"'{sys.executable}' -c \"{program}\" <&- 2>&-", cwd=tmp_path)
    assert done.stdout == "True\n"
