import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.sparse.csgraph import connected_components

from detr.data.doctor import examine
from detr.data.doctor_advice import Plan
from detr.data.doctor_fix import write_fixed
from detr.data.doctor_images import Look, fingerprint
from detr.data.doctor_repeats import repeats
from detr.data.sources import find_splits
from detr.errors import InputError, UsageError
from detr.image import InputConfig

PLAN = Plan(model="toy", input=InputConfig(height=64, width=64), queries=5, batch=16, batch_finetune=4, lr=1e-4)


def picture(seed, size=(96, 64)):
    """A photograph-like picture: no two seeds alike."""
    rough = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def write(root, splits, names=("cat", "dog"), size=(96, 64)):
    """splits: name -> list of (seed of the picture, [(category id, bbox), ...])"""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        (root / split).mkdir(exist_ok=True)
        rows, annotations = [], []
        for number, (seed, boxes) in enumerate(images):
            name = f"{number}.jpg"
            picture(seed, size).save(root / split / name, quality=95)
            rows.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
            for id, box in boxes:
                row = {"image_id": number, "category_id": id, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
                annotations.append({"id": len(annotations), **row})
        tree = {"images": rows, "annotations": annotations}
        tree["categories"] = [{"id": id, "name": name} for id, name in enumerate(names)]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(tree))
    return root


GOOD = (10, 10, 40, 30)
BOTH = [(0, GOOD), (1, (50, 20, 30, 30))]
HEALTHY = {"train": [(0, BOTH), (1, BOTH), (2, BOTH)], "val": [(3, BOTH), (4, BOTH)]}


def found(root, plan=PLAN):
    return {(it.kind, it.split): it for it in examine(root, plan).findings}


def test_a_healthy_set_is_called_so(tmp_path):
    report = examine(write(tmp_path, HEALTHY), PLAN)
    assert report.is_healthy and report.groups == ()
    assert {it.kind for it in report.findings} == {"few"}
    assert [seen.split for seen in report.seen] == ["train", "val"]


def test_nothing_to_measure_on_is_noted(tmp_path):
    root = write(tmp_path, HEALTHY)
    single = root / "annotations" / "instances_train.json"
    [finding] = [it for it in examine(single, PLAN, images=root / "train").findings if it.kind == "val"]
    assert finding.level == "note" and "val is train" in finding.text and "--val 0.2" in finding.text
    (root / "annotations" / "instances_val.json").unlink()
    assert "no validation split" in found(root)["val", ""].text


@pytest.mark.parametrize(
    ("boxes", "kind", "level", "rows"),
    [
        ([(0, GOOD), (0, (100, 10, 5, 5))], "outside", "error", (1,)),
        ([(0, GOOD), (0, (95.5, 10, 20, 20))], "thin", "error", (1,)),
        ([(0, (80, 10, 20, 20)), (1, GOOD)], "over", "warning", (0,)),
        ([(0, GOOD), (0, (10, 10, 40, 30.1))], "repeated", "warning", (1,)),
        ([(0, GOOD), (1, GOOD)], "contradicting", "warning", (1,)),
        ([(0, GOOD), (1, (5, 5, 6, 6))], "tiny", "warning", (1,)),
    ],
)
def test_each_fault_of_a_box_is_found_alone(tmp_path, boxes, kind, level, rows):
    report = found(write(tmp_path, {"train": [(0, boxes), (1, [])]}))
    finding = report[kind, "train"]
    assert (finding.level, finding.count) == (level, 1)
    assert not re.search(r"\b(are|lie|reach)\b", finding.text), finding.text
    assert (finding.shown[0].image, finding.shown[0].rows) == (0, rows)
    assert {key for key, _ in report} - {"few", "reading", "val", kind} <= ({"over"} if kind == "thin" else set())


def test_flat_boxes_left_out_in_reading_are_an_error(tmp_path):
    report = found(write(tmp_path, {"train": [(0, [(0, GOOD), (1, (1, 1, 5, 5))] * 12 + [(0, (5, 5, 0, 3))])]}))
    assert report["flat", "train"].count == 1 and report["flat", "train"].level == "error"


