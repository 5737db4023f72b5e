"""Images of other channels than RGB, from the file to the boxes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detr.config import validated
from detr.data.kept_pixels import kept
from detr.data.loader import train_loader
from detr.data.opening import open_for_training
from detr.data.transforms import AugmentConfig
from detr.engine.detector import Detector
from detr.errors import InputError
from detr.image import InputConfig, as_input
from detr.image_file import read_image
from detr.models import build_model
from detr.training.recipe import Recipe
from detr.training.saved.checkpoint import save_weights
from detr.training.start import start_from
from detr.training.train import train
from tests.small import SMALL


def recipe_for(channels, **model):
    """The small network for images of so many channels."""
    settings = {**SMALL["model"], **model, "input": {**SMALL["model"]["input"], "channels": channels}}
    return validated(Recipe, {**SMALL, "model": settings, "train": {**SMALL["train"], "epochs": 1}}, "test")


@pytest.fixture(scope="session")
def banded(small_shapes, tmp_path_factory):
    """The generated set with a fifth and fourth band, as arrays."""
    root = tmp_path_factory.mktemp("banded")
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        tree = json.loads((small_shapes / "annotations" / f"instances_{split}.json").read_text())
        (root / "images" / split).mkdir(parents=True)
        for row in tree["images"]:
            rgb = read_image(small_shapes / "images" / split / row["file_name"])
            row["file_name"] = row["file_name"].rsplit(".", 1)[0] + ".npy"
            np.save(root / "images" / split / row["file_name"], np.concatenate([rgb, rgb[:, :, :2] // 2], 2))
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(tree))
    return root


def test_a_set_of_five_bands_is_trained_on_measured_and_predicted(banded, tmp_path, plain):
    recipe = recipe_for(5)
    train_set, val_set = open_for_training(banded, channels=5)
    done = train(
        recipe, train_set=train_set, val_set=val_set, out=tmp_path, device="cpu", workers=0, say=lambda line: None
    )
    detector = Detector(tmp_path / "best.safetensors", device="cpu")
    assert detector.config.input.channels == 5
    measured = detector.val(banded, batch=2, workers=0, quiet=True)
    assert measured.ap == pytest.approx(done.metrics["AP"], abs=1e-6)
    file = banded / "images" / "val" / "000000.npy"
    from_file, from_array = detector(file, conf=0), detector(np.load(file), conf=0)
    assert from_file[0].image.shape[2] == 3 and len(from_file[0].boxes) > 0
    np.testing.assert_array_equal(from_file[0].boxes.xyxy, from_array[0].boxes.xyxy)
    with pytest.raises(InputError, match=r"shape .*expected .*\[h, w, 5\]"):
        detector(np.zeros((20, 20, 2), np.uint8))


@pytest.mark.parametrize("mosaic", [None, {"probability": 1.0}])
def test_bands_are_augmented_together(banded, mosaic):
    train_set, _ = open_for_training(banded, channels=5)
    augment = AugmentConfig(distort=0, mosaic=mosaic)
    input = InputConfig(height=64, width=64, channels=5)
    for batch in train_loader(train_set, input=input, augment=augment, batch_size=3, seed=0, epoch=0, workers=0):
        assert batch.images.shape == (3, 5, 64, 64)
        halves = batch.images[:, 3:].int() * 2 - batch.images[:, :2].int()
        assert halves.abs().max() <= 3  # the last two are halves of the first two wherever these went


def test_light_changes_in_bands_and_colours_only_in_rgb(banded):
    train_set, _ = open_for_training(banded, channels=5)
    input = InputConfig(height=64, width=64, channels=5)
    how = {"input": input, "batch_size": 6, "seed": 0, "epoch": 0, "workers": 0}
    plain = AugmentConfig(distort=0, zoom_out=0, iou_crop=0, flip=0)
    (before,) = train_loader(train_set, augment=plain, **how)
    (after,) = train_loader(train_set, augment=plain.model_copy(update={"distort": 1.0}), **how)
    assert after.images.dtype == torch.uint8 and not torch.equal(before.images, after.images)
    flat = [torch.stack([each.images.flatten(), each.images.flatten()]).float() for each in (before, after)]
    assert torch.corrcoef(torch.stack([flat[0][0], flat[1][0]]))[0, 1] > 0.8


@pytest.mark.parametrize("place", ["ram", "disk"])
def test_bands_are_kept(banded, place, tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_HOME", str(tmp_path))
    train_set, _ = open_for_training(banded, channels=5)
    before = train_set[0].image.clone()
    (train_set.pixels,) = kept(place, [train_set.annotations], channels=5)
    assert all(torch.equal(train_set[0].image, before) for _ in range(2))


def start(tmp_path, channels, **model):
    """A network for RGB, and one for other channels that starts from it."""
    recipe = recipe_for(3, **model)
    source = build_model(recipe.model).eval()
    save_weights(tmp_path / "rgb.safetensors", source, recipe, epoch=1, metrics={})
    network = build_model(recipe_for(channels, **model).model).eval()
    start_from(network, str(tmp_path / "rgb.safetensors"))
    return source, network


BACKBONES = [{"depth": 10, "width": 8}, {"depth": 10, "width": 8, "variant": "b"}, {"kind": "hgnetv2", "size": "B0"}]


@pytest.mark.parametrize("backbone", BACKBONES, ids=["vd", "b", "hgnetv2"])
def test_more_channels_start_with_what_the_network_for_rgb_answers(tmp_path, backbone):
    source, network = start(tmp_path, 5, backbone=backbone)
    images = torch.rand(1, 5, 64, 64)
    with torch.inference_mode():
        theirs, ours = source(images[:, :3]).layers[-1], network(images).layers[-1]
    torch.testing.assert_close(ours.logits, theirs.logits)
    torch.testing.assert_close(ours.boxes, theirs.boxes)


def test_grey_starts_with_what_the_network_for_rgb_answers_to_grey(tmp_path):
    source, network = start(tmp_path, 1)
    images = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        theirs, ours = source(images.expand(-1, 3, -1, -1)).layers[-1], network(images).layers[-1]
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-4)


def test_a_network_for_grey_takes_colour_pictures_and_videos(tmp_path, small_shapes):
    detector = Detector(build_model(recipe_for(1).model), device="cpu")
    file = sorted((small_shapes / "images" / "val").iterdir())[0]
    grey = np.asarray(Image.open(file).convert("L"))
    (one,), (other,) = detector(file, conf=0), detector(grey, conf=0)
    np.testing.assert_array_equal(one.boxes.xyxy, other.boxes.xyxy)
    assert (one.image[:, :, 0] == one.image[:, :, 1]).all()


def test_a_video_is_refused_where_the_network_takes_more_channels(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"any")
    detector = Detector(build_model(recipe_for(5).model), device="cpu")
    with pytest.raises(InputError, match=r"a\.mp4: a video has 3 channels; the model takes 5"):
        detector(tmp_path / "a.mp4")


def test_objects_are_followed_through_images_of_more_channels():
    pytest.importorskip("trackers")
    detector = Detector(build_model(recipe_for(5).model), device="cpu")
    results = detector.track([np.zeros((64, 64, 5), np.uint8)] * 2, fps=10)
    assert len(results) == 2


def test_images_of_too_few_channels_are_named_before_training(small_shapes):
    with pytest.raises(InputError, match=r"images cannot be read: .*has 3 channels; the model takes 5"):
        open_for_training(small_shapes, channels=5)


def test_grey_and_bands_are_normalised_on_their_way():
    config = InputConfig(height=4, width=4, channels=2, mean=(0.5, 0.25), std=(0.5, 0.25))
    images = torch.full((1, 2, 4, 4), 255, dtype=torch.uint8)
    assert as_input(images, None, config).mean((0, 2, 3)).tolist() == [1.0, 3.0]
