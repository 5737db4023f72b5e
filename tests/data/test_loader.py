import json
import os
import re
import time
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from detr.boxes import cxcywh_to_xyxy
from detr.classes import Classes
from detr.data.coco import CocoDataset, read_annotations
from detr.data.loader import _handed_over, input_size, steps_of_epoch, train_loader, val_loader
from detr.data.mixing import CopyBlendConfig, MixUpConfig
from detr.data.mosaic import MosaicConfig
from detr.data.sizes import SizesConfig
from detr.data.transforms import AugmentConfig
from detr.errors import InputError
from detr.image import InputConfig, prepare, resized
from detr.image_file import read_image
from detr.records import Batch
from tests import programs

SMALL = InputConfig(height=64, width=64)
KEEPING = InputConfig(resize="short side", short=40, long=66, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
OFF = {"distort": 0, "zoom_out": 0, "iou_crop": 0, "flip": 0}
PLAIN = AugmentConfig(**OFF)
not_on_windows = pytest.mark.skipif(os.name == "nt", reason="what a process itself waits for can't be ended there")
more_workers_than_cores = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def data_set(folder, count=9, empty=(4,)):
    random = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for index in range(count):
        height, width = (int(v) for v in random.integers(30, 90, 2))
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(
            folder / "images" / f"{index}.png"
        )
        images.append({"id": 100 + index, "file_name": f"{index}.png", "width": width, "height": height})
        for _ in range(0 if index in empty else 1 + index % 3):
            x, y = random.uniform(0, width - 20), random.uniform(0, height - 20)
            row = {"image_id": 100 + index, "category_id": 1, "bbox": [x, y, *random.uniform(5, 20, 2)], "area": 1}
            annotations.append({**row, "id": len(annotations) + 1})
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "boxes.json").write_text(json.dumps(tree))
    return CocoDataset(read_annotations(folder / "boxes.json"), folder / "images")


@pytest.fixture
def dataset(tmp_path):
    return data_set(tmp_path)


def loader(dataset, **changed):
    settings = {
        "input": SMALL, "augment": AugmentConfig(), "batch_size": 2, "seed": 0, "epoch": 0, "workers": 0,
        "scales": (32, 64, 96), **changed,
    }  # fmt: skip
    return train_loader(dataset, **settings)


def same(first, second):
    assert torch.equal(first.images, second.images)
    for one, other in zip(first.targets, second.targets, strict=True):
        assert one.image_id == other.image_id and one.size == other.size
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.labels, other.labels)
    return True


def flat(lists):
    return list(chain.from_iterable(lists))


def ids(batches):
    return [[target.image_id for target in batch.targets] for batch in batches]


@more_workers_than_cores
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_bytes(dataset, workers):
    alone = list(loader(dataset))
    assert len(alone) == 4
    torch.manual_seed(99)
    for one, other in zip(alone, loader(dataset, workers=workers), strict=True):
        assert same(one, other)


def test_a_sample_is_the_same_in_a_batch_of_any_size(dataset):
    def by_id(batch_size):
        return {
            target.image_id: (image, target)
            for batch in loader(dataset, batch_size=batch_size, scales=())
            for image, target in zip(batch.images, batch.targets, strict=True)
        }

    one, three = by_id(1), by_id(3)
    for id, (image, target) in three.items():
        assert torch.equal(image, one[id][0]) and torch.equal(target.boxes, one[id][1].boxes)


def test_a_loader_that_goes_on_within_an_epoch_gives_the_next_batches(dataset):
    whole = list(loader(dataset))
    rest = list(loader(dataset, first_step=2))
    assert len(rest) == 2 and same(whole[2], rest[0]) and same(whole[3], rest[1])


