import pytest
import torch

from detr.classes import Classes
from detr.engine import benchmark
from detr.engine.benchmark import Case, Point, in_words, machine, measure, settings_to_measure, warning_of_load
from detr.errors import UsageError
from detr.image import InputConfig
from detr.models import build_model
from detr.runtime.memory import Memory
from detr.runtime.runner import TorchRunner

SMALL = InputConfig(height=64, width=64)


def case(make=None, *, name="some", batch=1):
    return Case(name, make, SMALL, batch, layers=3, queries=100, parameters=10, gflops=0.1)


def point(times, batch=1):
    return Point(case(batch=batch), "torch float32", list(times), list(times))


def test_median_p95_and_rate_are_those_of_the_runs():
    twenty = point([5.0, *[1.0] * 9, *[3.0] * 9, 4.0], batch=2)
    assert twenty.median == 3.0
    assert twenty.p95 == 4.0  # one run of twenty took longer
    assert twenty.images_per_second == pytest.approx(2000 / 3)
    assert point([2.0, 1.0]).p95 == 2.0
    assert point([1.5]).p95 == 1.5


@pytest.fixture
def runs(monkeypatch):
    """What was run, in order; each run takes a second of a clock that no one else moves."""
    made, clock = [], iter(range(10_000))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(benchmark, "_run", lambda runner, images: made.append((runner.name, "network")))
    monkeypatch.setattr(benchmark, "_whole", lambda runner, case: made.append((runner.name, "whole")))
    return made


class Idle:
    device = torch.device("cpu")

    def __init__(self, name):
        self.name = name


def test_cases_take_turns_ten_at_least(runs):
    points = measure([case(lambda: Idle("a")), case(lambda: Idle("b"))], seconds=0, warmup=2)
    assert [len(each.milliseconds) for each in points] == [10, 10]
    assert [name for name, _ in runs[:8]] == ["a"] * 4 + ["b"] * 4  # to warm up
    assert runs[8:12] == [("a", "network"), ("a", "whole"), ("b", "network"), ("b", "whole")]
    assert len(runs) == 8 + 40


def test_they_go_on_until_the_time_is_up(runs):
    (only,) = measure([case(lambda: Idle("a"))], seconds=24, warmup=1)
    assert len(only.milliseconds) == len(only.whole) == 12


@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_is_measured_from_prepared_images_and_from_pictures(batch):
    network = build_model("rtdetr-tiny", classes=Classes.from_names(["cat"])).eval()
    (found,) = measure([case(lambda: TorchRunner(network), batch=batch)], seconds=0, warmup=1)
    numbers = found.to_json()
    assert numbers["runner"] == "torch float32" and numbers["batch"] == batch and numbers["input"]["width"] == 64
    assert 0 < numbers["median_ms"] <= numbers["p95_ms"] and numbers["whole_ms"] > 0


def test_memory_is_what_was_taken_at_the_most():
    memory = Memory()
    taken = torch.ones(40_000_000, dtype=torch.uint8)
    del taken
    found = memory.most(torch.device("cpu"))
    assert found is None or found > 30_000_000


def test_memory_of_gpus_is_what_was_taken_since_whether_or_not_anything_was_before(monkeypatch):
    """PyTorch fails to begin a count anew where CUDA has not been begun itself."""

    def begun_anew(index):
        assert torch.cuda.is_initialized()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", begun_anew)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: 10 + index)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100)
    for begun, taken in ((False, 100), (True, 89)):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda begun=begun: begun)
        assert Memory().most(torch.device("cuda", 1)) == taken


def test_a_sweep_covers_all_layers_and_fewer_queries():
    network = build_model("rtdetr-tiny")
    assert settings_to_measure(network) == [(3, 100)]
    assert settings_to_measure(network, sweep=["layers"]) == [(1, 100), (2, 100), (3, 100)]
    assert settings_to_measure(network, sweep=["queries"]) == [(3, 50), (3, 100)]
    assert settings_to_measure(network, layers=[3, 1, 1], queries=[20], sweep=["queries"]) == [(1, 20), (3, 20)]
    with pytest.raises(UsageError, match="did you mean 'queries'"):
        settings_to_measure(network, sweep=["query"])


def test_the_machine_is_said_with_threads_load_and_versions():
    said = in_words(machine(torch.device("cpu")))
    for word in ("cpu (", "threads", "load", f"torch {torch.__version__}"):
        assert word in said


def test_a_busy_machine_is_warned_of():
    assert warning_of_load({"load": 1.0, "cores": 2}) is None
    assert warning_of_load({"load": None, "cores": None}) is None
    assert "load 7.5, 2 cores" in warning_of_load({"load": 7.5, "cores": 2})
