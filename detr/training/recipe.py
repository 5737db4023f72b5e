"""A recipe: everything an experiment says. What belongs to one run on one machine (device, folders) is not in it."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from detr.config import Config, merged, read_recipe, tree_of_words, validated
from detr.criterion import FAMILIES, CriterionConfig
from detr.data.transforms import AugmentConfig
from detr.image import MOST_SIDE, STRIDE
from detr.models import ModelConfig
from detr.patience import LONGEST
from detr.runtime.settings import input_of_size
from detr.training.learning.average import AverageConfig
from detr.training.learning.freeze import Frozen
from detr.training.learning.lora import LoraConfig
from detr.training.learning.optimizer import OptimizerConfig, ScheduleConfig
from detr.training.learning.rates import with_scaled_rates
from detr.training.learning.teacher import TeacherConfig

Side = Annotated[int, Field(ge=STRIDE, le=MOST_SIDE, multiple_of=STRIDE)]


class SecondStageConfig(Config):
    """D-FINE's end of a training: back to the best epoch so far, and again whenever an epoch got no better; see
    `training/second_stage.py`.

    The official recipes name decays for the average of this stage (0.9998 for the size X), and their programs take
    0.0001 off at each new start; but the average there never reads them (https://github.com/Peterande/D-FINE/issues/331):
    the published runs kept 0.9999 to the end, as our recipes do. Without an evaluation there is no best epoch.
    """

    epoch: int = Field(ge=1)  # after so many; where the augmentation ends
    decay: float | None = Field(default=None, ge=0, lt=1)  # of the average from then on; none: as before
    less: float = Field(default=0.0, ge=0)  # the decay falls by this much whenever an epoch got no better


class TrainConfig(Config):
    epochs: int = Field(default=72, ge=1)
    batch: int = Field(default=16, ge=1)  # images of one optimizer step, over all processes and pieces
    accumulate: int = Field(default=1, ge=1)  # pieces a process computes its share in, when memory is short
    amp: Literal["off", "auto", "bf16", "fp16"] = "off"  # auto: bf16 on a GPU that has it, else fp16; off on a CPU
    clip: float = Field(default=0.1, ge=0)  # largest norm of all gradients together; 0: as they are
    skip_at_most: int = Field(default=10, ge=0)  # steps in a row left out as not finite; one more ends the training
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    average: AverageConfig | None = AverageConfig()
    second_stage: SecondStageConfig | None = None
    scales: tuple[Side, ...] | Annotated[int, Field(ge=1)] = ()
    """Longer sides of the inputs, one drawn for each batch. A number n: three quarters of the model's own side to five
    quarters, in steps of 32, the own side n times among them (D-FINE). None: the model's own input."""
    freeze: Frozen = "nothing"
    lora: LoraConfig | None = None  # learn little beside what is frozen; `{}` takes the defaults
    balance: float | None = Field(default=None, gt=0, le=1)
    """Images with a class that less than this part of all images has come more than once an epoch: `data/balance.py`.
    """
    teacher: TeacherConfig | None = None  # a larger network to learn from beside the targets
    channels_last: bool = False
    deterministic: bool = False  # only algorithms that give the same bits each time
    compile: bool = False  # backbone and encoder by `torch.compile`, a minute for each size of the input
    shard: bool = False  # over several processes, each keeps a part of weights, gradients and optimizer (FSDP2)
    activation_checkpointing: bool = False  # keep less for the backward pass and compute it again: a third more time
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    evaluate_every: int = Field(default=1, ge=1)  # epochs; the last one is always evaluated
    patience: int = Field(default=0, ge=0)  # evaluations without a better AP until training stops; 0: never
    longest_wait: float = Field(default=LONGEST, ge=0)  # seconds without a batch until training ends; 0: never


class Recipe(Config):
    model: ModelConfig
    criterion: CriterionConfig | None = None  # none: that of the paper of the model's arch
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        unfit = self.augment.unfit_for(self.model.input)
        if unfit is not None:
            raise ValueError(f"augment.{unfit}")
        if self.train.scales and self.model.input.keeps_aspect:
            raise ValueError("train.scales need inputs of one size (model.input.resize=stretch); use augment.sizes")
        if self.train.lora is not None and self.train.freeze != "nothing":
            raise ValueError("train.lora freezes all but the heads itself; leave out train.freeze")
        if self.train.compile and self.train.activation_checkpointing:
            raise ValueError("train.compile and train.activation_checkpointing exclude each other")
        others = ("compile", "activation_checkpointing", "channels_last", "lora")
        if self.train.shard and (also := [name for name in others if getattr(self.train, name)]):
            raise ValueError(f"train.shard and train.{also[0]} exclude each other")
        return self

    def as_tree(self) -> dict[str, Any]:
        """The whole recipe as plain values, for files."""
        return self.model_dump(mode="json")


def load_recipe(name_or_path: str | PathLike[str], overrides: Iterable[str] = (), *, finetune: bool = False) -> Recipe:
    """A recipe of ours or a file, with `key.sub=value` words on top; UsageError for whatever is not right in it.

    `finetune`: with the schedule and augmentation of `configs/plans/finetune.yaml`, for small data sets. At another
    batch than the recipe's own the learning rates are scaled: see `detr.training.learning.rates`.
    """
    overrides, plan = list(overrides), "finetune" if finetune else None
    tree = with_scaled_rates(
        read_recipe(name_or_path, overrides, plan=plan),
        own=[read_recipe(name_or_path), read_recipe(name_or_path, plan=plan)],
        said=tree_of_words(overrides),
        defaults=TrainConfig().model_dump(mode="json"),
    )
    return validated(Recipe, _with_the_losses_of_its_paper(tree), str(name_or_path))


def _with_the_losses_of_its_paper(tree: dict[str, Any]) -> dict[str, Any]:
    """What the criterion section doesn't say is as in the paper of the model's arch. What is wrong stays for later."""
    model, criterion = tree.get("model"), tree.get("criterion")
    arch = model.get("arch", "rtdetr") if isinstance(model, dict) else None
    if not isinstance(criterion, dict) or not isinstance(arch, str) or arch not in FAMILIES:
        return tree
    return {**tree, "criterion": merged(FAMILIES[arch].config.model_dump(mode="json"), criterion)}


def never_reached(recipe: Recipe) -> list[str]:
    """Settings, as words, of epochs that come after the last one: those of a schedule longer than this training."""
    augment, criterion, second = recipe.augment, recipe.criterion, recipe.train.second_stage
    epochs = {
        "augment.start_epoch": augment.start_epoch or None,
        "augment.flat_epoch": augment.flat_epoch,
        "augment.stop_epoch": augment.stop_epoch,
        "criterion.matcher.by_overlap_from": None if criterion is None else criterion.matcher.by_overlap_from,
        "train.second_stage.epoch": None if second is None else second.epoch,
    }
    return [f"{name}={epoch}" for name, epoch in epochs.items() if epoch is not None and epoch >= recipe.train.epochs]


def at_size(recipe: Recipe, imgsz: int) -> Recipe:
    """The recipe for inputs with that side, drawn sizes included; UsageError for a side that no input has."""
    own = recipe.model.input
    input = input_of_size(own, imgsz)
    factor = input.frame[0] / own.frame[0]
    model = recipe.model.model_copy(update={"input": input})
    train, augment = recipe.train, recipe.augment
    if isinstance(train.scales, tuple):
        scales = tuple(max(1, round(side * factor / STRIDE)) * STRIDE for side in train.scales)
        train = train.model_copy(update={"scales": scales})
    if augment.sizes is not None:
        augment = augment.model_copy(update={"sizes": augment.sizes.scaled(factor)})
    return recipe.model_copy(update={"model": model, "augment": augment, "train": train})