def test_epochs_and_seeds_differ_in_order(dataset):
    orders = [str(ids(loader(dataset, seed=seed, epoch=epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


@more_workers_than_cores
@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_torchs_random_numbers_alone(dataset, workers):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(loader(dataset, workers=workers))
    list(val_loader(dataset, input=SMALL, batch_size=4, workers=workers))
    assert torch.equal(torch.rand(3), expected)


def test_an_epoch_shows_each_image_once_and_leaves_out_the_last_small_batch(dataset):
    shown = flat(ids(loader(dataset)))
    assert len(shown) == len(set(shown)) == 8


def test_a_batch_larger_than_the_data_set_is_the_whole_data_set(dataset):
    assert [sorted(step) for step in ids(loader(dataset, batch_size=64))] == [list(range(100, 109))]


def test_many_processes_are_no_reason_for_pytorch_to_warn(dataset):
    assert val_loader(dataset, input=SMALL, batch_size=2, workers=99).num_workers == 99


def test_one_image_is_enough(tmp_path):
    batches = list(loader(data_set(tmp_path, count=1, empty=()), batch_size=4))
    assert len(batches) == 1 and len(batches[0].targets) == 1


def rare(tmp_path):
    """Nine images with boxes, the first of them with a class that no other has."""
    dataset = data_set(tmp_path, empty=())
    known = dataset.annotations
    labels = np.where(known.image_indices == 0, 1, 0)
    return CocoDataset(replace(known, classes=Classes.from_names(["thing", "rare"]), labels=labels), dataset.images)


def test_balanced_images_come_more_than_once_and_never_alike(tmp_path):
    """sqrt(1 / (1 / 9)) = 3 times, the others sqrt(9 / 8) = 1.06 times: 11.49 images an epoch."""
    batches = list(loader(rare(tmp_path), batch_size=11, balance=1.0, scales=()))
    shown = [target.image_id for batch in batches for target in batch.targets]
    assert len(batches) == 1 and len(shown) == 11 and shown.count(100) in (2, 3)
    seen = [
        image for image, target in zip(batches[0].images, batches[0].targets, strict=True) if target.image_id == 100
    ]
    assert not torch.equal(seen[0], seen[1])


def test_a_balanced_epoch_goes_on_within_and_is_shared_by_processes(tmp_path):
    dataset = rare(tmp_path)
    whole = list(loader(dataset, balance=1.0))
    assert len(whole) == 5
    for one, other in zip(whole[2:], loader(dataset, balance=1.0, first_step=2), strict=True):
        assert same(one, other)
    halves = [list(loader(dataset, balance=1.0, batch_size=1, rank=rank, world_size=2)) for rank in range(2)]
    for step, (first, second) in zip(ids(whole), zip(*map(ids, halves), strict=True), strict=True):
        assert sorted(step) == sorted(first + second)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_the_images_of_each_step(world_size):
    whole = [sorted(step) for step in steps_of_epoch(21, batch_size=8, seed=3, epoch=1)]
    split = [
        steps_of_epoch(21, batch_size=8 // world_size, seed=3, epoch=1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert [sorted(flat(parts)) for parts in zip(*split, strict=True)] == whole


def test_no_process_is_left_without_an_image():
    for rank in range(4):
        assert [len(step) for step in steps_of_epoch(2, batch_size=3, seed=0, epoch=0, rank=rank, world_size=4)] == [1]


def test_sizes_are_drawn_for_each_step_and_stop_with_the_strong_augmentation(dataset):
    sizes = {tuple(batch.images.shape[-2:]) for epoch in range(3) for batch in loader(dataset, epoch=epoch)}
    assert sizes == {(32, 32), (64, 64), (96, 96)}
    stopped = loader(dataset, epoch=2, augment=AugmentConfig(stop_epoch=2))
    assert {tuple(batch.images.shape[-2:]) for batch in stopped} == {(64, 64)}


def test_a_scale_is_the_longer_side():
    assert input_size(InputConfig(height=640, width=640), 480) == (480, 480)
    assert input_size(InputConfig(height=320, width=640), 480) == (256, 480)
    assert input_size(InputConfig(height=32, width=640), 320) == (32, 320)


def test_validation_shows_each_image_once_in_order_over_all_processes(dataset):
    assert flat(ids(val_loader(dataset, input=SMALL, batch_size=4, workers=0))) == list(range(100, 109))
    parts = [
        flat(ids(val_loader(dataset, input=SMALL, batch_size=2, workers=0, rank=rank, world_size=4)))
        for rank in range(4)
    ]
    assert sorted(flat(parts)) == list(range(100, 109))
    assert list(val_loader(dataset, input=SMALL, batch_size=2, workers=0, rank=10, world_size=12)) == []


def test_validation_prepares_an_image_as_prediction_does(dataset):
    batch = next(iter(val_loader(dataset, input=SMALL, batch_size=1, workers=0)))
    assert torch.equal(batch.images[0], resized(read_image(dataset.images / "0.png"), SMALL))
    assert batch.padding is None


def test_an_image_without_boxes_has_an_empty_target(dataset):
    batches = list(val_loader(dataset, input=SMALL, batch_size=9, workers=0))
    target = batches[0].targets[4]
    assert target.boxes.shape == (0, 4) and target.labels.shape == (0,) and target.labels.dtype == torch.int64


@more_workers_than_cores
@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_different_size_are_padded_and_their_boxes_are_shares_of_the_image(dataset, workers):
    for batch in (
        *val_loader(dataset, input=KEEPING, batch_size=3, workers=workers),
        *loader(dataset, input=KEEPING, augment=PLAIN, scales=(), batch_size=3, workers=workers),
    ):
        assert batch.padding.shape == (3, *batch.images.shape[2:])
        for image, padding, target in zip(batch.images, batch.padding, batch.targets, strict=True):
            height, width = KEEPING.size_of(*target.size)
            assert (image[:, padding] == 0).all() and int((~padding).sum()) == height * width
            pixels = read_image(dataset.images / f"{target.image_id - 100}.png")
            assert torch.equal(image[:, :height, :width], resized(pixels, KEEPING))
            boxes = dataset.annotations.boxes[dataset.annotations.image_indices == target.image_id - 100]
            shares = boxes / np.tile(target.size[::-1], 2)
            torch.testing.assert_close(target.boxes[:, 2:], torch.from_numpy(shares[:, 2:]).float())


def test_a_size_is_drawn_for_each_image_until_the_stop_epoch(dataset):
    sizes = SizesConfig(sides=(32, 48), crop=0)
    config = AugmentConfig(**OFF, sizes=sizes, stop_epoch=3)
    wide = KEEPING.model_copy(update={"long": 200})
    seen = {epoch: [] for epoch in (0, 1, 2, 3)}
    for epoch in seen:
        for batch in loader(dataset, input=wide, augment=config, scales=(), batch_size=1, epoch=epoch):
            seen[epoch].append(min(batch.images.shape[2:]))
    assert {*seen[0], *seen[1], *seen[2]} == {32, 48} and set(seen[3]) == {40}


DENSE = AugmentConfig(
    mosaic=MosaicConfig(), mixup=MixUpConfig(), copy_blend=CopyBlendConfig(min_area=1), start_epoch=1, flat_epoch=2,
    stop_epoch=3,
)  # fmt: skip


@more_workers_than_cores
@pytest.mark.parametrize("workers", [1, 3])
def test_mosaics_and_mixed_batches_are_the_same_whatever_the_workers(dataset, workers):
    alone = list(loader(dataset, augment=DENSE, epoch=1, batch_size=3))
    torch.manual_seed(99)
    for one, other in zip(alone, loader(dataset, augment=DENSE, epoch=1, batch_size=3, workers=workers), strict=True):
        assert same(one, other)
    later = loader(dataset, augment=DENSE, epoch=1, batch_size=3, first_step=1)
    assert all(same(one, other) for one, other in zip(alone[1:], later, strict=True))


@pytest.mark.parametrize("scales", [(), (32, 96)])
def test_boxes_of_mixed_batches_stay_in_the_image(dataset, scales):
    for seed in range(4):
        for batch in loader(dataset, augment=DENSE, epoch=1, batch_size=4, seed=seed, scales=scales):
            assert batch.images.isfinite().all() and batch.images.min() >= 0 and batch.images.max() <= 1
            for target in batch.targets:
                corners = cxcywh_to_xyxy(target.boxes)
                assert (corners >= -1e-6).all() and (corners <= 1 + 1e-6).all() and (target.boxes[:, 2:] > 0).all()
                assert len(target.labels) == len(target.boxes)


def test_more_objects_are_seen_in_the_dense_epochs(dataset):
    def objects(config, epoch):
        loaders = [loader(dataset, augment=config, epoch=epoch, seed=seed, batch_size=3) for seed in range(5)]
        return sum(len(target.labels) for batch in chain(*loaders) for target in batch.targets)

    plain = objects(AugmentConfig(**OFF), 0)
    for name, factor in (("mosaic", 2), ("mixup", 1.9), ("copy_blend", 2)):
        part = getattr(DENSE, name).model_copy(update={"probability": 1.0})
        only = AugmentConfig(**OFF, **{name: part}, start_epoch=1, flat_epoch=2, stop_epoch=3)
        assert objects(only, 1) > factor * plain, name
        assert objects(only, 0) == objects(only, 3) == plain, name
        assert (objects(only, 2) > plain) == (name == "copy_blend"), name


def test_a_process_draws_its_own_mixtures(dataset):
    always = AugmentConfig(**OFF, mixup=MixUpConfig(probability=1))
    (one,), (other,) = (
        list(loader(dataset, augment=always, batch_size=4, world_size=2, rank=rank, scales=())) for rank in (0, 1)
    )
    shares = []
    for batch in (one, other):
        pictures = [prepare(read_image(dataset.images / f"{t.image_id - 100}.png"), SMALL) for t in batch.targets]
        own, before = pictures[1] - pictures[0], batch.images[1] - pictures[0]
        shares.append(float((own * before).sum() / (own * own).sum()))
    assert min(shares) >= 0.45 and max(shares) <= 0.55 and abs(shares[0] - shares[1]) > 1e-4


def test_a_number_of_scales_spreads_them_around_the_inputs_own_side(dataset):
    large = InputConfig(height=128, width=128)
    sizes = {batch.images.shape[-1] for e in range(4) for batch in loader(dataset, input=large, scales=2, epoch=e)}
    assert sizes == {96, 128, 160}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_an_input_error_with_its_name(dataset, workers):
    (dataset.images / "3.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"3\.png") as caught:
        list(loader(dataset, workers=workers, batch_size=9))
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


def test_training_on_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="none of the 3 training images has a box"):
        loader(data_set(tmp_path, count=3, empty=(0, 1, 2)))


def test_workers_leave_ctrl_c_to_their_parent(dataset, tmp_path):
    """A worker that dies of Ctrl-C prints a traceback and breaks the step that the parent wants to finish."""
    program = f"""
import os, signal, sys
from detr.boxes import cxcywh_to_xyxy
from detr.data.coco import CocoDataset, read_annotations
from detr.records import Batch
from tests import programs
from detr.data.loader import val_loader
from detr.image import InputConfig
os.setsid()
dataset = CocoDataset(read_annotations({str(dataset.images.parent / "boxes.json")!r}), {str(dataset.images)!r})
signal.signal(signal.SIGINT, lambda *_: print("parent", flush=True))
batches = iter(val_loader(dataset, input=InputConfig(height=32, width=32), batch_size=1, workers=1))
next(batches)
os.killpg(0, signal.SIGINT)
print(1 + len(list(batches)))
"""
    done = programs.run("-c", program)
    assert done.stdout.split() == ["parent", "9"], done.stderr
    assert "Traceback" not in done.stderr


def never(index, path, channels):
    time.sleep(600)


@pytest.mark.parametrize(("workers", "who", "wait"), [
    (1, r"loader process 1 of 1 \(pid \d+\)", 3), pytest.param(0, "this process", 0.4, marks=not_on_windows),
])  # fmt: skip
def test_a_file_that_never_arrives_is_named_and_given_up_after_a_while(dataset, capfd, workers, who, wait):
    dataset.pixels = never
    batches = loader(dataset, workers=workers, longest_wait=wait)
    with pytest.raises(
        InputError, match=rf"^no batch for {wait} s \(train.longest_wait\): {who} is at .*images.\d.png"
    ):
        next(iter(batches))
    assert re.match(
        rf"warning: no batch for \S+ s: {who} is at \S+.png; given up after {wait} s \(train", capfd.readouterr().err
    )


@pytest.mark.parametrize(("torchs", "ours"), [
    ("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)", "--shm-size"),
    ("unable to open shared memory object </torch_1_2_3> in read-write mode: Too many open files (24)", "ulimit -n"),
])  # fmt: skip
def test_a_batch_that_finds_no_room_between_processes_is_the_users_to_mend(torchs, ours):
    class Full(Batch):
        def share_memory(self):
            raise RuntimeError(torchs)

    with pytest.raises(InputError, match=ours):
        _handed_over(Full(torch.zeros(1), None, []))