def test_damaged_turned_and_wrongly_sized_images_are_found(tmp_path):
    write(tmp_path, {"train": [(seed, BOTH) for seed in range(4)]})
    file = tmp_path / "train" / "0.jpg"
    file.write_bytes(file.read_bytes()[:700])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, (64, 96)).save(tmp_path / "train" / "1.jpg", exif=exif)
    picture(2, (90, 60)).save(tmp_path / "train" / "2.jpg")
    report = found(tmp_path)
    assert [it.image for it in report["unreadable", "train"].shown] == [0]
    assert "damaged or cut short" in report["unreadable", "train"].shown[0].caption
    assert [it.image for it in report["exif", "train"].shown] == [1]
    [shown] = report["size", "train"].shown
    assert (shown.image, shown.caption) == (2, "90 x 60, said to be 96 x 64")


def test_a_picture_in_two_splits_is_found_though_it_was_saved_anew(tmp_path):
    write(tmp_path, {"train": [(0, BOTH), (1, BOTH)], "val": [(2, BOTH), (1, BOTH), (2, BOTH)]})
    picture(1).resize((60, 40)).save(tmp_path / "val" / "1.jpg", quality=50)
    report = found(tmp_path)
    leak = report["leak", "val"]
    assert leak.level == "error" and leak.count == 1
    assert (leak.shown[0].split, leak.shown[0].image, leak.shown[0].other) == ("val", 1, ("train", 1))
    [again] = report["repeat", ""].shown
    assert (again.split, again.image, again.other) == ("val", 2, ("val", 0))


def test_repeats_are_groups_and_different_pictures_are_not(tmp_path):
    pixels = [np.asarray(picture(seed)) for seed in range(40)]
    moved = pixels[0].copy()
    moved[:16, :16] = 255 - moved[:16, :16]
    plain = [np.full((20, 30, 3), value, np.uint8) for value in (0, 128, 255)]
    again = [np.asarray(picture(seed, (48, 32))) for seed in (3, 7)]
    looks = [Look(each.shape[:2], 1, *fingerprint(each)) for each in (*pixels, moved, *plain, *again, again[0])]
    assert repeats(looks) == [[3, 44, 46], [7, 45]]
    assert repeats([]) == repeats([Look((0, 0), problem="damaged")] * 3) == []


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_comparing_each_with_each(seed):
    draw = np.random.default_rng(seed)
    looks = []
    for _ in range(60):
        near = looks[draw.integers(len(looks))] if looks and draw.random() < 0.7 else None
        flipped = sum(1 << int(bit) for bit in set(draw.integers(64, size=draw.integers(6)).tolist()))
        before = int(draw.integers(1 << 62)) if near is None else near.fingerprint
        cells = np.full((16, 16), draw.integers(255)) if near is None else near.thumbnail
        noise = draw.integers(-9, 10) * (draw.random((16, 16)) < 0.5)
        looks.append(Look((9, 9), 1, before ^ flipped, np.clip(cells + noise, 0, 255).astype(np.uint8)))

    def same(one, other):
        apart = np.abs(one.thumbnail.astype(int) - other.thumbnail)
        bits = bin(one.fingerprint ^ other.fingerprint).count("1")
        return bits <= 3 and apart.mean() <= 4 and apart.max() <= 16

    _, group_of = connected_components(np.array([[same(one, other) for other in looks] for one in looks]))
    groups = [np.flatnonzero(group_of == number).tolist() for number in range(60)]
    found = repeats(looks)
    assert found == sorted(group for group in groups if len(group) > 1) and max(map(len, found)) > 2


def test_classes_that_a_split_lacks_are_found(tmp_path):
    only_dog = [(1, GOOD)]
    report = examine(write(tmp_path, {"train": [(0, [(0, GOOD)])], "val": [(1, only_dog)]}), PLAN).findings
    texts = [(it.level, it.text) for it in report if it.kind == "class"]
    assert texts == [
        ("error", "val: 1 class has boxes here and none in train: dog"),
        ("warning", "val: 1 class has no boxes here, so AP is not measured: cat"),
    ]
    assert found(write(tmp_path / "x", HEALTHY, names=("Cat", "cat ")))["names", ""].count == 2


