"""An exported file in plain ONNX Runtime, by the lines that docs/ship.md has for it."""

import re
from pathlib import Path

from PIL import Image

from detr.data.shapes import draw_shapes
from detr.engine.detector import Detector

PAGE = Path(__file__).parents[2] / "docs" / "ship.md"


def test_the_lines_of_the_page_find_what_the_detector_finds(whole, tmp_path, monkeypatch, capsys):
    [lines] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert "detr." not in lines and "import detr" not in lines
    picture, _ = draw_shapes(3, "val", 1)
    Image.fromarray(picture).save(tmp_path / "street.jpg", quality=95)
    (tmp_path / "whole.onnx").symlink_to(whole)
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, PAGE.name, "exec"), {})
    said = [line.split(" 0.")[0] for line in capsys.readouterr().out.splitlines()]
    [result] = Detector("rtdetr-tiny", device="cpu")("street.jpg", conf=0.4)
    assert said == [result.names[int(label)] for label in result.boxes.cls] and said
