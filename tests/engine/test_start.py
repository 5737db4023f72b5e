import pytest
import torch

from detr.classes import COCO, Classes
from detr.engine.checkpoint import save_weights
from detr.engine.start import class_entries, start_from
from detr.errors import InputError
from detr.models import build_model

OURS = Classes.from_names(["tram", "Person", "bus"])


@pytest.fixture
def source(recipe_with, tmp_path):
    recipe = recipe_with()
    network = build_model(recipe.model, classes=COCO)
    save_weights(tmp_path / "source.safetensors", network, recipe, epoch=1, metrics={})
    return network, tmp_path / "source.safetensors"


def test_classes_are_matched_by_name_and_others_stay_fresh(recipe_with, source):
    theirs, path = source
    network = build_model(recipe_with().model, classes=OURS)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    start = start_from(network, str(path))
    assert start.text == "2 of 3 classes start from COCO: Person, bus; 1 start fresh"
    ours, known = network.state_dict(), theirs.state_dict()
    person, bus = COCO.names.index("person"), COCO.names.index("bus")
    by_class = set(class_entries(network))
    assert len(by_class) == 7  # weight and bias of the encoder's and two decoder heads, and the denoising's embedding
    for name, value in ours.items():
        if name in by_class:
            assert torch.equal(value[[1, 2]], known[name][[person, bus]])
            assert torch.equal(value[0], fresh[name][0])
        else:
            assert torch.equal(value, known[name])


def test_the_same_classes_are_taken_whole(recipe_with, source):
    theirs, path = source
    network = build_model(recipe_with().model, classes=COCO)
    start_from(network, str(path))
    known = theirs.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in network.state_dict().items())


def test_as_many_classes_of_other_names_start_fresh(recipe_with, source):
    theirs, path = source
    network = build_model(recipe_with().model, classes=Classes.from_names(f"thing {i}" for i in range(80)))
    start = start_from(network, str(path))
    assert "all class heads start fresh" in start.text
    assert not torch.equal(network.queries.score_head.weight, theirs.queries.score_head.weight)


def test_weights_of_another_model_are_refused_with_the_first_differences(recipe_with, source):
    model = recipe_with().model
    other = model.model_copy(update={"encoder": model.encoder.model_copy(update={"hidden": 24})})
    with pytest.raises(InputError, match=r"of another model: encoder\.attention\.0"):
        start_from(build_model(other, classes=OURS), str(source[1]))


def test_a_file_that_says_no_model_is_taken_for_the_recipes(recipe_with, source, tmp_path):
    theirs, _ = source
    torch.save({"model": theirs.state_dict()}, tmp_path / "plain.pth")
    network = build_model(recipe_with().model, classes=COCO)
    start_from(network, str(tmp_path / "plain.pth"))
    assert torch.equal(network.queries.embed.weight, theirs.queries.embed.weight)
