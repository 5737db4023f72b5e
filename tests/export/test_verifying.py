"""A file that is right passes; one that is broken on purpose at a stage has that stage named."""

from dataclasses import replace

import numpy as np
import pytest

from detr.data.shapes import draw_shapes
from detr.export import Form, open_runner, verify
from detr.export.about import about_of
from detr.export.agreement import TOLERANCES
from detr.export.divergence import trace
from detr.export.stages import STAGES
from detr.export.to_pt2 import write_pt2
from detr.models import load_model

onnx = pytest.importorskip("onnx")


def pictures():
    return [draw_shapes(0, "val", index, size=200 + 60 * index)[0] for index in range(2)]


def tiny():
    return load_model("rtdetr-tiny")


def test_a_file_that_is_right_passes(whole):
    verdict = verify(tiny(), open_runner(whole), pictures())
    assert verdict.ok
    assert (verdict.pictures, verdict.sure) == (2, 0.3)
    assert verdict.agreement.counted > 20
    assert "detections above 0.3 in 2 pictures have a counterpart with an IoU of 0.99" in verdict.text
    steps = trace(tiny(), open_runner(whole), pictures()[0], TOLERANCES["float32"]).stages
    assert [stage.name for stage in steps] == list(STAGES)
    assert not any(stage.diverges for stage in steps)


BREAKS = {  # the tensor that a stage hands on, what is done to it, and by how much
    "decode": ("decode.image", "Gather", np.array([2, 1, 0])),  # blue in place of red
    "resize": ("resize.image", "Mul", np.array(0.9, np.float32)),
    "normalise": ("normalise.image", "Add", np.array(0.2, np.float32)),
    "backbone": ("backbone.1", "Mul", np.array(3, np.float32)),
    "encoder": ("encoder.0", "Mul", np.array(-1, np.float32)),
    "selection": ("selection.positions", "Div", np.array(2)),
    "decoder": ("decoder.boxes", "Mul", np.array(0.8, np.float32)),
    "postprocessing": ("boxes", "Mul", np.array(1.1, np.float32)),
}


def broken(path, out, name, operation, value):
    """The file with one more operation after what makes the tensor `name`."""
    model = onnx.load(path)
    nodes = model.graph.node
    place = next(index for index, node in enumerate(nodes) if name in node.output)
    outputs = nodes[place].output
    outputs[list(outputs).index(name)] = "before"
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, "wrong"))
    attributes = {"axis": 1} if operation == "Gather" else {}
    nodes.insert(place + 1, onnx.helper.make_node(operation, ["before", "wrong"], [name], **attributes))
    del model.metadata_props[1:]  # the seal
    onnx.save(model, out)
    return out


@pytest.mark.parametrize("stage", STAGES)
def test_the_stage_that_was_broken_is_named(whole, tmp_path, stage):
    runner = open_runner(broken(whole, tmp_path / "broken.onnx", *BREAKS[stage]))
    verdict = verify(tiny(), runner, pictures())
    assert not verdict.ok
    assert verdict.diverging == stage
    assert f"the first stage to diverge is {stage} (off by" in verdict.text


def test_other_colours_in_what_a_file_says_of_itself_are_named(tmp_path):
    """A file without preprocessing is fed as it says."""
    network = tiny()
    said = about_of(network)
    wrong = said.config.input.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)})
    other = replace(said, config=said.config.model_copy(update={"input": wrong}), form=Form(max_det=30))
    write_pt2(network, tmp_path / "tiny.pt2", other)
    runner = open_runner(tmp_path / "tiny.pt2")
    assert verify(network, runner, pictures()).diverging == "normalise"
    runner.about = replace(other, config=said.config)
    assert verify(network, runner, pictures()).ok


def test_a_choice_among_queries_that_tie_is_not_an_error(whole, tmp_path):
    network = tiny()
    network.queries.score_head.weight.data.zero_()  # every position ranks alike
    model = onnx.load(whole)
    names = {name for node in model.graph.node if node.name.startswith("queries.score_head") for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name in names and len(tensor.dims) == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    onnx.save(model, tmp_path / "ties.onnx")
    shifted = broken(tmp_path / "ties.onnx", tmp_path / "shifted.onnx", "selection.positions", "Add", np.array(7))
    verdict = verify(network, open_runner(shifted), pictures())
    assert verdict.ok
    assert verdict.followed == 2
    assert "its choice of queries that tie" in verdict.text
