import hashlib
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from detr.data.coco import CocoDataset, read_annotations
from detr.data.shapes import draw_shapes, make_shapes
from detr.data.shapes_drawing import SHAPES, cover, stencil
from detr.data.shapes_video import moving_shapes
from detr.data.sources import find_splits
from detr.errors import InputError, UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes") / "set", images=30, val_images=10, size=160, video=False)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_seed_gives_the_same_bytes_and_another_seed_others(made, tmp_path):
    again = make_shapes(tmp_path / "again", images=30, val_images=10, size=160, video=False)
    other = make_shapes(tmp_path / "other", images=30, val_images=10, size=160, video=False, seed=1)
    assert hashes(again) == hashes(made)
    assert not set(hashes(other).values()) & set(hashes(made).values())


def test_an_image_does_not_depend_on_how_many_there_are(made, tmp_path):
    small = make_shapes(tmp_path / "small", images=3, val_images=1, size=160, video=False)
    for name, digest in hashes(small / "images").items():
        assert hashes(made / "images")[name] == digest


def test_both_splits_are_found_read_and_consistent(made):
    splits = find_splits(made)
    assert list(splits) == ["train", "val"]
    for split, count in (("train", 30), ("val", 10)):
        annotations = read_annotations(splits[split].annotations)
        dataset = CocoDataset(annotations, splits[split].images)
        assert len(dataset) == count
        assert annotations.classes.names == SHAPES
        for index in range(count):  # a size other than in the file would warn, and a warning is an error here
            assert dataset[index].image.shape[0] == 3


def test_the_set_has_empty_images_crowds_small_objects_and_several_sizes():
    drawn = [draw_shapes(0, "train", index, size=128) for index in range(150)]
    things = [thing for _, found in drawn for thing in found]
    assert any(not found for _, found in drawn)
    assert any(thing.crowd for thing in things)
    assert len({image.shape for image, _ in drawn}) > 20
    assert {thing.label for thing in things} == set(range(10))
    sides = [max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (thing.box for thing in things)]
    assert min(sides) < 12 and max(sides) > 45


@pytest.mark.parametrize("index", range(5))
def test_boxes_lie_within_the_image_and_hold_something(index):
    image, things = draw_shapes(3, "val", index)
    height, width = image.shape[:2]
    for thing in things:
        x1, y1, x2, y2 = thing.box
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


@pytest.mark.parametrize("shape", SHAPES)
def test_the_box_fits_the_outline_to_a_quarter_of_a_pixel(shape):
    cut = stencil(shape, (50.3, 40.7), 60, 0.4, 1.1)
    rows, columns = np.nonzero(cut.alpha)
    x1, y1, x2, y2 = cut.box
    assert cut.left + columns.min() == int(x1) and cut.top + rows.min() == int(y1)
    assert cut.left + columns.max() + 1 == int(np.ceil(x2)) and cut.top + rows.max() + 1 == int(np.ceil(y2))
    assert 30 < x2 - x1 < 90 and 30 < y2 - y1 < 90


def test_a_circle_has_the_box_that_geometry_says():
    assert stencil("circle", (50, 40), 30, 1.0).box == pytest.approx((35, 25, 65, 55), abs=0.3)


def test_what_one_outline_covers_of_another_is_counted():
    owners = np.full((60, 60), -1, np.int16)
    square = stencil("square", (30, 30), 30, np.pi / 4)
    area = cover(owners, square, 0).sum()
    assert (owners == 0).sum() == area
    assert cover(owners, square).tolist() == [0, area]
    far = stencil("square", (300, 300), 30, 0)
    assert cover(owners, far).sum() == 0


def test_every_object_shows_at_least_half_of_its_pixels(monkeypatch):
    """Seen by painting each object in one flat colour of its own, without shadow, noise or texture."""
    from detr.data import shapes

    number = iter(range(1, 1000))
    full = {}

    def painted(picture, cut, surface, shadow=0.0):
        index = next(number)
        layer = np.zeros(picture.shape[:2], np.int16)
        full[index] = cover(layer, cut, 1).sum()
        cover(owners, cut, index)

    monkeypatch.setattr(shapes, "paint", painted)
    for index in range(20):
        height, width = 500, 500
        owners = np.full((height, width), -1, np.int16)
        full.clear()
        image, things = draw_shapes(5, "train", index)
        if any(thing.crowd for thing in things):
            continue
        owners = owners[: image.shape[0], : image.shape[1]]
        assert len(things) == len(full)
        for key, pixels in full.items():
            assert (owners == key).sum() >= 0.45 * pixels


def test_a_folder_with_something_in_it_is_refused_unless_told_otherwise(made, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"already holds something.*--overwrite"):
        make_shapes(tmp_path, images=1, val_images=1, video=False)
    make_shapes(tmp_path, images=2, val_images=1, size=64, video=False, overwrite=True)
    make_shapes(tmp_path, images=1, val_images=1, size=64, video=False, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert len(list((tmp_path / "images" / "train").iterdir())) == 1


def test_an_interrupted_run_leaves_no_annotations_and_can_be_repeated(tmp_path):
    def stopping(numbers, total, description):
        for number in numbers:
            if number == 2:
                raise KeyboardInterrupt
            yield number

    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        make_shapes(out, images=5, val_images=1, size=64, video=False, progress=stopping)
    assert not list(out.glob("annotations/*.json"))
    make_shapes(out, images=5, val_images=1, size=64, video=False)
    assert len(find_splits(out)) == 2
    assert not (out / ".unfinished").exists()


@pytest.mark.parametrize("wrong", [{"images": 0}, {"val_images": 0}, {"size": 10}, {"size": 100_000}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(UsageError, match="expected"):
        make_shapes(tmp_path / "set", **wrong)
    assert not (tmp_path / "set").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "set").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        make_shapes(tmp_path / "set")
    with pytest.raises(InputError, match="cannot write"):
        make_shapes(tmp_path / "set" / "below")


def test_the_video_has_a_row_of_ground_truth_for_each_frame(tmp_path, monkeypatch):
    from detr.data import shapes

    monkeypatch.setattr(shapes, "moving_shapes", lambda seed: moving_shapes(seed, frames=8))
    digests = []
    for name in ("a", "b"):
        out = make_shapes(tmp_path / name, images=1, val_images=1, size=64)
        digests.append(hashes(out))
    assert digests[0] == digests[1]
    tree = json.loads((out / "annotations" / "instances_video.json").read_text())
    with av.open(str(out / "video" / "moving.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == 25
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [row["frame_index"] for row in tree["images"]] == list(range(8)) == list(range(len(decoded)))
    original = [image for image, _ in moving_shapes(0, frames=8)]
    for before, after in zip(original, decoded, strict=True):
        assert np.abs(before.astype(int) - after).mean() < 6
    tracks = [row["track_id"] for row in tree["annotations"] if row["image_id"] == 1]
    assert len(tracks) == len(set(tracks)) >= 3
    assert list(find_splits(out)) == ["train", "val"]  # the video is not a split of images


def test_objects_of_the_video_move_and_keep_their_track_and_class():
    frames = [found for _, found in moving_shapes(0, frames=30)]
    first, last = ({thing.track: thing for thing in frames[index]} for index in (0, -1))
    both = first.keys() & last.keys()
    assert len(both) >= 3
    for track in both:
        assert first[track].label == last[track].label
    assert sum(first[track].box != last[track].box for track in both) == len(both)


def test_images_are_ordinary_jpegs(made):
    with Image.open(made / "images" / "train" / "000000.jpg") as picture:
        assert picture.format == "JPEG" and picture.mode == "RGB"
