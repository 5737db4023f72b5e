"""What each process of `test_families_together.py` runs: OUT RECIPES; the steps that are hard on several processes."""

import hashlib
import json
import sys
import warnings
from pathlib import Path

import torch

from detr.classes import Classes
from detr.config import validated
from detr.records import Batch, Target
from detr.runtime.distributed import joined
from detr.runtime.interruption import Interruption
from detr.training import assembly
from detr.training.assembly import build_run
from detr.training.recipe import Recipe
from detr.training.step import take_step

warnings.filterwarnings("ignore", message="image .* has .* targets for .* queries")
out, recipes = Path(sys.argv[1]), json.loads(sys.argv[2])
SIDE = 64
FULL, CORNER, POINT, SLIVER = [0.5, 0.5, 1, 1], [0.995, 0.005, 0.01, 0.01], [1, 1, 0, 0], [0, 0.5, 0, 1]
# Of each step the boxes of its four images; process r of 2 has images r and r + 2.
STEPS = {
    "as usual": [2, 1, 3, 2],
    "one process without a box": [2, 0, 1, 0],
    "more boxes than queries": [14, 1, 2, 3],
    "boxes on the border": [[FULL, CORNER], [POINT], [SLIVER, FULL], [[0.5, 0.0, 1, 0], CORNER]],
    "as usual again": [1, 2, 1, 1],
    "no box at all": [0, 0, 0, 0],
}


class TrainSet:
    classes = Classes((1, 2, 3), ("a", "b", "c"))


def batch_of(name, boxes, team, dtype):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    images = torch.rand(4, 3, SIDE, SIDE, generator=generator, dtype=dtype)
    targets = []
    for number, given in enumerate(boxes):
        if isinstance(given, int):
            centres = torch.rand(given, 2, generator=generator) * 0.4 + 0.3
            found = torch.cat([centres, torch.rand(given, 2, generator=generator) * 0.4 + 0.1], 1)
        else:
            found = torch.tensor(given, dtype=torch.float32)
        targets.append(Target(torch.arange(len(found)) % 3, found.reshape(-1, 4), number))
    own = slice(team.rank, None, team.size)
    return Batch(images[own].contiguous(), None, targets[own])


def run_of(recipe, team, dtype):
    assembly.models.build_model = lambda *given, build=build_model, **named: build(*given, **named).to(dtype)
    return build_run(
        recipe, team=team, out=out, train_set=TrainSet(), weights=None, resumed=None, interruption=Interruption({}),
        say=str,
    )  # fmt: skip


def digest_of(run):
    tensors = [*run.network.parameters(), *(p for p in run.average.network.parameters())]
    return hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in tensors)).hexdigest()


build_model = assembly.models.build_model
found = {}
with joined(torch.device("cpu")) as team:
    for key, (tree, precise) in recipes.items():
        dtype = torch.float64 if precise else torch.float32
        run = run_of(validated(Recipe, tree, key), team, dtype)
        losses = {}
        for name, boxes in STEPS.items():
            run.learner.train()
            if precise:  # norms that don't look at the batch
                for module in run.network.modules():
                    module.training &= not isinstance(module, torch.nn.BatchNorm2d)
            take_step(run, [batch_of(name, boxes, team, dtype)])
            run.watch.look()
            losses[name] = run.watch.last.losses if run.watch.last.step == run.counters.step else None
        found[key] = {"losses": losses, "digest": digest_of(run), "skipped": run.watch.skipped}
    (out / f"rank{team.rank}.json").write_text(json.dumps(found))
