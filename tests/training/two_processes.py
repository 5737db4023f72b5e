"""What each process of `test_distributed.py` runs: DATA OUT gradient|train|broken."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from detr.data.coco import CocoDataset, read_annotations
from detr.data.sources import find_splits
from detr.training import assembly, step
from detr.training import train as program
from detr.training.train import train
from tests.small import small_recipe

data, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
splits = find_splits(data)
annotations = {name: read_annotations(splits[name].annotations) for name in ("train", "val")}
sets = {f"{name}_set": CocoDataset(annotations[name], splits[name].images) for name in ("train", "val")}
recipe = small_recipe(epochs=1, batch=6 if mode == "gradient" else 2)
program.plots.available = lambda: False
runs, lines = [], []
original = step.gradients


def overflow(module, given, answer):
    answer[0, 1] = float("inf")


def watched(run, pieces):
    runs.append(run)
    if mode == "gradient":  # norms that don't look at the batch
        for module in run.network.modules():
            module.training = not isinstance(module, torch.nn.BatchNorm2d)
        pieces = [replace(pieces[0], images=pieces[0].images.double())]
    elif mode == "broken" and run.team.rank == 1 and run.counters.step == 1:
        run.network.encoder.bottom_up[0].register_forward_hook(overflow)
    elif run.team.rank == 1 and run.counters.step == 1:
        empty = [replace(t, labels=t.labels[:0], boxes=t.boxes[:0]) for t in pieces[0].targets]
        pieces = [replace(pieces[0], targets=empty)]
    result = original(run, pieces)
    if mode == "gradient" and run.team.leads:
        gradients = {name: p.grad.clone() for name, p in run.network.named_parameters() if p.grad is not None}
        torch.save(gradients, out / "gradient.pt")
    return result


step.gradients = watched
if mode == "gradient":
    # In float64 rounding can't change which queries are selected and matched.
    build = assembly.models.build_model
    assembly.models.build_model = lambda *arguments, **options: build(*arguments, **options).double()
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"num_denoising": 0})})
    sets["val_set"] = None
result = train(recipe, **sets, out=out, device="cpu", workers=0, say=lines.append)
tensors = [*runs[-1].network.parameters(), *runs[-1].evaluated.state_dict().values()]
digest = hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in tensors))
(out / f"rank{runs[-1].team.rank}.json").write_text(
    json.dumps({"digest": digest.hexdigest(), "steps": result.steps, "lines": lines, "skipped": result.skipped})
)
