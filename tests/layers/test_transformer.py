import pytest
import torch
from torch import nn

from detr.layers.attention import may_look
from detr.layers.transformer import MLP, DecoderLayer, EncoderLayer, SwiGLU


def copy_attention(ours, theirs):
    ours.project_in.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
    ours.project_out.load_state_dict(theirs.out_proj.state_dict())


def copy_rest(ours, theirs):
    names = [name for name in ours.state_dict() if not name.split(".")[0].endswith("attention")]
    given = {name: theirs.state_dict()[name.removeprefix("feed_forward.")] for name in names}
    ours.load_state_dict(given, strict=False)


def shaken(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer.double()


def test_without_positions_the_encoder_layer_is_pytorchs():
    theirs = shaken(nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True))
    ours = EncoderLayer(16, 4, 24).double()
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_rest(ours, theirs)
    x = torch.randn(2, 5, 16).double()
    torch.testing.assert_close(ours(x, torch.zeros_like(x)), theirs(x))


def test_without_positions_the_decoder_layer_is_pytorchs():
    theirs = shaken(nn.TransformerDecoderLayer(16, 4, 24, dropout=0.0, batch_first=True))
    ours = DecoderLayer(16, 4, 24).double()
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_attention(ours.cross_attention, theirs.multihead_attn)
    copy_rest(ours, theirs)
    x, memory = torch.randn(2, 3, 16).double(), torch.randn(2, 7, 16).double()
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    expected = theirs(x, memory, memory_key_padding_mask=padding)
    torch.testing.assert_close(ours(x, torch.zeros_like(x), memory, memory, may_look(padding)), expected)


def test_positions_of_the_queries_are_seen_by_both_attentions_and_never_added():
    layer = shaken(DecoderLayer(8, 2, 8))
    x, position, memory = torch.randn(3, 1, 4, 8).double()
    seen = []
    layer.self_attention.forward = lambda *given: seen.append(given) or torch.zeros_like(x)
    layer.cross_attention.forward = lambda *given: seen.append(given) or torch.zeros_like(x)
    layer.norm1 = layer.norm2 = nn.Identity()
    given = layer(x, position, memory + 1, memory)
    assert torch.equal(seen[0][0], x) and torch.equal(seen[0][1], position)
    assert torch.equal(seen[1][0], x + position)
    assert torch.equal(seen[1][1], memory + 1) and torch.equal(seen[1][2], memory)
    torch.testing.assert_close(given, layer.norm3(x + layer.feed_forward(x)))


@pytest.mark.parametrize("kind", [EncoderLayer, DecoderLayer])
def test_with_everything_dropped_only_the_norms_remain(kind):
    layer = kind(8, 2, 8, dropout=1.0)
    x, position = torch.randn(2, 1, 4, 8)
    memory = () if kind is EncoderLayer else (x, x)
    torch.testing.assert_close(layer(x, position, *memory), nn.functional.layer_norm(x, (8,)), rtol=0, atol=1e-4)
    assert not torch.allclose(layer.eval()(x, position, *memory), nn.functional.layer_norm(x, (8,)), atol=1e-2)


def test_the_gate_of_a_swiglu_lets_pass_what_the_other_half_says():
    layer = SwiGLU(2, 1)
    with torch.no_grad():
        layer.project_in.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        layer.project_out.weight.copy_(torch.tensor([[1.0], [2.0]]))
    x = torch.tensor([3.0, 5.0])
    gated = 3 * torch.tensor(3.0).sigmoid() * 5
    torch.testing.assert_close(layer(x), torch.stack([gated, 2 * gated]))


def test_an_mlp_is_its_layers_with_an_activation_between_them():
    mlp = MLP(2, 4, 3, 3, nn.SiLU())
    first, second, third = mlp.layers
    x = torch.randn(5, 2)
    torch.testing.assert_close(mlp(x), nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), third)(x))
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(4, 2), (4, 4), (3, 4)]
    assert isinstance(MLP(2, 4, 3, 1).activation, nn.ReLU) and len(MLP(2, 4, 3, 1).layers) == 1
