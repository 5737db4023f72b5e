import math

import pytest
import torch

from detr.models.deformable_encoder import DeformableEncoder, DeformableEncoderConfig

CONFIG = DeformableEncoderConfig(channels=32, levels=4, heads=4, hidden=16, num_layers=2, points=2, dropout=0.0)
FEATURES = [torch.randn(2, 8, 10, 13), torch.randn(2, 16, 5, 7)]


@pytest.fixture
def encoder():
    return DeformableEncoder(CONFIG, (8, 16))


def test_extra_levels_are_made_of_the_last_map_and_then_of_each_other(encoder):
    memory = encoder(FEATURES)
    assert memory.shapes == ((10, 13), (5, 7), (3, 4), (2, 2)) and memory.padding is None
    assert memory.tokens.shape == (2, 130 + 35 + 12 + 4, 32)
    assert [projection[0].in_channels for projection in encoder.projections] == [8, 16, 16, 32]
    assert [projection[0].stride for projection in encoder.projections] == [(1, 1), (1, 1), (2, 2), (2, 2)]


def test_levels_have_their_own_part_of_the_padding(encoder):
    padding = torch.zeros(2, 80, 104, dtype=torch.bool)
    padding[1, 40:] = True
    memory = encoder(FEATURES, padding)
    levels = zip(memory.padding.split((130, 35, 12, 4), 1), memory.shapes, strict=True)
    rows = [level.unflatten(1, shape)[1, :, 0] for level, shape in levels]
    assert [level.tolist() for level in rows] == [
        [False] * 5 + [True] * 5,
        [False] * 3 + [True] * 2,
        [False, False, True],
        [False, True],
    ]
    assert not memory.padding[0].any()


def test_a_token_depends_on_where_it_is_and_on_which_level(encoder):
    position = encoder._position([torch.zeros(1, 32, *shape) for shape in ((10, 13), (5, 7), (3, 4), (2, 2))], None)
    assert position.shape == (1, 181, 32)
    levels = zip(position[0].split((130, 35, 12, 4)), encoder.level_embedding, strict=True)
    where = [level - embedding for level, embedding in levels]
    assert [len(level.unique(dim=0)) for level in where] == [130, 35, 12, 4]
    for token, share in ((0, 0.5 / 10), (129, 9.5 / 10)):  # the middle of the first row and of the last
        assert where[0][token, 0].item() == pytest.approx(math.sin(share * 2 * math.pi), abs=1e-5)


def test_what_is_padded_is_not_read(encoder):
    padding = torch.zeros(2, 80, 104, dtype=torch.bool)
    padding[:, 40:] = True
    seen = []
    encoder.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given))
    before = encoder(FEATURES, padding)
    tokens, position, places, shapes, outside = seen[0]
    changed = tokens.masked_fill(outside[..., None], 1e3)
    for layer in encoder.layers:
        changed = layer(changed, position, places, shapes, outside)
    there = ~outside
    torch.testing.assert_close(changed[there], before.tokens[there])


def test_channels_have_to_be_shared_among_the_heads():
    with pytest.raises(ValueError, match="channels 32 can't be shared among 5 heads"):
        DeformableEncoderConfig(channels=32, heads=5)
