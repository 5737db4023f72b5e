"""Data sets: found, read, checked, augmented, loaded; and one that is generated."""

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[..., Iterable[Any]]
"""A bar that the caller lends: `progress(iterable, total=, description=)` yields what the iterable does."""
