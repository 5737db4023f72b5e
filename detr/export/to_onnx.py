"""A network -> an ONNX file with what it is in its metadata."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detr.errors import UsageError
from detr.export.about import KEY, About
from detr.export.packages import package
from detr.export.program import quiet, recorded
from detr.files import written_aside
from detr.models import Network

OPSET = 18
"""What PyTorch's exporter writes by itself. TensorRT (10.0 to 11.1 at least) doesn't know the names that GridSample's
modes have from opset 20 on, and takes the nearest pixel without a word."""
IR_VERSION = 10
"""What ONNX Runtime takes from 1.18 on."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_NEARLY_NOTHING = {False: 1e-30, True: 6e-8}  # above 0 in float32, and in float16


def write_onnx(network: Network, path: Path, about: About) -> None:
    """What `about.form` says, from inputs to answers, of the network as it is.

    The tensors between its stages have the names that `detr.export.stages` gives them, and nodes those of their
    modules. UsageError where `onnx` is missing, InputError where the file can't be written.
    """
    package("onnx")
    program = exported(network, about)
    model = program.model
    _name_nodes_by_module(model)
    if about.form.preprocessing:
        _convert_bytes_first(model.graph)
    _keep_pads_from_pools(model, half=about.form.half)
    model.metadata_props[KEY] = about.to_json()
    with written_aside(path) as aside:
        program.save(str(aside), external_data=False)


def add_about(model: Any, about: About) -> None:
    """To a model as `onnx` reads it, in place of what it said about itself before."""
    package("onnx").helper.set_model_props(model, {KEY: about.to_json()})


def exported(network: Network, about: About) -> Any:
    """The network as PyTorch's exporter gives it."""
    graph = recorded(network, about)
    with torch.no_grad(), quiet(), _no_search_for_splits():
        program = torch.onnx.export(
            graph.program,
            (),
            kwargs=graph.inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.names),
            dynamic_shapes=graph.open_sizes,
            verbose=False,
        )
    if program is None:
        raise UsageError("this PyTorch can't export; expected 2.10 or newer")
    outputs = program.model.graph.outputs
    del outputs[len(graph.answers) :]
    program.model.ir_version = IR_VERSION
    return program


@contextmanager
def _no_search_for_splits() -> Iterator[None]:
    """Of the exporter's rules one joins two slices to a split, and lists all nodes anew for each node it looks at.

    It finds nothing in our networks, and takes about half of the time for a DINO or Deformable DETR.
    """
    from onnxscript.rewriter.rules.common import slice_split_rule

    slice_split_rule.match = lambda *_, **__: None
    try:
        yield
    finally:
        del slice_split_rule.match  # its class's is found again


def _name_nodes_by_module(model: Any) -> None:
    """`decoder.layers.0.attention.MatMul_7` in place of a number, and nothing of the machine it was made on."""
    for number, node in enumerate(model.graph):
        scopes = [scope for scope in ast.literal_eval(node.metadata_props.get(_SCOPES, "[]")) if scope]
        module = scopes[-2].removeprefix("network").removeprefix(".") if len(scopes) > 1 else ""
        node.name = f"{module or 'network'}.{node.op_type}_{number}"
        node.metadata_props.clear()
    for value in [*model.graph.initializers.values(), *(each for node in model.graph for each in node.outputs)]:
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _convert_bytes_first(graph: Any) -> None:
    """TensorRT does nothing else with bytes, not even ask how many there are."""
    (pictures,) = graph.inputs
    uses = list(pictures.uses())
    conversion = next(node for node, _ in uses if node.op_type == "Cast")
    for node, place in uses:
        if node is not conversion:
            node.replace_input_with(place, conversion.outputs[0])
    graph.remove(conversion)
    graph.insert_before(graph[0], conversion)


def _keep_pads_from_pools(model: Any, *, half: bool) -> None:
    """ONNX Runtime (1.31) joins padding by zeros with the max pooling after it, which pads by minus infinity.

    It leaves alone what is padded by anything but zero.
    """
    import onnx_ir

    for node in model.graph:
        pools = any(user.op_type == "MaxPool" for value in node.outputs for user, _ in value.uses())
        if node.op_type == "Pad" and pools:
            name = f"{node.name}.value"
            number = onnx_ir.DataType.FLOAT16 if half else onnx_ir.DataType.FLOAT
            value: Any = onnx_ir.tensor(_NEARLY_NOTHING[half], dtype=number, name=name)
            kind = onnx_ir.TensorType(value.dtype)
            constant = onnx_ir.Value(name=name, type=kind, shape=value.shape, const_value=value)
            model.graph.initializers[name] = constant
            node.resize_inputs(max(3, len(node.inputs)))
            node.replace_input_with(2, constant)
