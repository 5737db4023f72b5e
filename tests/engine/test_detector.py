import pickle
import types
from dataclasses import dataclass
from io import BytesIO, StringIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import detr.weights
from detr.classes import Classes
from detr.engine.detector import Detector
from detr.engine.families import RTDETR
from detr.engine.training import usual_recipe
from detr.errors import InputError, UsageError
from detr.image import InputConfig, prepare
from detr.models.postprocess import Scoring
from detr.models.presets import MODELS
from detr.records import Output, Predictions
from detr.runtime.settings import class_indices

CLASSES = Classes.from_names(["red", "green", "blue"])


@dataclass
class Config:
    arch: str
    input: InputConfig


class ColourFinder(nn.Module):
    """A network of two queries: one box per image, of the class of its strongest colour; the other query is unsure."""

    scoring = Scoring()

    def __init__(self, arch="rtdetr"):
        super().__init__()
        self.config, self.classes = Config(arch, InputConfig(height=64, width=64)), CLASSES
        self.seen = []
        self.logit = 3.0

    def forward(self, images, padding=None, targets=None):
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append(images)
        logits = torch.full((len(images), 2, 3), -4.0)
        strongest = images.mean((2, 3)).argmax(1)
        logits[torch.arange(len(images)), 0, strongest] = self.logit
        boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.5, 0.5]]).expand(len(images), 2, 4)
        return Output((Predictions(logits, boxes),))


@pytest.fixture
def detector():
    return Detector(ColourFinder(), device="cpu")


def plain(colour, height=48, width=96):
    return np.full((height, width, 3), colour, np.uint8)


RED, GREEN, BLUE = plain((200, 10, 20)), plain((20, 200, 10)), plain((10, 20, 200))


def said(results):
    return [[one.names[int(label)] for label in one.boxes.cls] for one in results]


def test_boxes_are_in_the_pixels_of_the_picture(detector):
    (result,) = detector(Image.fromarray(RED))
    assert result.boxes.xyxy.tolist() == [[24, 12, 72, 36]]
    assert result.orig_shape == (48, 96) and result.names == {0: "red", 1: "green", 2: "blue"}
    assert result.boxes.conf.item() == pytest.approx(torch.tensor(3.0).sigmoid().item())
    assert set(result.speed) == {"preprocess", "inference", "postprocess"}


def test_boxes_are_clipped_to_the_picture(detector):
    (result,) = detector(Image.fromarray(RED), conf=0.01)
    assert result.boxes.xyxy[:, 2].max() <= 96 and result.boxes.xyxy[:, 3].max() <= 48
    assert len(result) == 6 and result.boxes.xyxy.min() >= 0


def test_every_kind_of_source_sees_the_same_colours(detector, tmp_path):
    path = tmp_path / "red.png"
    Image.fromarray(RED).save(path)
    tensor = torch.from_numpy(RED).permute(2, 0, 1)
    sources = [
        *(path, str(path), Image.fromarray(RED), RED[:, :, ::-1], tensor, tensor / 255),
        *([path], (Image.fromarray(RED),), tmp_path, str(tmp_path / "*.png"), tensor[None]),
        np.dstack([RED[:, :, ::-1], np.zeros((48, 96), np.uint8)]),
    ]
    for source in sources:
        results = detector(source)
        assert said(results) == [["red"]]
        np.testing.assert_array_equal(results[0].image, RED)


def test_the_bytes_of_a_file_are_a_picture_and_so_is_an_open_file(detector):
    stream = BytesIO()
    Image.fromarray(RED).save(stream, "PNG")
    content = stream.getvalue()
    for source in (content, bytearray(content), memoryview(content), BytesIO(content), [content], [BytesIO(content)]):
        (result,) = detector(source)
        assert said([result]) == [["red"]]
        assert result.path == "image0"


def test_an_open_file_is_called_by_its_name(detector, tmp_path):
    Image.fromarray(RED).save(tmp_path / "red.png")
    with (tmp_path / "red.png").open("rb") as file:
        (result,) = detector(file)
    assert result.path == str(tmp_path / "red.png")


def test_arrays_are_bgr_unless_said_otherwise(detector):
    assert said(detector(RED)) == [["blue"]]
    assert said(detector(RED, channels="rgb")) == [["red"]]
    assert said(detector([RED[:, :, ::-1], GREEN])) == [["red"], ["green"]]
    with pytest.raises(UsageError, match="expected 'bgr' or 'rgb'"):
        detector(RED, channels="hsv")


