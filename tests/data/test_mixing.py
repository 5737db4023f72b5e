import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from detr.boxes import cxcywh_to_xyxy
from detr.data.mixing import CopyBlendConfig, MixUpConfig, copy_blended, mix, mixed_up
from detr.data.sample import drawing_from
from detr.records import Target

ALWAYS = CopyBlendConfig(probability=1, min_area=1)


def batch(*counts, height=20, width=30):
    """Image k is of brightness k; its boxes are of label k, in whole pixels."""
    torch.manual_seed(1)
    images = torch.arange(len(counts), dtype=torch.float32)[:, None, None, None].expand(-1, 3, height, width).clone()
    targets = []
    for k, count in enumerate(counts):
        x1, y1 = torch.randint(width // 2, (count,)), torch.randint(height // 2, (count,))
        w, h = torch.randint(1, width // 2, (count,)), torch.randint(1, height // 2, (count,))
        boxes = torch.stack([(x1 + w / 2) / width, (y1 + h / 2) / height, w / width, h / height], 1)
        targets.append(Target(torch.full((count,), k), boxes.reshape(-1, 4), image_id=k, size=(height, width)))
    return images, targets


def test_mixup_blends_each_image_with_the_one_before_and_keeps_the_boxes_of_both():
    images, targets = batch(2, 0, 1)
    mixed, both = mixed_up(images, targets, share=0.6)
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([0.8, 0.6, 1.6]))  # 0.6 * own + 0.4 * before
    assert [target.labels.tolist() for target in both] == [[0, 0, 2], [0, 0], [2]]
    assert torch.equal(both[0].boxes, torch.cat([targets[0].boxes, targets[2].boxes]))
    assert [target.image_id for target in both] == [0, 1, 2]
    assert torch.equal(images[:, 0, 0, 0], torch.arange(3.0)) and len(targets[0].labels) == 2  # as they were


def test_copy_blend_adds_objects_of_the_batch_half_transparent():
    images, targets = batch(1, 1)
    config = ALWAYS.model_copy(update={"objects": 1, "expand": (0.0, 0.0), "share": (0.75, 0.75)})
    for key in range(6):
        with drawing_from(key):
            seen, answers = copy_blended(images, targets, config)
        for own in (0, 1):
            label = int(answers[own].labels[1])
            x1, y1, x2, y2 = (cxcywh_to_xyxy(answers[own].boxes[1]) * torch.tensor([30, 20, 30, 20])).round().int()
            expected = images[own].clone()
            expected[:, y1:y2, x1:x2] = 0.75 * own + 0.25 * label
            torch.testing.assert_close(seen[own], expected)
            torch.testing.assert_close(answers[own].boxes[1, 2:], targets[label].boxes[0, 2:])


def test_a_margin_is_blended_in_with_an_object_but_not_into_its_box():
    images = torch.zeros(2, 3, 40, 40)
    images[1] = 1
    box = torch.tensor([[0.5, 0.5, 0.25, 0.25]])
    targets = [Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)), Target(torch.tensor([5]), box)]
    for key in range(10):
        with drawing_from(key):
            seen, answers = copy_blended(images, targets, ALWAYS.model_copy(update={"expand": (0.2, 0.2)}))
        x1, y1, x2, y2 = (cxcywh_to_xyxy(answers[0].boxes[0]) * 40).round().int().tolist()
        assert (x2 - x1, y2 - y1) == (10, 10)
        wide = (min(x2 + 2, 40) - max(x1 - 2, 0)) * (min(y2 + 2, 40) - max(y1 - 2, 0))
        assert int((seen[0, 0] > 0).sum()) == wide


def test_small_objects_are_not_copied_and_an_empty_batch_stays_as_it_is():
    images, targets = batch(0, 0)
    seen, answers = copy_blended(images, targets, ALWAYS)
    assert seen is images and answers == targets
    images, targets = batch(3, 3)
    seen, answers = copy_blended(images, targets, ALWAYS.model_copy(update={"min_area": 601.0}))
    assert seen is images and answers == targets


@pytest.mark.parametrize(
    ("box", "min_area", "sides"),
    [
        ([0.5, 0.5, 0.5, 0.5], 100.0, [0.5, 0.5]),  # just large enough
        ([0.5, 0.5, 0.5, 0.5], 100.1, None),
        ([0.0, 1.0, 1.0, 1.0], 1.0, [0.5, 0.5]),  # what is outside is not there
        ([0.5, 0.5, 0.01, 1.0], 1.0, None),  # no pixel wide
        ([0.5, 0.5, 1.0, 0.01], 1.0, None),
    ],
)
def test_an_object_is_copied_if_it_is_large_enough_inside_the_image(box, min_area, sides):
    nothing = Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    targets = [nothing, Target(torch.tensor([5]), torch.tensor([box]))]
    config = ALWAYS.model_copy(update={"min_area": min_area})
    _, (answer, _) = copy_blended(torch.zeros(2, 3, 20, 20), targets, config)
    torch.testing.assert_close(answer.boxes[:, 2:], torch.tensor([sides or []]).reshape(-1, 2))


def test_one_image_is_not_mixed_with_itself():
    images, targets = batch(2)
    seen, answers = mix(images, targets, mixup=MixUpConfig(probability=1), copy_blend=None)
    assert seen is images and answers is targets


def test_copy_blend_takes_the_batches_that_mixup_leaves():
    images, targets = batch(1, 1)
    seen = []
    for key in range(200):
        with drawing_from(key):
            mixed, _ = mix(images, targets, mixup=MixUpConfig(), copy_blend=CopyBlendConfig(min_area=1))
        whole = mixed[1].unique().numel() == 1
        seen.append("as it was" if torch.equal(mixed, images) else "mixup" if whole else "copies")
    shares = {kind: seen.count(kind) / len(seen) for kind in set(seen)}
    assert shares["mixup"] == pytest.approx(0.5, abs=0.1)
    assert shares["copies"] == pytest.approx(0.25, abs=0.12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(2, 50), st.integers(2, 50), st.integers(0, 999))
def test_boxes_stay_inside_and_labels_stay_with_them(counts, height, width, key):
    images, targets = batch(*counts, height=2 * height, width=2 * width)
    with drawing_from(key):
        seen, answers = mix(images, targets, mixup=MixUpConfig(), copy_blend=ALWAYS)
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= len(counts) - 1 + 1e-6
    for before, after in zip(targets, answers, strict=True):
        corners = cxcywh_to_xyxy(after.boxes)
        assert (corners >= -1e-6).all() and (corners <= 1 + 1e-6).all() and (after.boxes[:, 2:] > 0).all()
        assert after.boxes.shape == (len(after.labels), 4) and after.labels.dtype == torch.int64
        assert torch.equal(after.labels[: len(before.labels)], before.labels) and after.image_id == before.image_id
        for label, box in zip(after.labels.tolist(), after.boxes, strict=True):
            sides = targets[label].boxes[:, 2:]
            assert (sides - box[2:]).abs().amax(1).min() < 1e-5  # some box of that label is of that size


@pytest.mark.parametrize("pair", [(0.6, 0.4), (-0.1, 0.5), (0.5, 1.5)])
def test_shares_that_cannot_be_are_refused(pair):
    for config, name in ((MixUpConfig, "share"), (CopyBlendConfig, "share"), (CopyBlendConfig, "expand")):
        with pytest.raises(ValidationError, match=f"{name}.*smaller one first"):
            config(**{name: pair})
        assert getattr(config(**{name: (0, 1)}), name) == (0, 1) and config(**{name: (0.5, 0.5)})
