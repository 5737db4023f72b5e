"""Backbones and attention of timm in training: chosen by words, kept in the checkpoint, frozen whole or not at all."""

import pytest
import torch

from detr.errors import UsageError
from detr.models import build_model, load_model
from detr.training.learning.freeze import freeze
from detr.training.recipe import load_recipe
from detr.training.train import train

WORDS = [
    "model.backbone={kind: timm, name: test_convnext}",
    "model.encoder.channel_attention=se",
    "model.input={height: 64, width: 64}",
    "train={epochs: 1, batch: 2, amp: off}",
]


def test_words_choose_the_backbone_and_the_attention_and_the_checkpoint_keeps_them(small_sets, tmp_path, monkeypatch):
    monkeypatch.setattr("detr.evaluation.plots.available", lambda: False)
    monkeypatch.setattr("detr.training.told.journal._tensorboard", lambda folder: None)
    recipe = load_recipe("rtdetr-tiny", [*WORDS, "train.freeze=backbone"])
    train(recipe, **small_sets, out=tmp_path, device="cpu", workers=0, say=lambda line: None)
    loaded = load_model(str(tmp_path / "last.safetensors"))
    assert loaded.config == recipe.model
    assert loaded.config.backbone.name == "test_convnext"
    with torch.no_grad():
        assert loaded(torch.rand(1, 3, 96, 64)).layers[-1].boxes.isfinite().all()


def test_a_frozen_backbone_does_not_learn_and_everything_else_does():
    network = build_model(load_recipe("rtdetr-tiny", WORDS).model)
    assert freeze(network, "backbone") == [network.backbone]
    learning = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert "backbone" not in learning and {"encoder", "decoder", "queries"} <= learning


@pytest.mark.parametrize("part", ["stem", "stage2"])
def test_a_part_of_it_cannot_be_frozen(part):
    network = build_model(load_recipe("rtdetr-tiny", WORDS).model)
    with pytest.raises(UsageError, match="test_convnext can't be told apart"):
        freeze(network, part)


def test_a_plain_transformer_serves_as_a_pyramid():
    network = build_model(load_recipe("rtdetr-tiny", [*WORDS, "model.backbone={kind: timm, name: test_vit}"]).model)
    output = network.eval()(torch.rand(1, 3, 64, 96)).layers[-1]
    assert output.boxes.shape == (1, 100, 4)


def test_folding_changes_no_answer():
    torch.manual_seed(0)
    network = build_model(load_recipe("rtdetr-tiny", WORDS).model).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        mine, folded = network(images).layers[-1], network.deploy()(images).layers[-1]
    torch.testing.assert_close(folded.logits, mine.logits, rtol=1e-4, atol=1e-4)
