"""Functions as operators of PyTorch's, which the compiler and the exporters take as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A function that changes nothing it is given, as `torch.ops.<name>`, on all devices.

    `torch.library.custom_op` does the same, but its operators load the compiler when they are first called, which takes
    a third of the time of finding the objects in a picture.
    """
    namespace, short = name.split("::")

    def made(function: Callable[..., Any]) -> Any:
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(name, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(name, "default", function)
        return getattr(getattr(torch.ops, namespace), short).default

    return made
