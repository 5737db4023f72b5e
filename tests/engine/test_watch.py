import pytest
import torch

from detr.engine.watch import Diverged, Watch


def noted(watch, step, norm=1.0, **losses):
    watch.note(step, {name: torch.tensor(value) for name, value in losses.items()}, torch.tensor(norm))


def watch(overflow=False):
    return Watch(torch.device("cpu"), gradients_may_overflow=overflow)


def test_finite_steps_pass_and_are_read_in_order():
    eyes = watch()
    noted(eyes, 1, loss_vfl=2.0, loss_bbox=1.0)
    noted(eyes, 2, loss_vfl=4.0, loss_bbox=3.0, norm=7.0)
    seen = eyes.look()
    assert [one.step for one in seen] == [1, 2]
    assert seen[1].losses == {"loss_vfl": 4.0, "loss_bbox": 3.0}
    assert seen[1].norm == 7.0
    assert float(eyes.blocked) == 0
    assert eyes.look() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_loss_blocks_at_once_and_is_named(value):
    eyes = watch()
    noted(eyes, 1, loss_vfl=1.0, loss_giou=1.0)
    noted(eyes, 2, loss_vfl=1.0, loss_giou=value)
    noted(eyes, 3, loss_vfl=1.0, loss_giou=1.0)
    assert float(eyes.blocked) == 1
    with pytest.raises(Diverged, match="step 2: loss_giou is"):
        eyes.look()


def test_a_broken_gradient_is_named_as_such():
    eyes = watch()
    noted(eyes, 5, norm=float("inf"), loss_vfl=1.0)
    assert float(eyes.blocked) == 1
    with pytest.raises(Diverged, match="step 5: the norm of the gradients"):
        eyes.look()


def test_with_a_scaler_gradients_may_overflow_but_losses_may_not():
    eyes = watch(overflow=True)
    noted(eyes, 1, norm=float("inf"), loss_vfl=1.0)
    assert float(eyes.blocked) == 0
    assert len(eyes.look()) == 1
    noted(eyes, 2, loss_vfl=float("nan"))
    with pytest.raises(Diverged, match="step 2"):
        eyes.look()


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
