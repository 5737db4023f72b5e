import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from detr.classes import Classes
from detr.engine.detector import Detector
from detr.layers.conv import ConvNorm, RepVGGBlock
from detr.layers.packed import ConvLinear, packable
from detr.models import build_model
from detr.records import Output, Predictions
from detr.runtime.runner import TorchRunner, _compiled, _in_one_thread

CLASSES = Classes.from_names(["circle", "square"])
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))


class Grey(torch.nn.Module):
    """Nothing but what a runner asks for."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.linear = ConvLinear(torch.nn.Linear(8, 8))

    def forward(self, images, padding=None):
        values = self.linear(self.convolution(images).flatten(2).transpose(1, 2))
        return Output((Predictions(values[..., :2], values[..., :4].sigmoid()),))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = build_model("rtdetr-tiny", classes=CLASSES)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def answer(network):
    with torch.no_grad():
        return network.eval()(IMAGES).layers[-1]


def test_a_runner_answers_as_the_network_does(network):
    expected, runner = answer(network), TorchRunner(network)
    last = runner(IMAGES).layers[-1]
    torch.testing.assert_close(last.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.boxes, expected.boxes, rtol=1e-4, atol=1e-5)
    assert (runner.config, runner.classes, runner.name) == (network.config, CLASSES, "torch float32")


def test_the_network_given_stays_as_it_was(network):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    runner = TorchRunner(network)
    runner(IMAGES)
    assert network.training and not runner.network.training
    assert any(isinstance(module, RepVGGBlock) and module.fused is None for module in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) and tensor.is_contiguous()


def test_the_copy_is_folded_and_its_kernels_are_channels_last(network):
    copy = TorchRunner(network).network
    assert all(isinstance(module.norm, torch.nn.Identity) for module in copy.modules() if isinstance(module, ConvNorm))
    weights = [getattr(module, "weight", None) for module in copy.modules()]
    kernels = [weight for weight in weights if weight is not None and weight.dim() == 4]
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_half_answers_in_float32_a_little_otherwise(network):
    runner = TorchRunner(network, half=True)
    full, half = TorchRunner(network)(IMAGES).layers[-1], runner(IMAGES).layers[-1]
    assert half.logits.dtype == half.boxes.dtype == torch.float32
    assert runner.name == "torch bfloat16"
    assert not torch.equal(half.logits, full.logits)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_a_compiled_module_answers_alike_and_its_answers_are_its_callers():
    torch.manual_seed(0)
    module = Grey()
    runner = TorchRunner(module, compile=True)
    with torch.inference_mode():
        first = runner(IMAGES).layers[-1]
        kept = first.logits.clone()
        with torch.profiler.profile() as profile:
            runner(IMAGES.flip(0))
    assert torch.equal(first.logits, kept)
    assert not packable() or "mkldnn::_convolution_pointwise" in {event.key for event in profile.key_averages()}
    assert runner.name == "torch float32, compiled"
    for images in (IMAGES, IMAGES[:1]):
        expected, found = module(images).layers[-1], runner(images).layers[-1]
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("device", "how"), [("cpu", {"dynamic"}), ("cuda", {"options"})])
def test_pictures_of_many_sizes_are_not_too_many_for_the_compiler(device, how, monkeypatch):
    """Which refuses a graph that it made anew more often than 8 times, unless it is told another limit."""

    def compile(network, *, fullgraph, **words):
        assert fullgraph and words.keys() == how
        return lambda images, padding: torch._dynamo.config.recompile_limit

    monkeypatch.setattr(torch, "compile", compile)
    assert _compiled(Grey(), torch.device(device))(IMAGES, None) >= 64


def test_a_detector_folds_once_and_anew_when_its_network_changes(network):
    detector = Detector(network, device="cpu")
    first = detector.runner()
    assert detector.runner() is first
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)
    second = detector.runner()
    assert second is not first and detector.runner() is second
    network.set_queries(7)
    assert detector.runner()(IMAGES).layers[-1].boxes.shape[1] == 7
    assert detector.runner(half=True).half and not detector.runner().half


def test_cuda_graphs_are_asked_in_one_thread_on_the_streams_of_their_callers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: threading.current_thread().name)
    ask = _in_one_thread(lambda stream, images, padding: (stream, threading.current_thread()))
    with ThreadPoolExecutor(2, thread_name_prefix="caller") as callers:
        answers = list(callers.map(lambda _: ask(torch.zeros(1), None), range(4)))
    assert len({thread for _, thread in answers}) == 1
    assert all(stream.startswith("caller") for stream, _ in answers)
    assert threading.current_thread() not in {thread for _, thread in answers}


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_answers_as_the_cpu_does(network, half, compile, monkeypatch):
    """Compiled, the third answer is the first that a CUDA graph replays. Convolutions of float32 with all its bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    runner = TorchRunner(network, device="cuda", half=half, compile=compile)
    for images in (IMAGES, IMAGES.flip(0), IMAGES, IMAGES.flip(0)):
        with ThreadPoolExecutor(1) as another:
            last = another.submit(runner, images.pin_memory()).result().layers[-1]
        with torch.no_grad():
            scores = network.cpu().eval()(images).layers[-1].logits.sigmoid().amax(-1).sort(descending=True).values
        found = last.logits.sigmoid().amax(-1).sort(descending=True).values.cpu()
        torch.testing.assert_close(found, scores, rtol=0, atol=2e-2 if half else 1e-3)
