"""Pictures of different shape in one batch, for a network that keeps their aspect and tells padding from picture."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detr.classes import Classes
from detr.data.coco import CocoDataset, read_annotations
from detr.engine.detector import Detector
from detr.engine.predict import predict
from detr.engine.saving import Wanted
from detr.errors import UsageError
from detr.evaluation.pictures import draw_batch
from detr.evaluation.validate import validate
from detr.image import InputConfig
from detr.models.postprocess import Scoring
from detr.records import Batch, Output, Predictions, Target
from detr.runtime.runner import TorchRunner
from detr.runtime.settings import input_of_size
from detr.video import VideoWriter, find_sources

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
INPUT = InputConfig(resize="short side", short=64, long=107, **IMAGENET)
SIZES = [(90, 130), (130, 90), (70, 70), (40, 160), (161, 40), (97, 111)]  # (height, width)


class RectangleFinder(nn.Module):
    """Finds the white rectangle of each picture; its box is a share of the picture without its padding."""

    scoring = Scoring()

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"arch": "detr", "input": INPUT})
        self.classes = Classes.from_names(["rectangle"])
        self.shapes = []

    def forward(self, images, padding=None):
        self.shapes.append(tuple(images.shape))
        if padding is None:
            padding = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        assert images.masked_select(padding[:, None].expand_as(images)).eq(0).all()
        boxes = [self._found(image, ~mask) for image, mask in zip(images, padding, strict=True)]
        return Output((Predictions(torch.full((len(images), 1, 1), 3.0), torch.stack(boxes)[:, None]),))

    def _found(self, image, seen):
        height, width = int(seen.any(1).sum()), int(seen.any(0).sum())
        white = (image[0] > 1.5) & seen
        rows, columns = white.any(1).nonzero().flatten(), white.any(0).nonzero().flatten()
        top, bottom = rows[0] / height, (rows[-1] + 1) / height
        left, right = columns[0] / width, (columns[-1] + 1) / width
        return torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def picture(height, width):
    """Black, with a white rectangle -> the picture and the rectangle, xyxy."""
    image = np.zeros((height, width, 3), np.uint8)
    box = (width // 4, height // 5, width // 2, 3 * height // 4)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image, box


@pytest.fixture
def detector():
    return Detector(RectangleFinder(), device="cpu")


def test_pictures_of_any_shape_have_the_same_answer_in_a_batch_as_alone(detector):
    pictures, boxes = zip(*(picture(*size) for size in SIZES), strict=True)
    together = detector(list(pictures), batch=len(SIZES))
    assert detector.network.shapes == [(6, 3, 108, 108)]
    for image, box, result in zip(pictures, boxes, together, strict=True):
        (alone,) = detector(image)
        torch.testing.assert_close(alone.boxes.xyxy, result.boxes.xyxy)
        assert np.abs(result.boxes.xyxy[0].numpy() - box).max() < 2.5  # a pixel of the input


def test_a_picture_alone_is_not_padded_and_keeps_its_aspect(detector):
    for size in SIZES[:4]:
        detector(picture(*size)[0])
    assert [shape[2:] for shape in detector.network.shapes] == [(64, 92), (92, 64), (64, 64), (27, 108)]


def test_folders_and_videos_may_be_mixed_in_a_batch(detector, tmp_path):
    for number, size in enumerate(SIZES[:3]):
        Image.fromarray(picture(*size)[0]).save(tmp_path / f"{number}.png")
    with VideoWriter(tmp_path / "9.mp4", rate=5) as writer:
        for _ in range(3):
            writer.write(picture(96, 160)[0])
    summary = predict(
        detector, find_sources(str(tmp_path)), detector.settings(), tmp_path / "out", wanted=Wanted(json=True), batch=4,
        quiet=True, say=lambda line: None,
    )  # fmt: skip
    assert summary.images == 3 and summary.videos == 1 and summary.frames == 6 and not summary.failures
    assert detector.network.shapes[0] == (4, 3, 92, 106)
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    for row, size in zip(rows, SIZES[:3], strict=True):
        x1, y1, x2, y2 = picture(*size)[1]
        assert np.abs(np.array(row["bbox"]) - [x1, y1, x2 - x1, y2 - y1]).max() < 3
    lines = [json.loads(line) for line in (tmp_path / "out" / "9.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        box = line["detections"][0]["box"]
        assert np.abs(np.array([box[side] for side in ("x1", "y1", "x2", "y2")]) - picture(96, 160)[1]).max() < 4


@pytest.mark.parametrize("batch_size", [1, 4])
def test_evaluation_finds_boxes_in_the_images_own_pixels(tmp_path, batch_size):
    (tmp_path / "images").mkdir()
    images, rows = [], []
    for number, (height, width) in enumerate(SIZES):
        image, (x1, y1, x2, y2) = picture(height, width)
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        rows.append({"id": number + 1, "image_id": number, "category_id": 1, **box})
    tree = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "rectangle"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(tree))
    dataset = CocoDataset(read_annotations(tmp_path / "boxes.json"), tmp_path / "images")
    metrics, found = validate(TorchRunner(RectangleFinder()), dataset, batch_size=batch_size)
    wanted = np.array([row["bbox"] for row in rows])
    assert metrics.ap50 == pytest.approx(1) and np.abs(found.boxes - wanted).max() < 3


def test_imgsz_is_the_shorter_side_and_the_longer_one_goes_along(detector):
    for given in (128, (128,), (128, 128)):
        assert detector.settings(imgsz=given).input == INPUT.model_copy(update={"short": 128, "long": 214})
    detector(picture(100, 150)[0], imgsz=32)
    assert detector.network.shapes == [(1, 3, 32, 48)]
    assert input_of_size(INPUT, None) is INPUT


@pytest.mark.parametrize(
    ("imgsz", "said"),
    [((64, 96), "keeps the aspect.*such as 64"), (31, "from 32 to 4899"), (4900, "from 32 to 4899"), ("a", "expected")],
)
def test_sizes_that_cannot_be_are_refused(imgsz, said):
    with pytest.raises(UsageError, match=said):
        input_of_size(INPUT, imgsz)


def test_a_batch_is_drawn_with_its_padding_and_the_boxes_in_the_pictures(tmp_path):
    padding = torch.zeros(2, 40, 60, dtype=torch.bool)
    padding[1, :, 30:] = True
    target = Target(torch.tensor([0]), torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    batch = Batch(torch.zeros(2, 3, 40, 60), padding, [target, target])
    draw_batch(batch, InputConfig(), Classes.from_names(["rectangle"]), tmp_path / "batch.jpg")
    with Image.open(tmp_path / "batch.jpg") as drawn:
        coloured = np.asarray(drawn).max(2)[60:] > 60  # below the names
    assert coloured.shape == (260, 960)  # small ones are enlarged, so that names can be read
    assert coloured[:, 470:480].any() and coloured[:, 710:722].any() and not coloured[:, 740:].any()
