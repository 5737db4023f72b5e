"""The user's mistakes: one clear line saying what was given, what was expected, and the nearest right thing."""

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Something given to us is unusable (a broken file, a bad annotation). The command line exits with 1."""

    exit_code = 1


class UsageError(InputError):
    """We were asked wrongly (unknown name, absent path, bad setting). The command line exits with 2."""

    exit_code = 2


class NotWritten(InputError):
    """A file or folder of ours can't be written: what is wrong is the disk, or who may do what there."""


class NotAnImage(InputError):
    """What was given is in none of the formats that are read as images."""


class TooLarge(InputError):
    """An image claims more pixels than are decoded."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'epochs'?"` for the nearest of `known`, or an empty string where none is near."""
    by_plain = {str(name).casefold(): name for name in known}
    nearest = difflib.get_close_matches(str(word).casefold(), list(by_plain), n=1, cutoff=0.6)
    return f"; did you mean {by_plain[nearest[0]]!r}?" if nearest else ""


def listed(values: Sequence[object], most: int = 5) -> str:
    """`a, b, c, ...`: the first few of them."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 image`, `1,024 images`; `many` where that isn't `one` with an s, or a verb follows."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


def visible(text: str) -> str:
    """As a terminal may be told it: characters that would steer it, and bytes that are no UTF-8, with backslashes.

    Names of files and classes come from anybody. Tabs and ends of lines stay.
    """
    return text.translate(_CONTROL).encode(errors="backslashreplace").decode()


def shortened(text: str) -> str:
    """As much of it as fits in a message."""
    return text if len(text) <= 60 else text[:57] + "..."