def test_a_list_gives_a_result_each_in_order_whatever_the_batch(detector):
    pictures = [Image.fromarray(image) for image in (RED, plain((0, 0, 200), 30, 20), GREEN, BLUE, RED)]
    for batch in (1, 2, 5, 8):
        results = detector(pictures, batch=batch)
        assert said(results) == [["red"], ["blue"], ["green"], ["blue"], ["red"]]
        assert [one.orig_shape for one in results][:2] == [(48, 96), (30, 20)]
        assert [one.path for one in results] == [f"image{n}" for n in range(5)]


def test_grey_arrays_are_pictures_too(detector):
    (result,) = detector(np.zeros((20, 30), np.uint8))
    assert result.orig_shape == (20, 30)


def test_the_network_sees_what_training_sees(detector):
    detector(Image.fromarray(RED))
    torch.testing.assert_close(
        detector.network.seen[-1][0], prepare(RED, detector.network.config.input), rtol=0, atol=0
    )


def test_a_video_gives_a_result_for_each_frame_or_one_by_one(detector, tmp_path):
    from detr.video import VideoWriter

    with VideoWriter(tmp_path / "a.mp4", rate=10) as writer:
        for index in range(9):
            writer.write((RED, GREEN, BLUE)[index // 3])
    results = detector(tmp_path / "a.mp4")
    assert said(results) == [["red"]] * 3 + [["green"]] * 3 + [["blue"]] * 3
    assert [one.frame for one in results] == list(range(9)) and results[5].time == pytest.approx(0.5)
    stream = detector(tmp_path / "a.mp4", stream=True, vid_stride=4)
    assert isinstance(stream, types.GeneratorType)
    assert said([next(stream)]) == [["red"]]
    stream.close()
    assert [one.frame for one in detector(tmp_path / "a.mp4", vid_stride=4)] == [0, 4, 8]


def test_a_class_whose_name_has_commas_is_chosen_by_it():
    classes = Classes.from_names(["cup", "cup, broken", "plate"])
    assert class_indices("Cup, broken", classes) == (1,)
    assert class_indices(["plate,cup"], classes) == (2, 0)


def test_classes_are_chosen_by_index_or_name(detector):
    pictures = [Image.fromarray(image) for image in (RED, GREEN, BLUE)]
    assert said(detector(pictures, classes=[0, "BLUE"])) == [["red"], [], ["blue"]]
    assert said(detector(pictures, classes="green")) == [[], ["green"], []]
    assert said(detector(pictures, classes="red, green")) == [["red"], ["green"], []]
    assert said(detector(pictures, classes=2)) == [[], [], ["blue"]]


def test_conf_and_max_det_leave_out(detector):
    picture = Image.fromarray(RED)
    assert len(detector(picture, conf=0.99)[0]) == 0
    assert len(detector(picture, conf=0.0)[0]) == 6
    assert len(detector(picture, conf=0.0, max_det=2)[0]) == 2


def test_the_input_size_can_be_changed_for_a_call(detector):
    detector(Image.fromarray(RED), imgsz=96)
    detector(Image.fromarray(RED), imgsz=(32, 64))
    detector(Image.fromarray(RED))
    assert [tuple(images.shape[-2:]) for images in detector.network.seen] == [(96, 96), (32, 64), (64, 64)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"conf": 2.0}, "conf 2.0: expected a number from 0 to 1"),
        ({"conf": -1}, "from 0 to 1"),
        ({"conf": float("nan")}, "from 0 to 1"),
        ({"conf": "high"}, "from 0 to 1"),
        ({"classes": [7]}, "numbered 0 to 2"),
        ({"classes": [-1]}, "numbered 0 to 2"),
        ({"classes": "gren"}, "did you mean 'green'"),
        ({"classes": []}, "empty list"),
        ({"max_det": 0}, "max_det 0"),
        ({"batch": 0}, "batch 0"),
        ({"vid_stride": 0}, "vid_stride 0"),
        ({"imgsz": 100}, "multiple of 32 up to 8192; the nearest is 96"),
        ({"imgsz": 320_000}, "the nearest is 8192"),
        ({"imgsz": (64, 64, 64)}, "a side, or a height and a width"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "gpu"}, "gpu"),
        ({"iou": 0.5}, "each object once"),
        ({"maxdet": 5}, "did you mean 'max_det'"),
    ],
)
def test_settings_that_make_no_sense_are_wrong_usage_at_once(detector, options, words):
    with pytest.raises(UsageError, match=words):
        detector(Image.fromarray(RED), stream=True, **options)
    assert detector.network.seen == []


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "expected uint8"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (torch.zeros(4, 4, 3), "shape"),
        (torch.full((3, 4, 4), 255.0), r"expected \[0, 1\]"),
        (torch.full((3, 4, 4), float("nan")), "floats from nan"),
        (torch.zeros((3, 4, 4), dtype=torch.int64), "int64"),
        (None, "cannot look for objects in a NoneType"),
        ([None], "picture 0 is a NoneType"),
        ("gone.png", "no such file"),
        (b"\xff\xd8 no more", "image0: .*damaged JPEG"),
        (StringIO("no bytes"), "cannot look for objects in a StringIO"),
    ],
)
def test_what_is_no_picture_is_said(detector, picture, words):
    with pytest.raises(InputError, match=words):
        detector(picture)