def test_more_objects_than_queries_are_an_error_with_advice(tmp_path):
    boxes = [(0, (i * 12, 0, 11, 40)) for i in range(6)]
    write(tmp_path, {"train": [(0, boxes), (1, BOTH)]})
    report = examine(tmp_path, PLAN)
    [finding] = [it for it in report.findings if it.kind == "queries"]
    assert finding.level == "error" and finding.shown[0].caption == "6 objects"
    assert "queries: model.num_queries=50 would leave a fifth to spare" in report.advice
    assert any(line.startswith("queries: 4.0 objects an image, 6 at most; toy has 5") for line in report.advice)


def test_advice_says_which_size_the_boxes_need(tmp_path):
    small = [(0, (10, 10, 6, 4)), (1, (40, 20, 6, 4))]
    lines = examine(write(tmp_path, {"train": [(0, small), (1, small)]}), PLAN).advice
    # 6 x 4 pixels of 96 x 64 are 4 x 4 of 64 x 64: twice the side, and a stride of 32
    assert any(line.endswith("one position of stride 8; with --imgsz 128 it would be 5 %") for line in lines)
    assert any("half of them are stretched 1.5 times" in line and "model.input.width=64" in line for line in lines)
    tiny = [(0, (10, 10, 0.3, 0.2))]
    lines = examine(write(tmp_path / "x", {"train": [(0, tiny)]}), PLAN).advice
    assert any("cut images into tiles of some 2 pixels" in line for line in lines)


def test_the_report_is_json(tmp_path):
    write(tmp_path, {"train": [(0, [(0, GOOD), (0, GOOD)])]})
    tree = json.loads(json.dumps(examine(tmp_path, PLAN).to_json()))
    assert tree["healthy"] is False and tree["splits"] == {"train": {"images": 1, "boxes": 2}}
    [row] = [row for row in tree["findings"] if row["kind"] == "repeated"]
    assert row["images"] == [{"image": str(tmp_path / "train" / "0.jpg"), "rows": [1], "what": "1 box"}]


def test_a_missing_image_is_found_and_one_outside_of_the_set_refused(tmp_path):
    root = write(tmp_path / "set", HEALTHY)
    (root / "val" / "1.jpg").rename(tmp_path / "elsewhere.jpg")
    finding = found(root)["unreadable", "val"]
    assert finding.count == 1 and "1.jpg: no such file" in finding.shown[0].caption
    (root / "val" / "1.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(InputError, match="outside of the image folder"):
        examine(root, PLAN)


def sick(root):
    boxes = [(0, GOOD), (0, GOOD), (1, (80, 10, 30, 30)), (1, (200, 10, 5, 5)), (0, (5, 5, 0.5, 9))]
    write(root, {"train": [(0, boxes), (1, BOTH), (2, BOTH)], "val": [(1, BOTH), (5, BOTH)]})
    (root / "train" / "2.jpg").write_bytes(b"<html>")
    picture(5, (120, 80)).save(root / "val" / "1.jpg")
    return root


def test_a_corrected_copy_is_healthy_and_the_original_as_it_was(tmp_path):
    root = sick(tmp_path / "set")
    shutil.copytree(root, tmp_path / "before")
    changes = write_fixed(examine(root, PLAN), tmp_path / "fixed")
    assert changes == [
        "train: 1 image that can't be read left out",
        "train: 1 image of a later split too left out",
        "train: 3 boxes outside, too thin or repeated left out",
        "train: 1 box over the edge cut",
        "val: 1 size put right",
    ]
    after = examine(tmp_path / "fixed", PLAN)
    assert not {it.kind for it in after.findings} & {
        "unreadable",
        "size",
        "outside",
        "thin",
        "over",
        "repeated",
        "leak",
    }
    train = find_splits(tmp_path / "fixed")["train"].read()
    assert train.file_names == ("0.jpg",) and train.boxes.tolist() == [[10, 10, 40, 30], [80, 10, 16, 30]]
    assert train.areas.tolist() == [1200, 480] and train.classes.ids == (0, 1)
    for file in (tmp_path / "before").rglob("*.*"):
        assert file.read_bytes() == (root / file.relative_to(tmp_path / "before")).read_bytes()


def test_a_copy_that_would_be_empty_or_over_something_is_refused(tmp_path):
    report = examine(write(tmp_path / "set", {"train": [(1, BOTH)], "val": [(1, BOTH)]}), PLAN)
    with pytest.raises(InputError, match="nothing would be left of train"):
        write_fixed(report, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="already holds something"):
        write_fixed(examine(sick(tmp_path / "sick"), PLAN), tmp_path / "set")
