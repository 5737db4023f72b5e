import re

import numpy as np
from PIL import Image

from detr.data.doctor import examine
from detr.data.doctor_advice import Plan
from detr.data.shapes import make_shapes
from detr.engine.doctor_page import write_doctor_page
from detr.image import InputConfig

PLAN = Plan(model="toy", input=InputConfig(), queries=300, batch=16, batch_finetune=4, lr=1e-4)


def page_of(root, out):
    write_doctor_page(out / "index.html", "<b>set</b>", examine(root, PLAN), PLAN)
    return (out / "index.html").read_text(encoding="utf-8")


def test_a_small_box_is_shown_from_nearer_by(tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    pixels = np.zeros((600, 800, 3), np.uint8)
    pixels[300:306, 400:406] = 255
    Image.fromarray(pixels).save(tmp_path / "set" / "images" / "a.png")
    (tmp_path / "set" / "labels").mkdir()
    (tmp_path / "set" / "labels" / "a.txt").write_text("0 0.50375 0.505 0.0075 0.01\n")
    (tmp_path / "set" / "data.yaml").write_text("train: images\nnames: [dot]\n")
    page_of(tmp_path / "set", tmp_path / "out")
    with Image.open(tmp_path / "out" / "pictures" / "tiny-train-1.jpg") as picture:
        shown = np.asarray(picture.convert("L"))
    assert shown.shape == (640, 640)
    assert shown[320, 320] > 200 and (shown > 200).sum() > 1000  # 6 pixels of 96 became 40 of 640


def test_everything_on_the_page_is_escaped_and_beside_it(tmp_path):
    root = make_shapes(tmp_path / "set", images=3, val_images=1, size=64, seed=1, video=False)
    text = page_of(root, tmp_path / "out")
    assert "&lt;b&gt;set&lt;/b&gt;" in text and "<b>" not in text
    files = re.findall(r'src="([^"]*)"', text)
    assert files and all((tmp_path / "out" / file).is_file() for file in files)
    assert text.count("</table>") == 4 and "side of a box at 640 x 640" in text


def test_a_set_without_any_box_has_a_page_too(tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "set" / "images" / "a.png")
    (tmp_path / "set" / "labels").mkdir()
    (tmp_path / "set" / "labels" / "a.txt").write_text("")
    (tmp_path / "set" / "data.yaml").write_text("train: images\nnames: [dot]\n")
    text = page_of(tmp_path / "set", tmp_path / "out")
    assert "1 image, 0 boxes" in text and "train: none of 1 image has a box" in text
