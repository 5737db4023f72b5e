"""A network -> an ONNX file with what it is in its metadata."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detr.errors import UsageError
from detr.export.about import KEY, About, about_of
from detr.export.packages import package
from detr.files import written_aside
from detr.models import Network
from detr.ops import kernels

OPSET = 20
"""GridSample under its present names, as ONNX Runtime and OpenVINO know it."""
OUTPUTS = ("logits", "boxes")

_SCOPES = "pkg.torch.onnx.name_scopes"
_NEARLY_NOTHING = 1e-30


def write_onnx(network: Network, path: Path) -> None:
    """`images` [B, 3, h, w] float32, for models that keep the aspect also `padding` [B, h, w] bool, to `logits`
    [B, Q, slots] and `boxes` [B, Q, 4] cxcywh in [0, 1]: of any number of images, of the size that `About` says.

    The network as it is: with the layers, queries and input of its settings. UsageError where `onnx` is missing,
    InputError where the file can't be written.
    """
    package("onnx")
    program = exported(network)
    model = program.model
    _name_nodes_by_module(model)
    _keep_pads_from_pools(model)
    model.metadata_props[KEY] = about_of(network).to_json()
    with written_aside(path) as aside:
        program.save(str(aside), external_data=False)


def add_about(model: Any, about: About) -> None:
    """To a model as `onnx` reads it, in place of what it said about itself before."""
    package("onnx").helper.set_model_props(model, {KEY: about.to_json()})


def exported(network: Network) -> Any:
    """The network as PyTorch's exporter gives it."""
    about = about_of(network)
    height, width = about.size
    images = torch.zeros(2, network.config.input.channels, height, width)
    inputs: dict[str, Tensor] = {"images": images}
    if about.takes_padding:
        padding = torch.zeros(2, height, width, dtype=torch.bool)
        padding[:, height // 2 :] = True
        inputs["padding"] = padding
    sizes = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    with torch.no_grad(), kernels("grid_sample"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own use of what PyTorch is about to drop
        program = torch.onnx.export(
            _Answering(network.cpu().deploy()).eval(),
            (),
            kwargs=inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            dynamic_shapes=sizes,
            verbose=False,
        )
    if program is None:
        raise UsageError("this PyTorch can't export; expected 2.10 or newer")
    return program


class _Answering(nn.Module):
    """What the last layer says, as two tensors."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        last = self.network(images, padding).layers[-1]
        return last.logits, last.boxes


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


def _keep_pads_from_pools(model: Any) -> None:
    """ONNX Runtime (1.31) joins padding by zeros with the max pooling after it, which pads by minus infinity.

    It leaves alone what is padded by anything but zero.
    """
    import onnx_ir

    for node in model.graph:
        pools = any(user.op_type == "MaxPool" for value in node.outputs for user, _ in value.uses())
        if node.op_type == "Pad" and pools:
            name = f"{node.name}.value"
            value: Any = onnx_ir.tensor(_NEARLY_NOTHING, dtype=onnx_ir.DataType.FLOAT, name=name)
            kind = onnx_ir.TensorType(value.dtype)
            constant = onnx_ir.Value(name=name, type=kind, shape=value.shape, const_value=value)
            model.graph.initializers[name] = constant
            node.resize_inputs(max(3, len(node.inputs)))
            node.replace_input_with(2, constant)
