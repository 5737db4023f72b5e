"""Where a run is written besides its folder, if asked for: Weights & Biases and MLflow.

Nothing is ever sent because a package happens to be there. Each tracker has a thread of its own: a server that is slow
or fails can neither slow nor stop a training; what couldn't be sent is said once.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from detr.errors import UsageError, did_you_mean
from detr.extras import is_installed, not_installed
from detr.files import write_text
from detr.image import RGB

TENSORBOARD = "tensorboard"
PACKAGES = {TENSORBOARD: "tensorboard>=2.14", "wandb": "wandb>=0.31", "mlflow": "mlflow-skinny>=3"}
WAITING = 1000  # rows that wait for a slow server before further ones are left out
PATIENCE = 30.0  # seconds that the end of a training waits for what is still to be sent
_writing = threading.Lock()
_IDS = "trackers.json"  # in the run's folder: the run's name at each server, to go on with


class Service(Protocol):
    """A server's client; all of it is called by one thread, and may fail."""

    def begin(self) -> str:
        """The run's name there, to go on with when it is resumed."""

    def numbers(self, values: Mapping[str, float], step: int) -> None: ...

    def picture(self, name: str, pixels: RGB, step: int) -> None: ...

    def end(self) -> None: ...


class Tracker:
    """Feeds a service from a thread."""

    def __init__(self, name: str, service: Service, folder: Path, say: Callable[[str], None]) -> None:
        self.name, self._service, self._folder, self._say = name, service, folder, say
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(WAITING)
        self._failed = threading.Event()
        self._lost = 0
        self._thread = threading.Thread(target=self._feed, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        kept = dict(values)
        self._put(lambda: self._service.numbers(kept, step))

    def picture(self, name: str, pixels: RGB, step: int) -> None:
        self._put(lambda: self._service.picture(name, pixels, step))

    def close(self) -> None:
        """Send what waits, for at most `PATIENCE` seconds."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=PATIENCE)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._say(f"warning: {self.name} did not take all that was to be sent within {PATIENCE:.0f} s")
        elif self._lost and not self._failed.is_set():
            self._say(f"warning: {self.name} was too slow; {self._lost} rows were not sent")

    def _put(self, work: Callable[[], object]) -> None:
        if self._failed.is_set():
            return
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            self._lost += 1

    def _feed(self) -> None:
        try:
            _remember(self._folder, self.name, self._service.begin())
            while (work := self._waiting.get()) is not None:
                work()
            self._service.end()
        except Exception as problem:  # whatever a client throws: the training is worth more than its copy elsewhere
            self._failed.set()
            reason = " ".join(str(problem).split())[:200] or type(problem).__name__
            self._say(f"warning: {self.name} failed and gets nothing more, the run's folder has all: {reason}")


def chosen_logs(words: str | None) -> tuple[str, ...] | None:
    """Names from `wandb,mlflow`; `none` is none of them. UsageError for other words and for packages that lack."""
    if words is None:
        return None
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if names in ((), ("none",)):
        return ()
    for name in names:
        if name not in PACKAGES:
            near = did_you_mean(name, PACKAGES)
            raise UsageError(f"--log {name}: expected {', '.join(PACKAGES)}, several with commas, or none{near}")
        if not is_installed(name):
            raise UsageError(f"--log {name} needs {not_installed(name)}; type: pip install '{PACKAGES[name]}'")
    return names


def open_trackers(
    names: Sequence[str], folder: Path, *, settings: Mapping[str, Any], resumed: bool, say: Callable[[str], None]
) -> list[Tracker]:
    """Those of `names` that have servers; a resumed run goes on with the one it has there."""
    ids = _remembered(folder) if resumed else {}
    return [
        Tracker(name, SERVICES[name](folder, settings, ids.get(name)), folder, say)
        for name in names
        if name in SERVICES
    ]


class WeightsAndBiases:
    """Project and account are `wandb`'s own settings: `wandb login`, WANDB_PROJECT, WANDB_MODE=offline."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], id: str | None) -> None:
        self._folder, self._settings, self._id = folder, dict(settings), id
        self._run: Any = None

    def begin(self) -> str:
        import wandb

        offline = wandb.setup().settings.mode in ("offline", "disabled")
        if not offline and not wandb.login(prompt=False):  # it must not ask: nobody may be there
            raise RuntimeError("no account is known; type `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            name=self._folder.name, dir=str(self._folder), config=self._settings, id=self._id, resume="allow"
        )
        return str(self._run.id)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, pixels: RGB, step: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(pixels)}, step=step)

    def end(self) -> None:
        self._run.finish()


class MLflow:
    """Server and experiment are `mlflow`'s own settings: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], id: str | None) -> None:
        self._folder, self._settings, self._id = folder, settings, id

    def begin(self) -> str:
        import mlflow

        run = mlflow.start_run(run_id=self._id, run_name=None if self._id else self._folder.name)
        if self._id is None:
            mlflow.log_params(dict(_flat(self._settings)))
        return str(run.info.run_id)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        import mlflow

        mlflow.log_metrics(dict(values), step=step)

    def picture(self, name: str, pixels: RGB, step: int) -> None:
        import mlflow

        mlflow.log_image(pixels, artifact_file=f"{name}/{step:08d}.png")

    def end(self) -> None:
        import mlflow

        mlflow.end_run()


SERVICES: dict[str, Callable[[Path, Mapping[str, Any], str | None], Service]] = {
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """`train.batch`, `16`: what a server shows as a table; values no longer than it takes."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", str(value)[:500]


def _remembered(folder: Path) -> dict[str, str]:
    path = folder / _IDS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _remember(folder: Path, name: str, id: str) -> None:
    with _writing:
        write_text(folder / _IDS, json.dumps({**_remembered(folder), name: id}) + "\n")
