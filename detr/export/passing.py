"""One picture through the network as PyTorch has it and through an exported file, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from detr.bands import Bands
from detr.export.about import About
from detr.export.feeding import Feeds, fed
from detr.export.file_runner import FileRunner
from detr.export.stages import POSITIONS, borders
from detr.image import normalise, resized
from detr.models import Network
from detr.models.postprocess import best, select
from detr.models.proposals import ProposalSelection
from detr.models.queries import QuerySelection
from detr.records import Detections, Output, Predictions

MOST = 300  # detections of a picture that are looked at
RANKING = "ranking"


@dataclass(frozen=True, eq=False)
class Passed:
    """What came of a picture."""

    found: Detections
    between: dict[str, Tensor]  # what the stages handed on, by the names of `detr.export.stages`
    ranking: Tensor | None = None  # [1, S] what the selection went by


def by_file(runner: FileRunner, picture: Bands, *, watched: bool = False) -> Passed:
    """The picture as the file says it is to be prepared. What is between the stages only where it is `watched`."""
    about, (height, width) = runner.about, picture.shape[:2]
    between = {} if about.form.preprocessing else _prepared(picture, about.config.input)
    feeds = _feeds(about, picture, between)
    if not about.form.preprocessing and (square := _square(about)) is not None:
        between, _ = _on_square(between, square)
    answers = runner.answers(feeds)
    if watched:
        between |= runner.borders(feeds)
    if about.form.max_det is not None:
        found = Detections(answers["boxes"][0], answers["scores"][0], answers["labels"][0])
        return Passed(found, between)
    between |= {"decoder.logits": answers["logits"], "decoder.boxes": answers["boxes"]}
    last = Predictions(answers["logits"], answers["boxes"])
    (found,) = select(Output((last,)), [(height, width)], scoring=about.scoring, max_det=MOST)
    return Passed(found, between)


def _feeds(about: About, picture: Bands, between: dict[str, Tensor]) -> Feeds:
    if about.form.preprocessing:
        return {"images": picture[None]}
    feeds = fed(about, between["normalise.image"], None)
    if "sizes" in feeds:
        feeds["sizes"] = torch.tensor([picture.shape[:2]]).numpy()
    return feeds


@torch.no_grad()
def by_network(network: Network, picture: Bands, about: About, *, like: dict[str, Tensor] | None = None) -> Passed:
    """The same by the network itself, of a size that the file takes.

    `like`, what the stages of the file handed on: the network starts from the file's own image and its own choice of
    queries, so that what differs is what it makes of them.
    """
    between = _prepared(picture, network.config.input)
    padding = None
    if (square := _square(about)) is not None:
        between, padding = _on_square(between, square)
    image, positions = between["normalise.image"], None
    if like is not None:
        positions = like.get(POSITIONS)
        theirs = like["normalise.image"]
        image = theirs if theirs.shape == image.shape else image
    with _choosing(network, positions) as seen, borders(network) as handed_on:
        last = network(image, padding).layers[-1]
    between |= handed_on | {"decoder.logits": last.logits, "decoder.boxes": last.boxes}
    found = found_in(between, picture, about, network)
    return Passed(found, between, seen.get(RANKING))


def found_in(between: dict[str, Tensor], picture: Bands, about: About, network: Network) -> Detections:
    """What the network's postprocessing makes of an answer."""
    last = Predictions(between["decoder.logits"], between["decoder.boxes"])
    sizes = torch.tensor([picture.shape[:2]])
    ranked = best(last, sizes, scoring=network.scoring, max_det=about.form.max_det or MOST)
    boxes, scores, labels = (each[0] for each in ranked)
    said = scores >= 0
    return Detections(boxes[said], scores[said], labels[said])


def _prepared(picture: Bands, input: Any) -> dict[str, Tensor]:
    there = resized(picture, input)[None]
    return {
        "decode.image": torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float(),
        "resize.image": there.float(),
        "normalise.image": normalise(there, input),
    }


def _square(about: About) -> tuple[int, int] | None:
    """What images are padded to, if they are."""
    return about.size if about.takes_padding and not about.form.open_size else None


def _on_square(between: dict[str, Tensor], size: tuple[int, int]) -> tuple[dict[str, Tensor], Tensor]:
    h, w = between["resize.image"].shape[-2:]
    beyond = (0, size[1] - w, 0, size[0] - h)
    padding = F.pad(torch.zeros(1, h, w, dtype=torch.bool), beyond, value=True)
    framed = {name: F.pad(between[name], beyond) for name in ("resize.image", "normalise.image")}
    return between | framed, padding


@contextmanager
def _choosing(network: nn.Module, positions: Tensor | None) -> Iterator[dict[str, Tensor]]:
    """Inside, the selection takes these positions, where some are given; leaves there what it ranks them by."""
    mode = _Choice(positions)
    handles: list[Any] = []
    for module in network.modules():
        if isinstance(module, (QuerySelection, ProposalSelection)):
            handles.append(module.register_forward_pre_hook(lambda *_: mode.__enter__() and None))
            handles.append(module.register_forward_hook(lambda *_: mode.__exit__(None, None, None), always_call=True))
    try:
        yield mode.seen
    finally:
        for handle in handles:
            handle.remove()


class _Choice(TorchFunctionMode):
    def __init__(self, positions: Tensor | None) -> None:
        super().__init__()
        self.positions = positions
        self.seen: dict[str, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.Tensor.topk:
            return func(*args, **(kwargs or {}))
        ranking = self.seen[RANKING] = args[0]
        if self.positions is None:
            return func(*args, **(kwargs or {}))
        return torch.return_types.topk((ranking.gather(1, self.positions), self.positions))