@pytest.mark.parametrize("size", [(1, 1), (10, 3000), (3000, 10)])
def test_extreme_shapes_give_boxes_inside(detector, size):
    (result,) = detector(Image.fromarray(plain((200, 0, 0), *size)), conf=0.0)
    boxes = result.boxes.xyxy
    assert torch.isfinite(boxes).all() and (boxes >= 0).all()
    assert boxes[:, 2].max() <= size[1] and boxes[:, 3].max() <= size[0]


def test_a_network_that_answers_nan_is_an_error(detector):
    detector.network.logit = float("nan")
    with pytest.raises(InputError, match="its weights are damaged"):
        detector(Image.fromarray(RED))


def test_rtdetr_takes_only_its_own_kind():
    RTDETR(ColourFinder(), device="cpu")
    with pytest.raises(InputError, match=r"of kind 'dfine', not 'rtdetr'; use detr\.DFINE, or detr\.Detector"):
        RTDETR(ColourFinder(arch="dfine"), device="cpu")
    with pytest.raises(InputError, match=r"of kind 'dino', not 'dfine' or 'rtdetr'; use detr\.DINO"):
        detr.DEIM(ColourFinder(arch="dino"), device="cpu")


def test_a_name_that_is_nothing_is_wrong_usage():
    with pytest.raises(UsageError, match="rtdetr-r81"):
        RTDETR("rtdetr-r81")


def test_the_public_name_is_this_class():
    assert detr.RTDETR is RTDETR and detr.Detector is Detector
    families = {"DETR", "DeformableDETR", "DINO", "RTDETR", "RTDETRv2", "DFINE", "DEIM", "DEIMv2"}
    assert {arch for name in families for arch in getattr(detr, name).archs} == set(MODELS)
    for name in detr.models():
        family = {"rtdetrv2": "RTDETRv2", "deimv2": "DEIMv2", "deformable": "DeformableDETR"}.get(name.split("-")[0])
        door = getattr(detr, family or name.split("-")[0].upper())
        assert _arch_of(name) in door.archs


def _arch_of(preset):
    from detr.models.presets import preset as settings

    return settings(preset).arch


def test_a_public_name_misspelt_is_told_the_nearest():
    with pytest.raises(AttributeError, match=r"no attribute 'RTDETRV2'; did you mean 'RTDETRv2'\?"):
        _ = detr.RTDETRV2
    assert not hasattr(detr, "YOLO")


def test_a_model_says_what_it_costs():
    model = Detector(detr.build_model("rtdetr-tiny", classes=CLASSES), layers=2, queries=50, device="cpu")
    info = model.info()
    assert (info.model, info.classes, info.layers, info.queries, info.input) == ("rtdetr-tiny", 3, 2, 50, (320, 320))
    assert info.parameters == sum(each.numel() for each in model.network.parameters())
    assert str(info).startswith(
        f"rtdetr-tiny: {info.parameters / 1e6:.2f} million parameters, {info.gflops:.1f} GFLOPs"
    )


def test_a_real_network_finds_boxes_inside_the_picture():
    network = detr.build_model("rtdetr-tiny", classes=CLASSES)
    (result,) = RTDETR(network, device="cpu")(Image.fromarray(RED), conf=0.0, max_det=50, imgsz=(64, 96))
    assert len(result) == 50 and torch.isfinite(result.boxes.data).all()
    assert set(result.boxes.cls.tolist()) <= {0, 1, 2}


def test_half_precision_finds_the_same(tmp_path):
    torch.manual_seed(0)
    real = RTDETR(detr.build_model("rtdetr-tiny", classes=CLASSES), device="cpu")
    picture = Image.fromarray(RED)
    (full,), (half,) = (real(picture, conf=0, max_det=5, imgsz=64, half=half) for half in (False, True))
    assert half.boxes.data.dtype == torch.float32 and torch.isfinite(half.boxes.data).all()
    torch.testing.assert_close(half.boxes.conf, full.boxes.conf, atol=0.02, rtol=0.2)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    from detr.data.shapes import make_shapes

    folder = tmp_path_factory.mktemp("shapes")
    make_shapes(folder, images=6, val_images=4, size=64, video=False)
    return folder


