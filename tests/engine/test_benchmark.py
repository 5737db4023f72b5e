import pytest
import torch

from detr.engine import benchmark
from detr.engine.benchmark import Conditions, Point, in_words, machine, measure, settings_to_measure, warning_of_load
from detr.errors import UsageError
from detr.image import InputConfig
from detr.models import build_model


def point(times, batch=1):
    return Point("some", 3, 100, 10, 0.1, tuple(times), batch)


def test_median_p95_and_rate_are_those_of_the_runs():
    twenty = point([5.0, *[1.0] * 9, *[3.0] * 9, 4.0], batch=2)
    assert twenty.median == 3.0
    assert twenty.p95 == 4.0  # one run of twenty took longer
    assert twenty.images_per_second == pytest.approx(2000 / 3)
    assert point([2.0, 1.0]).p95 == 2.0
    assert point([1.5]).p95 == 1.5


def test_runs_are_counted_until_the_time_is_up_but_ten_at_least(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(benchmark, "_run", lambda *_: None)
    network = build_model("rtdetr-tiny").eval()
    conditions = Conditions(torch.device("cpu"), InputConfig(height=64, width=64), seconds=0, warmup=3)
    assert len(list(benchmark._times(network, conditions))) == 10
    longer = Conditions(torch.device("cpu"), InputConfig(height=64, width=64), seconds=60)
    # A run asks the clock twice, and once it's past the tenth, it is asked again whether there is time for another.
    assert len(list(benchmark._times(network, longer))) == 23


def test_measuring_sets_the_network_and_leaves_its_weights(monkeypatch):
    network = build_model("rtdetr-tiny").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    conditions = Conditions(torch.device("cpu"), InputConfig(height=64, width=64), warmup=0, seconds=0)
    result = measure(network, "mine", conditions, layers=2, queries=7)
    assert (result.layers, result.queries, result.ap) == (2, 7, None)
    assert network.decoder.eval_layers == 2 and network.config.num_queries == 7
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_sweep_covers_all_layers_and_fewer_queries():
    network = build_model("rtdetr-tiny")
    assert settings_to_measure(network) == [(3, 100)]
    assert settings_to_measure(network, sweep=["layers"]) == [(1, 100), (2, 100), (3, 100)]
    assert settings_to_measure(network, sweep=["queries"]) == [(3, 50), (3, 100)]
    assert settings_to_measure(network, layers=[3, 1, 1], queries=[20], sweep=["queries"]) == [(1, 20), (3, 20)]
    with pytest.raises(UsageError, match="did you mean 'queries'"):
        settings_to_measure(network, sweep=["query"])


def test_the_machine_is_said_with_type_batch_size_and_versions():
    conditions = Conditions(torch.device("cpu"), InputConfig(height=64, width=96), batch=4, half=True)
    said = in_words(machine(conditions))
    for word in ("cpu (", "threads", "load", "bfloat16", "batch 4", "input 96 x 64", f"torch {torch.__version__}"):
        assert word in said


def test_a_busy_machine_is_warned_of():
    assert warning_of_load({"load": 1.0, "cores": 2}) is None
    assert warning_of_load({"load": None, "cores": None}) is None
    assert "load 7.5, 2 cores" in warning_of_load({"load": 7.5, "cores": 2})
