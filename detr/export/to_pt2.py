"""A network -> a file of `torch.export`, which PyTorch runs without any of our code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as trees

from detr.export.about import KEY, About
from detr.export.program import Recorded, quiet, recorded
from detr.files import written_aside
from detr.models import Network

BORDERS = "borders"
"""Beside what the file says about itself: which node of the graph gives what goes from one stage to the next."""


def write_pt2(network: Network, path: Path, about: About) -> None:
    """What `about.form` says; read it by `torch.export.load(path).module()`, which takes tensors by name."""
    graph = recorded(network, about)
    nodes = _narrowed(graph)
    extra = {KEY: about.to_json(), BORDERS: json.dumps(nodes)}
    with written_aside(path) as aside, quiet():
        aside = aside.rename(aside.with_suffix(".pt2"))
        torch.export.save(graph.program, aside, extra_files=extra)


def _narrowed(graph: Recorded) -> dict[str, str]:
    """Leave only the answers of what the program gives; the names of the nodes that gave the rest."""
    program, count = graph.program, len(graph.answers)
    output: Any = next(node for node in program.graph.nodes if node.op == "output")
    given = output.args[0]
    output.args = (tuple(given[:count]),)
    signature = program.graph_signature
    signature.output_specs = signature.output_specs[:count]
    program.module_call_graph[0].signature.outputs = program.module_call_graph[0].signature.outputs[:count]
    program.module_call_graph[0].signature.out_spec = trees.tree_structure(dict.fromkeys(graph.answers, 0))
    program.graph_module.recompile()
    return {name: node.name for name, node in zip(graph.names[count:], given[count:], strict=True)}
