"""Where a training starts: weights of the same classes as they are, or of others, class by class by name.

Weights of nothing but a backbone start the backbone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detr import convert, weights
from detr.backbones import BackboneConfig
from detr.backbones.timm import TimmBackbone
from detr.classes import COCO, Classes
from detr.errors import counted
from detr.models.loading import network_of, said_by_release
from detr.models.network import DetectionNetwork
from detr.training.saved.checkpoint import load_same

_COUNTER = "num_batches_tracked"
_SAME_SIZE = {"L": "B4", "X": "B5"}  # of HGNetv2: two names of one network


@dataclass(frozen=True)
class Start:
    """What came from where; `text` says it in one line."""

    source: str
    num_classes: int
    matched: tuple[str, ...]  # names of the classes that start from the source's
    theirs: Classes

    @property
    def text(self) -> str:
        from_where = "COCO" if self.theirs.names == COCO.names else f"those of {self.source}"
        if not self.matched:
            classes = counted(self.num_classes, "class", "classes")
            return f"none of {classes} is among {from_where}: all class heads start fresh"
        fresh = self.num_classes - len(self.matched)
        some = ", ".join(self.matched[:8]) + (", ..." if len(self.matched) > 8 else "")
        start = counted(self.num_classes, "class starts", "classes start")
        rest = f"; {fresh} start fresh" if fresh else ""
        return f"{len(self.matched)} of {start} from {from_where}: {some}{rest}"


@dataclass(frozen=True)
class BackboneStart:
    """Only the backbone came from somewhere; `text` says it in one line."""

    source: str

    @property
    def text(self) -> str:
        return f"the backbone starts from {self.source}; everything else starts fresh"


def start_from(network: DetectionNetwork, name_or_path: str) -> Start | BackboneStart:
    """Load weights into a freshly built network, in place; a file that doesn't say its model is taken for this one.

    Everything but the rows of the class heads must fit. Rows of classes that the source knows by name come from there;
    the others stay as they were built. From a file of a backbone, exactly the backbone is loaded. InputError names the
    first tensors that don't fit.
    """
    checkpoint = weights.read(weights.resolve(name_or_path))
    if convert.identify(checkpoint.state) in convert.BACKBONES:
        return _start_backbone(network, checkpoint, str(name_or_path))
    source = network_of(checkpoint, said_by_release(name_or_path, checkpoint), otherwise=network.config)
    matches = network.classes.matches_by_name(source.classes)
    state = source.state_dict()
    if (network.classes.names, network.slots) != (source.classes.names, source.slots):
        rows = _rows(matches, network, source)
        by_object = set(_entries(network, network.by_object()))
        ours = network.state_dict()
        for name in set(class_entries(network)) & state.keys():
            state[name] = _taken(ours[name], state[name], rows | ({0: 0} if name in by_object else {}), network, source)
    load_same(network, _for_channels(network, state), str(name_or_path))
    return Start(
        str(name_or_path), len(network.classes), tuple(network.classes.names[i] for i in matches), source.classes
    )


def start_fresh(network: DetectionNetwork) -> BackboneStart | None:
    """Where a training without weights starts: timm's own weights of a backbone, if the settings say so, or nowhere."""
    backbone = network.backbone
    if isinstance(backbone, TimmBackbone) and backbone.config.pretrained:
        return BackboneStart(backbone.load_pretrained())
    return None


def warning_of_fresh_norms(backbone: BackboneConfig) -> str:
    """What to say of a training without weights whose backbone's norms are frozen."""
    release = backbone_release(backbone)
    advice = f"; try --weights {release}" if release else ""
    return f"warning: this recipe freezes the backbone's norms, which without weights are no more than random{advice}"


def backbone_release(backbone: BackboneConfig) -> str | None:
    """The release that holds weights of just such a backbone, if there is one."""
    if backbone.kind == "timm" or (backbone.kind == "resnet" and backbone.width != 64):
        return None
    if backbone.kind == "resnet":
        name = f"resnet{backbone.depth}{'-vd' if backbone.variant == 'd' else ''}"
    else:
        name = f"hgnetv2-{_SAME_SIZE.get(backbone.size, backbone.size).lower()}"
    return name if name in weights.RELEASES else None


def class_entries(network: DetectionNetwork) -> Iterator[str]:
    """Names of the state's entries that have a row for each class."""
    return _entries(network, network.by_class())


def _entries(network: nn.Module, modules: list[nn.Module]) -> Iterator[str]:
    wanted = set(modules)
    for prefix, module in network.named_modules():
        if module in wanted:
            yield from (name for name, _ in module.named_parameters(prefix, recurse=False))


def _start_backbone(network: DetectionNetwork, checkpoint: weights.Checkpoint, source: str) -> BackboneStart:
    """How many batches a norm has seen may be missing there, or too many here: nothing depends on it."""
    ours = network.state_dict()
    names = convert.identify(checkpoint.state)
    assert names is not None
    theirs = convert.to_ours(checkpoint.state, names)
    kept = {name: value for name, value in ours.items() if not name.startswith("backbone.") or name.endswith(_COUNTER)}
    taken = {name: value for name, value in theirs.items() if not name.endswith(_COUNTER)}
    load_same(network, _for_channels(network, kept | taken), source)
    return BackboneStart(source)


def _for_channels(network: DetectionNetwork, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the backbone's first convolutions for images of as many channels as the network takes.

    Of a network for RGB, one for grey answers to grey pictures as that does; one for more channels answers as that does
    to the first three, and doesn't look at the others yet. One for two channels looks at both alike.
    """
    channels, result = network.config.input.channels, dict(state)
    for name, ours in network.state_dict().items():
        theirs = state.get(name)
        if channels == 3 or theirs is None or ours.ndim != 4 or not name.startswith("backbone."):
            continue
        if (len(ours), channels, *ours.shape[2:]) == ours.shape and (len(ours), 3, *ours.shape[2:]) == theirs.shape:
            zeros = theirs.new_zeros(len(theirs), max(0, channels - 3), *theirs.shape[2:])
            alike = theirs.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
            result[name] = torch.cat([theirs, zeros], 1) if channels > 3 else alike
    return result


def _rows(matches: dict[int, int], network: DetectionNetwork, source: DetectionNetwork) -> dict[int, int]:
    """Our slot -> theirs: those of matched classes, and those that have no class, here or there."""
    idle = set(range(min(network.num_slots, source.num_slots))).difference(network.slots, source.slots)
    return {slot: slot for slot in idle} | {network.slots[here]: source.slots[there] for here, there in matches.items()}


def _taken(
    ours: Tensor, theirs: Tensor, rows: dict[int, int], network: DetectionNetwork, source: DetectionNetwork
) -> Tensor:
    """Our rows, some of them replaced by theirs. What comes after the slots ("no object", denoising's "none") goes
    along."""
    if ours.shape[1:] != theirs.shape[1:]:
        return theirs  # another model altogether, which `load_same` says better
    after = len(ours) - network.num_slots
    if after == len(theirs) - source.num_slots:
        rows = rows | {network.num_slots + place: source.num_slots + place for place in range(after)}
    result = ours.clone()
    with torch.no_grad():
        result[list(rows)] = theirs[list(rows.values())].to(result.dtype)
    return result
