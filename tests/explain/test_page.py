"""The page holds what it says, and nothing from elsewhere."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from detr.classes import COCO
from detr.explain import explanations, page, recording
from detr.explain.page import Page
from detr.models.postprocess import select

IMAGE = np.full((50, 120, 3), 90, np.uint8)


class Parsed(HTMLParser):
    """The elements, and the text of the scripts."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.scripts, self.open = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[key] for key in ("src", "href") if key in attributes]
        self.open = tag

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open == "script":
            self.scripts.append(data)


def explained(network, count=2):
    with recording(network) as recorded, torch.inference_mode():
        output = network(torch.randn(1, 3, 64, 96))
    [found] = select(output, [IMAGE.shape[:2]], scoring=network.scoring, max_det=count)
    return explanations(recorded, network, IMAGE, found, COCO.as_dict())


def unpacked(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.fixture
def written(tmp_path):
    def write(model, *pictures, **first):
        made = Page(model, COCO.as_dict(), **first)
        for name, found in pictures:
            made.add(name, IMAGE, found)
        made.write(tmp_path / "index.html")
        text = (tmp_path / "index.html").read_text(encoding="utf-8")
        parsed = Parsed(text)
        return json.loads(parsed.scripts[0]), parsed, text

    return write


@pytest.mark.parametrize("name", ["detr-r50", "dfine-n"])
def test_the_page_holds_every_number(name, small_network, written):
    found = explained(small_network(name))
    data, *_ = written("some/model.pt", ("a & b", found), ("<i>", []), layer=1)
    first, second = data["pictures"]
    assert (first["name"], second["name"], data["first"]) == ("a & b", "<i>", {"layer": 1, "head": None})
    assert (first["width"], first["height"], second["detections"]) == (120, 50, [])
    assert [each["name"] for each in first["detections"]] == [each.name for each in found]
    for shown, each in zip(first["detections"], found, strict=True):
        assert shown["confidence"] == pytest.approx(each.score, abs=1e-5)
        if each.points is not None:
            values = unpacked(shown["points"], "<f4").reshape(2, 4, len(shown["pointLevels"]), 3)
            np.testing.assert_array_equal(values[..., :2], each.points.xy)
            np.testing.assert_array_equal(values[..., 2], each.points.weights)
        else:
            largest = unpacked(shown["attention"]["largest"], "<f4")[:, None]
            shares = unpacked(shown["attention"]["shares"], np.uint8).reshape(8, -1)
            weights = each.weights.reshape(8, -1)
            np.testing.assert_allclose(shares / 255 * largest, weights, atol=float(weights.max()) / 400)


def test_the_page_holds_the_picture_and_what_the_encoder_looks_at(small_network, written):
    found = explained(small_network("dfine-n"))
    data, *_ = written("model", ("a", found))
    [picture] = data["pictures"]
    image = Image.open(BytesIO(base64.b64decode(picture["image"].split(",", 1)[1])))
    assert image.size == (120, 50)
    encoder = picture["encoder"]
    assert encoder["sources"] is None, "its decoder looks at maps that convolutions have made of it"
    positions = encoder["height"] * encoder["width"]
    assert len(unpacked(encoder["weights"]["shares"], np.uint8)) == positions**2


def test_the_page_can_follow_dense_attention_back(small_network, written):
    found = explained(small_network("detr-r50"))
    data, *_ = written("model", ("a", found))
    sources = data["pictures"][0]["encoder"]["sources"]
    largest = unpacked(sources["largest"], "<f4")[:, None]
    shares = unpacked(sources["shares"], np.uint8).reshape(len(largest), -1)
    np.testing.assert_allclose(shares / 255 * largest, found[0].encoder.sources, atol=1 / 400)


def test_nothing_comes_from_elsewhere(small_network, written):
    _, parsed, text = written("model", ("a", explained(small_network("dfine-n"))))
    assert parsed.links == [] and "default-src 'none'" in text
    assert re.findall(r"""(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9.-]+\.[a-z]{2,}""", parsed.scripts[1]) == []


def test_the_script_finds_every_element_it_asks_for(written):
    _, parsed, _ = written("model", ("a", []))
    asked = set(re.findall(r'(?:byId|rebuilt|choices)\("([a-z-]+)"', parsed.scripts[1]))
    assert asked and asked <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_names_cannot_end_the_script(written):
    data, parsed, _ = written("</script><b>", ("</script><script>alert(1)</script>", []))
    assert len(parsed.scripts) == 2 and data["pictures"][0]["name"].startswith("</script>")


@pytest.mark.parametrize("limits", [{"MOST_PICTURES": 2}, {"MOST_BYTES": 3000}], ids=str)
def test_more_pictures_than_a_page_holds_are_counted(monkeypatch, tmp_path, limits):
    for name, value in limits.items():
        monkeypatch.setattr(page, name, value)
    made = Page("model", {})
    for number in range(5):
        made.add(str(number), IMAGE, [])
    made.write(tmp_path / "index.html")
    assert made.notes == ["index.html shows the first 2 pictures; 3 more are in the folder only"]
