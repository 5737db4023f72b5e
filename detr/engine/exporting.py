"""`Detector.export`: the network as a proven file of another program."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from detr.data.opening import open_split
from detr.data.sources import find_split
from detr.errors import UsageError
from detr.export import Form, form_for, of_input, require_format
from detr.export.proven import calibration_of, path_for, write_proven
from detr.files import require_writable
from detr.image import InputConfig
from detr.models import Network


def exported(
    network: Network,
    source: str,
    format: str,
    *,
    out: Path | None,
    input: InputConfig,
    half: bool,
    int8: bool,
    calibrate: str | os.PathLike[str] | None,
    preprocessing: bool,
    max_det: int | None,
    open_batch: bool,
    open_size: bool | None,
    verify: bool,
    data: str | os.PathLike[str] | None,
    split: str,
    say: Callable[[str], None],
) -> Path:
    """The path of the file; `source` is what the weights are called."""
    require_format(format, int8=int8)
    if int8 != (calibrate is not None):
        raise UsageError("int8 and calibrate go together: calibrate is a data set with some hundred images")
    path = path_for(source, format, out, half=half, int8=int8)
    require_writable(path.parent)
    network = of_input(deepcopy(network).cpu(), input)
    if open_size is None:
        open_size = form_for(network).open_size and not preprocessing
    write_proven(
        format,
        network,
        path,
        form=Form(preprocessing, max_det, open_batch, open_size, half),
        calibration=None if calibrate is None else calibration_of(calibrate),
        verify=verify,
        dataset=None if data is None else open_split(find_split(data, split)),
        called="generated pictures" if data is None else os.fspath(data),
        say=say,
    )
    return path
