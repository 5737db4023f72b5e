import pytest
import torch

from detr.convert import TABLES, source_for
from detr.models import preset
from detr.models.derived import derived_state, with_settings


def table(config):
    return TABLES[source_for(config, "official")]


@pytest.mark.parametrize(
    ("name", "positions"),
    [("rtdetrv2-r18", 80**2 + 40**2 + 20**2), ("dfine-n", 40**2 + 20**2), ("deimv2-atto", 20**2 + 10**2)],
)
def test_anchors_are_those_of_the_levels_and_the_input(name, positions):
    config = preset(name)
    state = derived_state(config, table(config))
    assert state["decoder.anchors"].shape == (1, positions, 4)
    assert state["decoder.valid_mask"].shape == (1, positions, 1)


def test_points_count_the_share_of_each_in_its_level():
    config = preset("dfine-l")
    state = derived_state(config, table(config))
    scales = [tensor for name, tensor in state.items() if name.endswith("num_points_scale")]
    assert len(scales) == 6
    torch.testing.assert_close(scales[0], torch.tensor([1 / 3] * 3 + [1 / 6] * 6 + [1 / 3] * 3))


def test_settings_are_written_under_both_of_their_names():
    config = preset("dfine-x")
    state = derived_state(config, table(config))
    assert state["decoder.reg_scale"].tolist() == state["decoder.decoder.reg_scale"].tolist() == [8.0]
    assert state["decoder.up"].tolist() == state["decoder.decoder.up"].tolist() == [0.5]


def test_settings_are_read_from_the_tensors_that_hold_them():
    config = preset("dfine-n")
    found = with_settings(
        config, {"decoder.reg_scale": torch.tensor([8]), "decoder.up": torch.tensor([0.25])}, table(config)
    )
    assert (found.decoder.scale, found.decoder.up) == (8.0, 0.25)
    assert with_settings(config, {}, table(config)) == config
    assert with_settings(preset("rtdetr-r18"), {}, table(preset("rtdetr-r18"))) == preset("rtdetr-r18")


def test_what_transformers_wants_filled_in_changes_nothing_there():
    """A layer that returns what it gets, and a norm that neither scales nor shifts."""
    config = preset("deimv2-atto")
    state = derived_state(config, TABLES[source_for(config, "hf")])
    weight, bias, scale, shift = (state[f"model.enc_output.{n}.{kind}"] for n in (0, 1) for kind in ("weight", "bias"))
    x = torch.randn(3, config.decoder.channels)
    assert torch.equal(torch.nn.functional.linear(x, weight, bias), x)
    assert torch.equal(x * scale + shift, x)


def test_the_mask_of_a_vit_takes_the_bias_from_the_keys():
    config = preset("deimv2-l")
    state = derived_state(config, table(config))
    masks = [tensor.view(3, -1) for name, tensor in state.items() if name.endswith("bias_mask")]
    assert len(masks) == 12
    assert all(mask.unique(dim=1).flatten().tolist() == [1, 0, 1] for mask in masks)
