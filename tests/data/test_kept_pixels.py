import json

import numpy as np
import pytest
import torch
from PIL import Image

from detr.data import kept_pixels
from detr.data.coco import CocoDataset, read_annotations
from detr.data.kept_pixels import kept
from detr.data.loader import val_loader
from detr.errors import InputError, UsageError
from detr.image import InputConfig


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path / "home"))


@pytest.fixture
def dataset(tmp_path):
    """Four images of noise, of different sizes."""
    draw = np.random.default_rng(0)
    rows = [{"id": index, "file_name": f"{index}.png", "width": 20 + index, "height": 10} for index in range(4)]
    for row in rows:
        pixels = draw.integers(0, 255, (row["height"], row["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / row["file_name"])
    tree = {"images": rows, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(tree))
    return CocoDataset(read_annotations(tmp_path / "boxes.json"), tmp_path)


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that were decoded, in order."""
    names = []
    read = kept_pixels.read_image
    monkeypatch.setattr(kept_pixels, "read_image", lambda path, **how: names.append(path.name) or read(path, **how))
    return names


@pytest.mark.parametrize("place", ["ram", "disk"])
def test_an_image_is_decoded_once_and_stays_the_same(place, dataset, reads):
    plain = [dataset[index].image.clone() for index in range(4)]
    assert len(reads) == 4
    (dataset.pixels,) = kept(place, [dataset.annotations])
    for _ in range(3):
        for index, image in enumerate(plain):
            seen = dataset[index].image
            assert torch.equal(seen, image)
            seen.zero_()  # whoever changes what he got changes nobody else's
    assert len(reads) == 8


def test_what_is_on_disk_serves_the_next_run_until_an_image_changes(dataset, reads):
    for _ in range(2):
        again = CocoDataset(dataset.annotations, dataset.images)
        (again.pixels,) = kept("disk", [again.annotations])
        assert again[0].image.shape == (3, 10, 20)
    assert len(reads) == 1
    Image.new("RGB", (20, 10), "red").save(dataset.images / "0.png")
    assert again[0].image[0].eq(255).all() and len(reads) == 2


def test_a_damaged_file_on_disk_is_made_anew(dataset, reads, tmp_path):
    (dataset.pixels,) = kept("disk", [dataset.annotations])
    image = dataset[0].image.clone()
    (file,) = (tmp_path / "home" / "pixels").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(dataset[0].image, image) and len(reads) == 2
    assert np.load(file).shape == image.permute(1, 2, 0).shape


def test_an_image_of_another_size_than_annotated_is_never_kept_in_memory(dataset, reads):
    dataset.annotations.heights[0] = 11
    (dataset.pixels,) = kept("ram", [dataset.annotations])
    with pytest.warns(UserWarning, match="pixels but the annotation file says"):
        shapes = {tuple(dataset[0].image.shape) for _ in range(2)}
    assert shapes == {(3, 10, 20)} and len(reads) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_of_a_loader_share_what_they_keep(dataset, workers):
    settings = {"input": InputConfig(height=32, width=32), "batch_size": 2, "workers": workers}
    plain = [batch.images for batch in val_loader(dataset, **settings)]
    (dataset.pixels,) = kept("ram", [dataset.annotations])
    first = [batch.images for batch in val_loader(dataset, **settings)]
    assert dataset.pixels.is_there.all()
    second = [batch.images for batch in val_loader(dataset, **settings)]
    for images in zip(plain, first, second, strict=True):
        assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])


@pytest.mark.parametrize("place", ["ram", "disk"])
def test_a_set_too_large_is_refused_before_it_is_begun(place, dataset, monkeypatch):
    monkeypatch.setattr(kept_pixels, "_SPARED", 1 << 60)
    with pytest.raises(UsageError, match=rf"cache '{place}': the images take 0\.\d MB decoded, and [\d.]+ [GM]B"):
        kept(place, [dataset.annotations])


def test_images_of_unknown_size_are_not_kept_in_memory_in_vain(dataset):
    dataset.annotations.heights[:] = 0
    with pytest.raises(UsageError, match="needs the sizes of the images"):
        kept("ram", [dataset.annotations])
    assert len(kept("disk", [dataset.annotations])) == 1


def test_other_places_are_refused(dataset):
    with pytest.raises(UsageError, match="expected one of ram, disk"):
        kept("cloud", [dataset.annotations])


def test_an_image_that_is_gone_is_named(dataset, tmp_path):
    (dataset.pixels,) = kept("disk", [dataset.annotations])
    with pytest.raises(InputError, match=r"gone\.png: No such file"):
        dataset.pixels(0, tmp_path / "gone.png", 3)
