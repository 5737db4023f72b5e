import importlib.util
import json
import os

import numpy as np
import pytest
import torch
from made_sets import truths
from PIL import Image

from detr.data.coco import CocoDataset, read_annotations
from detr.errors import InputError
from detr.export import Calibration, open_runner, write
from detr.export.packages import package
from detr.runtime.runner import TorchRunner

needs_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None or importlib.util.find_spec("openvino") is None,
    reason="needs openvino and nncf: pip install 'detr-toolkit[export]'",
)


@pytest.fixture
def dataset(tmp_path):
    draw = np.random.default_rng(0)
    rows = [{"id": index, "file_name": f"{index}.png", "width": 80, "height": 60} for index in range(5)]
    for row in rows:
        Image.fromarray(draw.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / row["file_name"])
    tree = {"images": rows, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(tree))
    return CocoDataset(read_annotations(tmp_path / "boxes.json"), tmp_path)


def test_nncf_does_not_tell_its_makers_that_it_is_used(monkeypatch):
    monkeypatch.setenv("NNCF_CI", "")
    monkeypatch.delenv("NNCF_CI")
    monkeypatch.setattr("detr.extras.is_installed", lambda name: True)
    monkeypatch.setattr("detr.export.packages.importlib.import_module", lambda name: os.environ["NNCF_CI"])
    assert package("nncf") == "1"


@needs_nncf
def test_8_bits_are_fitted_to_the_pictures_and_say_so(dataset, exported, tmp_path):
    network, _ = exported("rtdetr")
    path = tmp_path / "small.xml"
    write("openvino", network, path, calibration=Calibration(dataset, most=4))
    runner = open_runner(path)
    assert runner.name == "openvino int8, float32"
    assert b"FakeQuantize" in path.read_bytes()
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    found, expected = runner(images).layers[-1], TorchRunner(network)(images).layers[-1]
    apart = torch.cdist(found.logits, expected.logits).min(-1).values.median()
    assert 1e-4 < apart < 0.1 * expected.logits.norm(dim=-1).median()


def test_calibration_pictures_are_spread_evenly_and_known_by_their_files(dataset):
    calibration = Calibration(dataset, most=3)
    assert calibration.indices == [0, 2, 4]
    before = calibration.key
    assert Calibration(dataset, most=3).key == before != Calibration(dataset, most=2).key
    Image.new("RGB", (80, 60)).save(dataset.images / "2.png")
    assert calibration.key != before


def test_no_pictures_are_no_calibration(tmp_path):
    (tmp_path / "of no set.png").touch()
    with pytest.raises(InputError, match="int8 needs images to calibrate with"):
        Calibration(CocoDataset(truths(images=0), tmp_path))
