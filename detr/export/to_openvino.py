"""An ONNX file of ours -> OpenVINO's form: an .xml and, beside it, a .bin of the same name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from detr.export.about import KEY, About
from detr.export.packages import package
from detr.export.seal import seal
from detr.files import require_writable


def read_openvino(path: Path) -> Any:
    """The model in an `.xml` or `.onnx` file."""
    openvino = package("openvino")
    return openvino.Core().read_model(path)


def write_openvino(model: Any, about: About, path: Path) -> None:
    """With the numbers as they are, not rounded to 16 bits. The .xml appears last, when all is there."""
    openvino = package("openvino")
    require_writable(path.parent)
    model.set_rt_info(about.to_json(), [KEY, "about"])
    _number_anew(model)
    with TemporaryDirectory(dir=path.parent, prefix=".openvino-") as aside:
        whole = Path(aside) / path.name
        openvino.save_model(model, whole, compress_to_fp16=False)
        seal(whole)
        for part in (path.with_suffix(".bin"), path):
            os.replace(whole.with_suffix(part.suffix), part)


def _number_anew(model: Any) -> None:
    """What OpenVINO names itself, such as Constant_7, it counts through a process: other bytes for the same network."""
    for number, op in enumerate(model.get_ordered_ops()):
        kind = op.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", op.get_friendly_name()):
            op.set_friendly_name(f"{kind}_{number}")


def said_by(model: Any) -> str | None:
    """What `write_openvino` put there."""
    place = [KEY, "about"]
    return model.get_rt_info(place).astype(str) if model.has_rt_info(place) else None
