"""A larger network that a training learns from beside its targets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr import weights
from detr.criterion import Criterion
from detr.criterion.teaching import Teaching, TeachingConfig
from detr.data.transforms import AugmentConfig
from detr.errors import InputError, UsageError, counted, listed
from detr.image import as_input
from detr.models import load_model
from detr.models.network import DetectionNetwork
from detr.records import Batch, Output, Predictions
from detr.runtime.arriving import Arriving


class TeacherConfig(TeachingConfig):
    weights: str  # a release or a file


@dataclass(frozen=True, eq=False)
class Answers:
    """What a teacher says of a batch."""

    said: Predictions
    kept: Arriving  # [B, Q] what it is sure of
    num_targets: int  # of the batch


class Teacher:
    """Answers for the same batch as the student sees it, at the student's size; it never learns.

    UsageError where the two don't fit each other; InputError where they know no class in common.
    """

    def __init__(
        self, config: TeacherConfig, student: DetectionNetwork, criterion: Criterion, device: torch.device
    ) -> None:
        self.network = load_model(config.weights, device=device).requires_grad_(False)
        self.criterion = criterion
        theirs = self.network.classes
        matches = student.classes.matches_by_name(theirs)
        for network, what in ((student, "this model"), (self.network, config.weights)):
            if network.scoring.exclusive:
                raise UsageError(
                    f'train.teacher: {what} has a logit for "no object"; both must score each class by itself'
                )
        for setting in ("resize", "channels"):
            ours, other = (getattr(network.config.input, setting) for network in (student, self.network))
            if ours != other:
                raise UsageError(
                    f"train.teacher: {config.weights} sees images with model.input.{setting}={other}, this model {ours}"
                )
        if not matches:
            raise InputError(
                f"train.teacher: {config.weights} knows none of the classes ({listed(student.classes.names)})"
            )
        self.teaching = Teaching(
            config, criterion.config, matches, slots=student.slots, teachers_slots=self.network.slots
        )
        self.text = (
            f"{config.weights} teaches {len(matches)} of {counted(len(student.classes), 'class', 'classes')}: "
            f"{listed([student.classes.names[index] for index in matches], 8)}"
        )

    def answers(self, batch: Batch, images: Tensor, precision: Callable[[], AbstractContextManager[Any]]) -> Answers:
        """For a batch, whose `images` are normalised as the student takes them."""
        if batch.images.dtype == torch.uint8:
            images = as_input(batch.images, batch.padding, self.network.config.input)
        with torch.no_grad(), precision():
            answers = self.network(images, batch.padding).layers[-1]
        num_targets = sum(len(target.labels) for target in batch.targets)
        return Answers(answers, Arriving(self.teaching.sure(answers)), num_targets)

    def losses(self, output: Output, answers: Answers) -> dict[str, Tensor]:
        """Of a student's `output` for the same batch. Best asked for after a wait, which no other then follows."""
        return self.teaching(
            output, answers.said, answers.kept.numpy(), answers.num_targets, epoch=self.criterion.epoch
        )


def require_same_colours(teacher: Teacher, student: DetectionNetwork, augment: AugmentConfig) -> None:
    """UsageError where the student's images, perhaps blended and so normalised, would be others to the teacher."""
    ours, theirs = student.config.input, teacher.network.config.input
    if ours.channels != theirs.channels:
        raise UsageError(
            f"train.teacher takes {theirs.channels} channels, this model {ours.channels}; expected the same"
        )
    blended = [name for name in ("mixup", "copy_blend") if getattr(augment, name) is not None]
    if blended and (ours.mean, ours.std) != (theirs.mean, theirs.std):
        raise UsageError(
            f"train.teacher normalises images by other numbers than this model, which augment.{blended[0]} doesn't "
            f"allow; expected augment.{blended[0]}=null"
        )


def digest_of_file(name_or_path: str) -> str:
    """SHA-256 of the file of a release or path, or of all files of a folder."""
    path = Path(weights.resolve(name_or_path))
    sha = hashlib.sha256()
    for each in sorted(path.iterdir()) if path.is_dir() else [path]:
        with each.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()
