import pytest
import torch

from detr.runtime.distributed import Team
from detr.training.told.watch import Watch

ALONE = Team(0, 1, torch.device("cpu"))


def noted(watch, step, norm=1.0, scale=1.0, **losses):
    values = {name: torch.tensor(value) for name, value in losses.items()}
    return bool(watch.note(step, values, torch.tensor(norm), torch.tensor(scale)))


def watch(overflow=False):
    return Watch(ALONE, gradients_may_overflow=overflow)


def test_finite_steps_pass_and_are_read_in_order():
    eyes = watch()
    assert not noted(eyes, 1, loss_vfl=2.0, loss_bbox=1.0)
    assert not noted(eyes, 2, loss_vfl=4.0, loss_bbox=3.0, norm=7.0)
    seen = eyes.look()
    assert [one.step for one in seen] == [1, 2]
    assert seen[1].losses == {"loss_vfl": 4.0, "loss_bbox": 3.0}
    assert seen[1].norm == 7.0
    assert eyes.look() == eyes.unanswered() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_loss_blocks_its_step_alone_and_is_named(value):
    eyes = watch()
    assert not noted(eyes, 1, loss_vfl=1.0, loss_giou=1.0)
    assert noted(eyes, 2, loss_vfl=1.0, loss_giou=value)
    assert not noted(eyes, 3, loss_vfl=1.0, loss_giou=3.0)
    assert [one.skipped for one in eyes.look()] == [0, 1, 0]
    (left_out,) = eyes.unanswered()
    assert left_out.step == 2 and left_out.reason == f"loss_giou is {value}"
    assert eyes.means() == {"loss_vfl": 1.0, "loss_giou": 2.0}


def test_a_broken_gradient_is_named_as_such():
    eyes = watch()
    assert noted(eyes, 5, norm=float("inf"), loss_vfl=1.0)
    eyes.look()
    assert eyes.unanswered()[0].reason.startswith("the norm of the gradients is inf")


def test_steps_left_out_are_counted_in_all_and_in_a_row_over_a_pause():
    eyes, later = watch(), watch()
    for step, loss in enumerate([float("nan"), 1.0, float("nan"), float("nan")], 1):
        noted(eyes, step, loss_vfl=loss)
    sums = eyes.sums()
    assert (eyes.skipped, eyes.in_a_row) == (3, 2)
    later.go_on(sums, skipped=3, in_a_row=2)
    noted(later, 5, loss_vfl=float("nan"))
    later.look()
    assert later.unanswered()[0].skipped == 3 and later.skipped == 4


@pytest.mark.parametrize(("norm", "scale", "loss", "left_out"), [
    (float("inf"), 65536.0, 1.0, False),  # the scaler's own matter
    (float("inf"), 1.0, 1.0, True),  # no scale is to blame
    (float("nan"), 65536.0, float("nan"), True),
    (1.0, 65536.0, 1.0, False),
])  # fmt: skip
def test_with_a_scaler_gradients_may_overflow_but_losses_may_not(norm, scale, loss, left_out):
    eyes = watch(overflow=True)
    assert noted(eyes, 1, norm=norm, scale=scale, loss_vfl=loss) == left_out
    eyes.look()
    assert eyes.skipped == left_out


def test_an_epoch_goes_on_with_the_sums_of_its_first_half():
    whole, first, second = watch(), watch(), watch()
    for step in (1, 2):
        noted(whole, step, loss_vfl=0.1 * step)
        noted(first, step, loss_vfl=0.1 * step)
    second.go_on(first.sums())
    noted(whole, 3, loss_vfl=0.7)
    noted(second, 3, loss_vfl=0.7)
    assert second.means() == whole.means()


def test_means_are_over_the_steps_that_had_the_loss():
    eyes = watch()
    noted(eyes, 1, loss_vfl=1.0, loss_vfl_dn_0=5.0)
    noted(eyes, 2, loss_vfl=3.0)
    assert eyes.means() == {"loss_vfl": 2.0, "loss_vfl_dn_0": 5.0}
    assert eyes.means() == {}
