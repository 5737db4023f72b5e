import pytest
import torch

from detr import weights
from detr.errors import UsageError
from detr.models import build_model, load_model
from detr.training.learning.lora import LoraConfig, LowRank, adapt, merged
from detr.training.learning.optimizer import OptimizerConfig, groups_by_role
from detr.training.recipe import load_recipe
from detr.training.train import train

IMAGES = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)


@pytest.fixture
def network(recipe_with):
    torch.manual_seed(0)
    return build_model(recipe_with().model).eval()


def answers(network):
    with torch.no_grad():
        last = network(IMAGES).layers[-1]
    return last.logits, last.boxes


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def adapted(network, **settings):
    said = []
    frozen = adapt(network, LoraConfig(**settings), said.append)
    return frozen, said


def disturbed(network):
    """As if it had learned."""
    for module in network.modules():
        if isinstance(module, LowRank):
            torch.nn.init.normal_(module.up, std=0.1)
    return network


def test_the_product_counts_alpha_over_rank_times():
    weight = torch.arange(6.0).view(2, 3)
    low = LowRank(weight, rank=2, alpha=6.0)
    torch.testing.assert_close(low(weight), weight)  # as `up` starts at zero
    torch.nn.init.ones_(low.up)
    torch.nn.init.constant_(low.down, 0.5)
    torch.testing.assert_close(low(weight), weight + 3 * (2 * 0.5))


def test_adapters_start_as_wide_as_a_linear_layer_of_their_inputs():
    """PyTorch's own start of a linear layer: even between -1 / sqrt(inputs) and that."""
    down = LowRank(torch.zeros(3, 400), rank=8, alpha=16.0).down.abs().max().item()
    assert 0.99 / 20 < down <= 1 / 20


def test_before_the_first_step_nothing_is_different(network):
    before = answers(network)
    adapted(network)
    assert same(before, answers(network))


def test_what_is_learned_acts_in_attention_too(network):
    """Its matrix is read in parts, without a call of the linear layer."""
    before = answers(network)
    adapted(network, parts=("encoder",))
    attention = [module for name, module in network.named_modules() if name.endswith("self_attention.project_in")]
    torch.nn.init.normal_(attention[0].parametrizations.weight[0].up, std=0.5)
    assert not same(before, answers(network))


def test_a_merged_network_answers_the_same_by_plain_weights(network):
    names = list(network.state_dict())
    adapted(network)
    plain = merged(disturbed(network))
    assert same(answers(network), answers(plain))
    assert list(plain.state_dict()) == names
    assert any(isinstance(module, LowRank) for module in network.modules())  # it goes on learning


def test_a_network_without_adapters_is_its_own_merger(network):
    assert merged(network) is network


def test_heads_and_adapters_learn_and_nothing_else(network):
    heads = {parameter for head in network.heads() for parameter in head.parameters()}
    frozen, said = adapted(network, rank=2)
    learning = {parameter for parameter in network.parameters() if parameter.requires_grad}
    low = {each for module in network.modules() if isinstance(module, LowRank) for each in module.parameters()}
    assert learning == heads | low and not heads & low
    assert not {module for head in network.heads() for module in head.modules()} & set(frozen)
    count = sum(parameter.numel() for parameter in learning)
    assert said[0].startswith("LoRA of rank 2 in ") and f"{count:,} of " in said[0]


def test_adapters_learn_at_the_rate_of_the_rest_wherever_they_are(network):
    adapted(network, parts=("decoder",))
    groups = {group.role: group for group in groups_by_role(network, OptimizerConfig(lr=1e-3, backbone_lr=1e-5))}
    assert groups["low rank"].lr == 1e-3
    assert len(groups["low rank"].names) == 2 * sum(isinstance(module, LowRank) for module in network.modules())


def test_a_transformer_as_backbone_has_adapters_in_every_layer():
    network = build_model("deimv2-s")
    adapted(network, parts=("backbone",))
    assert sum(isinstance(module, LowRank) for module in network.backbone.modules()) == 12 * 4


def test_parts_without_linear_layers_are_refused(network):
    with pytest.raises(UsageError, match="no linear layer in backbone"):
        adapted(network, parts=("backbone",))


def test_freezing_goes_without_saying():
    with pytest.raises(UsageError, match=r"leave out train\.freeze"):
        load_recipe("rtdetr-tiny", ["train.lora={}", "train.freeze=backbone"])


def test_a_run_leaves_plain_weights_that_answer_as_evaluated(recipe_with, small_sets, tmp_path, plain):
    recipe = recipe_with(epochs=1, lora={"rank": 2})
    summary = train(recipe, **small_sets, out=tmp_path, device="cpu", workers=0, say=lambda line: None)
    best = load_model(str(tmp_path / "best.safetensors"))
    assert not any(isinstance(module, LowRank) for module in best.modules())
    state = weights.read(tmp_path / "resume.safetensors").state
    name = "decoder.layers.0.self_attention.project_in"
    base, low = state[f"average.{name}.parametrizations.weight.original"], f"average.{name}.parametrizations.weight.0"
    assert state[f"{low}.up"].abs().sum() > 0
    merged_weight = base + 8.0 * (state[f"{low}.up"] @ state[f"{low}.down"])
    assert torch.equal(best.state_dict()[f"{name}.weight"], merged_weight)
    assert summary.steps == 3
