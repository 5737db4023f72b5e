import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from PIL import Image
from torch import nn
from torch.nn import functional as F

from detr.classes import Classes
from detr.data.coco import CocoDataset, read_annotations
from detr.errors import InputError
from detr.evaluation import validate as validating
from detr.evaluation.evaluate import evaluate
from detr.evaluation.validate import Left, OtherClasses, matched_classes, validate
from detr.image import InputConfig
from detr.models.postprocess import Scoring
from detr.records import Output, Predictions
from detr.runtime.runner import TorchRunner
from tests import programs

NAMES = ("circle", "square", "star")


def make_data(folder, *, num_images=5, names=NAMES, ids=(3, 1, 7)):
    """Pictures of one grey each, which is 8 times their index, of odd sizes, with a few boxes."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(1)
    images, boxes = [], []
    for n in range(num_images):
        width, height = 61 + 7 * n, 83 - 5 * n
        Image.new("RGB", (width, height), (8 * n,) * 3).save(folder / "images" / f"{n}.png")
        images.append({"id": 100 - n, "file_name": f"{n}.png", "width": width, "height": height})
        for _ in range(0 if n == 3 else 3):
            x, y, w, h = draw.uniform(0.1, 0.4, 4).round(3)
            box = [x * width, y * height, w * width, h * height]
            boxes.append({"image_id": 100 - n, "category_id": int(draw.choice(ids)), "bbox": box, "iscrowd": 0})
    rows = [dict(row, id=k, area=row["bbox"][2] * row["bbox"][3]) for k, row in enumerate(boxes)]
    categories = [{"id": id, "name": name} for id, name in zip(ids, names, strict=True)]
    tree = {"images": images, "annotations": rows, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(tree))
    return CocoDataset(read_annotations(folder / "instances.json"), folder / "images")


class Settings:
    input = InputConfig(height=32, width=64)


class Knowing(nn.Module):
    """Tells from the grey which picture it is, and answers with its boxes."""

    scoring = Scoring()

    def __init__(self, dataset, classes=None):
        super().__init__()
        self.config, known = Settings(), dataset.annotations
        self.classes = known.classes if classes is None else classes
        count = len(known.image_ids)
        self.boxes, self.logits = torch.full((count, 4, 4), 0.5), torch.full((count, 4, len(self.classes)), -9.0)
        used = [0] * count
        for image, label, box in zip(known.image_indices, known.labels, known.boxes, strict=True):
            scale = torch.tensor([known.widths[image], known.heights[image]] * 2)
            x, y, w, h = (torch.tensor(box) / scale).tolist()
            self.boxes[image, used[image]] = torch.tensor([x + w / 2, y + h / 2, w, h])
            name = self.classes.names.index(known.classes.names[label])
            self.logits[image, used[image], name] = 3.0 + used[image]
            used[image] += 1

    def forward(self, images, padding=None):
        assert not self.training and images.shape[1:] == (3, 32, 64)
        which = (images.mean((1, 2, 3)) * 255 / 8).round().long()
        return Output((Predictions(self.logits[which], self.boxes[which]),))


class Learned(nn.Module):
    """Random weights: answers whose last bits depend on how they are computed."""

    scoring = Scoring()

    def __init__(self, classes):
        super().__init__()
        torch.manual_seed(0)
        self.config, self.classes = Settings(), classes
        self.convolution = nn.Conv2d(3, 32, 3, stride=2)
        self.head = nn.Linear(32 * 15 * 31, 20 * (len(classes) + 4))

    def forward(self, images, padding=None):
        grids = torch.linspace(0, 1, images[0].numel()).view_as(images[0])
        values = self.head(F.gelu(self.convolution(images + grids)).flatten(1)).view(len(images), 20, -1)
        return Output((Predictions(values[..., 4:], values[..., :4].sigmoid()),))


@pytest.fixture
def dataset(tmp_path):
    return make_data(tmp_path)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_a_network_that_knows_the_answers_scores_one_in_the_images_own_pixels(dataset, batch_size):
    metrics, found = validate(TorchRunner(Knowing(dataset)), dataset, batch_size=batch_size)
    assert metrics.ap == pytest.approx(1)
    assert metrics.counts["images"] == 5
    best = found.boxes[found.scores > 0.9]
    order = np.lexsort(dataset.annotations.boxes.T), np.lexsort(best.T)
    assert np.allclose(dataset.annotations.boxes[order[0]], best[order[1]], atol=1e-4)


def test_loader_processes_change_nothing(dataset):
    alone, helped = (
        validate(TorchRunner(Learned(dataset.classes)), dataset, batch_size=2, workers=n)[1] for n in (0, 2)
    )
    assert np.array_equal(alone.boxes, helped.boxes) and np.array_equal(alone.scores, helped.scores)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["logits", "boxes"])
def test_an_output_that_is_not_finite_is_an_error_with_its_image(dataset, part, value):
    network = Knowing(dataset)
    getattr(network, part)[3, 1, 0] = value
    with pytest.raises(InputError, match="output for image 97 is not finite"):
        validate(TorchRunner(network), dataset, batch_size=2)


def test_classes_are_matched_by_name_in_any_order(dataset):
    other = Classes((0, 1, 2, 3), ("Star", "cat", "circle", "SQUARE "))
    names = Classes((0, 1, 2, 3), ("star", "cat", "circle", "square"))
    network = Knowing(dataset, names)
    network.classes = other
    network.logits[:, :, 1] = 9  # were cats to compete, they would win
    metrics, found = validate(TorchRunner(network), dataset, max_dets=1)
    assert metrics.notes[0] == "1 of the model's 4 classes are not in the data and were left out"
    assert set(found.labels.tolist()) <= {0, 1, 2}
    assert validate(TorchRunner(network), dataset)[0].ap == pytest.approx(1)


def test_classes_of_the_data_that_the_model_does_not_know_are_an_error_with_a_table(dataset):
    network = Learned(Classes.from_names(["circle", "dog"]))
    with pytest.raises(OtherClasses, match=r"2 of the data's 3 classes are unknown.*'square', 'star'") as error:
        validate(TorchRunner(network), dataset)
    assert "dog" in error.value.table and "star" in error.value.table


def test_a_class_without_boxes_need_not_be_known(tmp_path):
    known = make_data(tmp_path, num_images=1).annotations
    seen = sorted(set(known.labels.tolist()))
    assert len(seen) < 3
    index, _ = matched_classes(Classes.from_names([known.classes.names[k] for k in seen]), known)
    assert index.tolist() == seen


def test_weights_that_name_no_classes_are_taken_in_the_datas_order_and_that_is_said(dataset):
    network = Knowing(dataset)
    network.classes = Classes.from_names(["class_0", "class_1", "class_2"])
    metrics, _ = validate(TorchRunner(network), dataset)
    assert metrics.ap == pytest.approx(1)
    assert metrics.notes[0].startswith("the weights do not name their classes")


def test_scores_below_conf_are_left_out(dataset):
    _, found = validate(TorchRunner(Knowing(dataset)), dataset, conf=0.5)
    assert len(found) == len(dataset.annotations.boxes)
    assert len(validate(TorchRunner(Knowing(dataset)), dataset)[1]) == 5 * 4 * 3


def test_autocast_answers_are_taken_in_float32(dataset):
    metrics, found = validate(TorchRunner(Learned(dataset.classes), half=True), dataset)
    assert metrics.stats.tolist() == evaluate(dataset.annotations, found).stats.tolist()
    full = validate(TorchRunner(Learned(dataset.classes)), dataset)[1]
    assert len(found) == len(full) and not np.array_equal(found.scores, full.scores)


def test_all_processes_leave_what_one_leaves(tmp_path, monkeypatch):
    dataset = make_data(tmp_path)
    monkeypatch.setattr(validating, "gathered", lambda mine, what: [mine, ([], True)])
    with pytest.raises(Left):
        validate(TorchRunner(Knowing(dataset)), dataset)


def test_two_processes_give_the_answer_of_one_to_the_last_bit_whatever_the_remainder(tmp_path):  # E39
    sizes = (1, 5)  # with batches of two, one process has no image at all, then one has a smaller share
    folders = [tmp_path / str(size) for size in sizes]
    datasets = [make_data(folder, num_images=size) for folder, size in zip(folders, sizes, strict=True)]
    given = (tmp_path / "meeting", *folders)
    torch.multiprocessing.start_processes(one_of_two, given, nprocs=2, start_method=programs.METHOD)
    alone = [validate(TorchRunner(Learned(dataset.classes)), dataset, batch_size=2) for dataset in datasets]
    for folder, (metrics, found) in zip(folders, alone, strict=True):
        for rank in (0, 1):
            answer = np.load(folder / f"answer{rank}.npz")
            assert answer["stats"].tolist() == metrics.stats.tolist()
            for name in ("image_indices", "labels", "boxes", "scores"):
                assert np.array_equal(answer[name], getattr(found, name)), name


def one_of_two(rank, meeting, *folders):
    torch.set_num_threads(1)  # as the tests have it
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for folder in map(Path, folders):
        dataset = CocoDataset(read_annotations(folder / "instances.json"), folder / "images")
        metrics, found = validate(TorchRunner(Learned(dataset.classes)), dataset, batch_size=2)
        arrays = {name: getattr(found, name) for name in ("image_indices", "labels", "boxes", "scores")}
        np.savez(folder / f"answer{rank}.npz", stats=metrics.stats, **arrays)
    torch.distributed.destroy_process_group()
