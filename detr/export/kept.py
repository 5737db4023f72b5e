"""Files made on the way to a runner, kept for the next time: `$DETR_HOME/exports` (`~/.cache/detr/exports`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from detr import __version__
from detr.export.about import about_of
from detr.export.form import PLAIN, Form
from detr.export.packages import version
from detr.files import home
from detr.models import Network

_DIGITS = 20


def kept_at(network: Network, suffix: str, packages: Sequence[str], *more: str, form: Form = PLAIN) -> Path:
    """The place of the file that these weights and settings make, with these versions of everything."""
    about = about_of(network, form).to_json()
    versions = [f"{name} {version(name)}" for name in packages]
    digest = hashlib.sha256("\n".join([__version__, torch.__version__, *versions, about, *more]).encode())
    return home() / "exports" / f"{network.config.arch}-{digest.hexdigest()[:_DIGITS]}{suffix}"
