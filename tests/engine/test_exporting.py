"""What is refused before a file is written."""

from types import SimpleNamespace

import pytest

from detr.classes import Classes
from detr.engine import exporting
from detr.errors import InputError


def test_data_of_other_classes_is_refused_before_anything_is_written(small_shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "write_proven", lambda *words, **options: pytest.fail("written"))
    network = SimpleNamespace(classes=Classes.from_names(["cat", "dog"]))
    order = exporting.Order(formats=["onnx"], out=tmp_path, data=small_shapes)
    with pytest.raises(InputError, match="unknown to the model by name"):
        exporting.fill(order, network, "best.safetensors", say=print)
