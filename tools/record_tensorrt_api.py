"""Record what TensorRT's Python bindings offer, which the tests hold our calls to where there is no TensorRT.

    python tools/record_tensorrt_api.py tests/export/tensorrt_api.json

Of classes that `detr.export` uses: methods with the names of their arguments (`?` after those that may be left out);
properties, and the members of enumerations. The record of the installed version joins those of others in the file. No
GPU is needed: the bindings (`pip install --no-deps tensorrt-cu12-bindings==10.3.0`) say all this by themselves once the
libraries that they name load, be they empty.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

CLASSES = ["ILogger", "Builder", "IBuilderConfig", "IOptimizationProfile", "OnnxParser", "ParserError", "ITimingCache"]
CLASSES += ["IHostMemory", "Runtime", "ICudaEngine", "IExecutionContext"]
ENUMS = ["ILogger.Severity", "NetworkDefinitionCreationFlag", "BuilderFlag", "MemoryPoolType", "DataType"]


def main(path: Path) -> None:
    """Add the installed version to the file."""
    tensorrt = importlib.import_module(_installed())
    known = json.loads(path.read_text()) if path.is_file() else {}
    known[tensorrt.__version__] = {
        "classes": {name: _offered(getattr(tensorrt, name)) for name in CLASSES},
        "enums": {name: sorted(_found(tensorrt, name).__members__) for name in ENUMS},
    }
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _installed() -> str:
    names = ("tensorrt", "tensorrt_bindings")
    return next(name for name in names if importlib.util.find_spec(name) is not None)


def _offered(kind: Any) -> dict[str, Any]:
    """Method -> its ways of being called; property -> None."""
    offered = {}
    for name in dir(kind):
        member = getattr(kind, name)
        if name == "__init__" or not name.startswith("_"):
            calls = re.findall(rf"{name}\((self: .*)\) ->", member.__doc__ or "")
            offered[name] = [_arguments(call) for call in calls] or None
    return offered


def _arguments(call: str) -> str:
    """`self: A, flags: int = 0` -> `flags?`"""
    names = re.findall(r"(?:^|, )(\w+): ([^:]*?)(?=, \w+: |$)", call)
    return ", ".join(name + "?" * (" = " in kind) for name, kind in names[1:])


def _found(tensorrt: Any, name: str) -> Any:
    for part in name.split("."):
        tensorrt = getattr(tensorrt, part)
    return tensorrt


if __name__ == "__main__":
    main(Path(sys.argv[1]))