@pytest.fixture(scope="module")
def untrained(shapes, tmp_path_factory):
    """A file of weights that has learned nothing, for the classes of the shapes."""
    from detr.data.coco import read_annotations
    from detr.data.sources import find_split

    torch.manual_seed(0)
    classes = read_annotations(find_split(shapes, "train").annotations).classes
    network = detr.build_model("rtdetr-tiny", classes=classes)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    detr.weights.write(path, network.state_dict(), model=network.config.model_dump(mode="json"), classes=classes)
    return path


def test_val_measures_what_the_command_line_measures(shapes, untrained):
    metrics = RTDETR(untrained, device="cpu").val(shapes, imgsz=64, batch=2, workers=0, quiet=True)
    assert len(metrics.stats) == 12 and 0 <= metrics.stats[0] < 0.2
    with pytest.raises(UsageError, match="split"):
        RTDETR(untrained, device="cpu").val(shapes, split="vall")


def test_train_goes_on_from_the_weights_and_holds_the_best_afterwards(shapes, untrained, tmp_path, monkeypatch):
    asked = {}

    def train(recipe, *, train_set, val_set, out, weights, **options):
        asked.update(recipe=recipe, sizes=(len(train_set), len(val_set)), weights=weights, **options)
        network = detr.load_model(weights)
        with torch.no_grad():
            next(network.parameters()).fill_(0.5)
        state, model = network.state_dict(), network.config.model_dump(mode="json")
        detr.weights.write(out / "best.safetensors", state, model=model, classes=network.classes)
        return types.SimpleNamespace(out=out)

    monkeypatch.setattr("detr.training.train.train", train)
    model = RTDETR(untrained, device="cpu")
    assert usual_recipe(model) == "rtdetr-tiny"
    model.network.config = model.network.config.model_copy(update={"num_denoising": 7})
    with pytest.raises(UsageError, match="which recipe"):
        model.train(shapes, project=tmp_path)
    with pytest.raises(UsageError, match=r"option 'lr0': .*train\.optimizer\.lr"):
        model.train(shapes, recipe="rtdetr-tiny", lr0=0.1)
    options = {
        "imgsz": 64,
        "settings": ["train.clip=0.2"],
        "epochs": 3,
        "batch": 2,
        "seed": 5,
        "workers": 0,
        "project": tmp_path,
    }
    assert model.train(shapes, recipe="rtdetr-tiny", **options).out == tmp_path / "train" / "train"
    settings = asked["recipe"].train
    assert asked["recipe"].model.input.frame == (64, 64)
    assert (settings.epochs, settings.batch, settings.seed, settings.clip) == (3, 2, 5, 0.2)
    assert (asked["sizes"], asked["weights"], asked["workers"]) == ((6, 4), str(untrained), 0)
    assert model.source == str(tmp_path / "train" / "train" / "best.safetensors")
    assert (next(model.network.parameters()) == 0.5).all()
    with pytest.raises(UsageError, match="was given a"):
        RTDETR(model.network, device="cpu").train(shapes)


def test_weights_are_saved_as_they_are_and_read_again(untrained, tmp_path):
    detector = Detector(untrained, device="cpu")
    with torch.no_grad():
        next(detector.network.parameters()).add_(1)
    again = Detector(detector.save(tmp_path / "mine.safetensors"), device="cpu")
    assert again.config == detector.config and again.classes == detector.classes
    for name, value in detector.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(UsageError, match=r"expected a name such as mine\.safetensors"):
        detector.save(tmp_path / "mine.pt")


def test_a_detector_that_has_answered_can_be_sent_to_another_process(untrained):
    detector = Detector(untrained, device="cpu")
    before = detector(RED, conf=0.0, imgsz=64)[0].boxes.data
    sent = pickle.loads(pickle.dumps(detector))
    torch.testing.assert_close(sent(RED, conf=0.0, imgsz=64)[0].boxes.data, before, rtol=0, atol=0)


def test_layers_and_queries_are_set_when_the_detector_is_made():
    detector = Detector("rtdetr-tiny", device="cpu", layers=2, queries=7)
    assert (detector.network.decoder.eval_layers, detector.network.config.num_queries) == (2, 7)
    assert len(detector(RED, conf=0.0, max_det=300, imgsz=64)[0].boxes) == 7 * len(detector.classes)
    with pytest.raises(UsageError, match="4 decoder layers: expected 1 to 3"):
        Detector("rtdetr-tiny", device="cpu", layers=4)
