"""The floors of the house: imports are absolute and point down, and each dependency comes in by one door."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "detr"

FLOORS = [
    [
        "errors",
        "patience",
        "extras",
        "opencv",
        "records",
        "boxes",
        "classes",
        "files",
        "json_shape",
        "archives",
        "bands",
        "config",
        "image",
        "image_file",
        "weights",
        "torch_file",
        "published",
        "releases",
        "download",
        "convert",
        "hugging_face",
        "ops",
    ],
    ["layers"],
    ["backbones"],
    ["models", "criterion", "data", "video", "draw", "slicing", "tracking"],
    ["runtime", "explain"],
    ["evaluation"],
    ["training"],
    ["export", "tuning"],
    ["engine"],
    ["diagnose"],
    ["serve"],
    ["cli"],
    ["__main__"],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SHARE_A_FLOOR = {0}  # the ground floor builds on itself

DOORS = {
    "click": ["cli/"],
    "cv2": ["opencv.py", "video/camera.py"],
    "detr.opencv": ["video/camera.py", "draw.py", "engine/draw_tracks.py", "runtime/checkup.py"],
    **{name: ["serve/"] for name in ("fastapi", "starlette", "prometheus_client")},
    "uvicorn": ["cli/serve.py", "serve/connection.py"],
    "av": ["video/", "data/shapes_video.py"],
    "scipy": ["criterion/matcher.py"],
    "pycocotools": ["evaluation/evaluate.py"],
    "yaml": ["config.py"],
    "triton": ["ops/"],
    "tqdm": ["runtime/progress.py"],
    "timm": ["layers/timm.py"],
    "trackers": ["tracking/"],
    "matplotlib": ["evaluation/plots.py", "evaluation/charts.py"],
    "tifffile": ["bands.py"],
    "tensorboard": ["training/told/journal.py"],
    "optuna": ["tuning/tune.py"],
    "wandb": ["training/told/loggers.py"],
    "mlflow": ["training/told/loggers.py"],
    **{name: ["export/"] for name in ("onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino", "nncf", "tensorrt")},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            from_top = node.module == "detr"
            yield from (f"detr.{alias.name}" for alias in node.names) if from_top else [node.module]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in imports(path):
        other = name.split(".")[1] if name.startswith("detr.") else None
        if other is None or other not in FLOOR_OF or other == room:
            continue
        below, here = FLOOR_OF[other], FLOOR_OF[room]
        points_down = below < here or (below == here and here in SHARE_A_FLOOR)
        assert points_down, f"{room} (floor {here}) imports {name} (floor {below})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_dependency_comes_in_by_its_door(path):
    place = str(path.relative_to(PACKAGE))
    for name in imports(path):
        doors = DOORS.get(name) or DOORS.get(name.split(".")[0])
        by_a_door = doors is None or any(place.startswith(door) for door in doors)
        assert by_a_door, f"{place} imports {name}; its door is {doors}"


@pytest.mark.parametrize("room", ["learning", "saved", "told"])
def test_rooms_of_training_know_no_run(room):
    """Only the files beside them may import what a whole run is; a recipe is on the way to it."""
    files = {"detr.training." + path.stem for path in (PACKAGE / "training").glob("*.py")}
    beside = files - {"detr.training.recipe"} | {"detr.training"}
    for path in (PACKAGE / "training" / room).glob("*.py"):
        assert not beside & set(imports(path)), path.name


def test_every_room_stands_on_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms <= set(FLOOR_OF)
