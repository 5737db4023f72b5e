import pytest
from PIL import Image

from detr.classes import Classes
from detr.data.opening import open_for_training, open_split
from detr.data.sources import find_split, find_splits
from detr.errors import InputError, UsageError


def put(root, image, rows="0 .5 .5 .5 .5\n", labels=None):
    """An image and its label file; `labels` is the path of that, by default by the usual rule."""
    path = root / image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(path)
    file = root / (labels or image.replace("images/", "labels/").rsplit(".", 1)[0] + ".txt")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(rows)


def yaml(root, text, name="data.yaml"):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


@pytest.mark.parametrize(
    ("images", "paths"),
    [
        (("images/train/a.jpg", "images/val/b.jpg"), ("images/train", "images/val")),
        (("train/images/a.jpg", "valid/images/b.jpg"), ("train/images", "valid/images")),
        (("train/images/a.jpg", "valid/images/b.jpg"), ("../train/images", "../valid/images")),
        (("train/images/a.jpg", "valid/images/b.jpg"), ("train", "valid")),
        (("train/images/a.jpg", "valid/images/b.jpg"), ("train\\images", "valid\\images")),
        (("images/x/train/deep/a.jpg", "images/x/val/b.jpg"), ("images/x/train", "images/x/val")),
        (("train/a.jpg", "val/b.jpg"), ("train", "val")),
    ],
)
def test_the_usual_layouts_are_found(tmp_path, images, paths):
    for image, rows in zip(images, ("1 .5 .5 .5 .5\n", "0 .5 .5 .5 .5\n"), strict=True):
        put(tmp_path, image, rows)
    yaml(tmp_path, f"train: {paths[0]}\nval: {paths[1]}\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n")
    train_set, val_set = open_for_training(tmp_path)
    assert list(find_splits(tmp_path)) == ["train", "val"]
    assert train_set.classes == val_set.classes == Classes((0, 1), ("cat", "dog"))
    assert [len(train_set), len(val_set)] == [1, 1]
    assert train_set[0].labels.tolist() == [1] and val_set[0].labels.tolist() == [0]
    assert train_set[0].boxes.tolist() == [[5, 2.5, 15, 7.5]]
    assert find_splits(tmp_path / "data.yaml") == find_splits(tmp_path)


def test_several_folders_and_lists_make_one_split(tmp_path):
    put(tmp_path, "one/images/a.jpg")
    put(tmp_path, "two/images/a.jpg")
    put(tmp_path, "three/images/b.png")
    put(tmp_path, "three/images/not-listed.png")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "some.txt").write_bytes(b"\xef\xbb\xbf./three/images/b.png\r\n\r\n")
    file = yaml(tmp_path, "train: [one/images, two/images, lists/some.txt]\nnames: {0: cat}\n", "mine.yml")
    dataset = open_split(find_split(file, "train"))
    assert dataset.annotations.file_names == ("one/images/a.jpg", "two/images/a.jpg", "three/images/b.png")
    assert [len(dataset[i].boxes) for i in range(3)] == [1, 1, 1]


def test_a_list_names_images_from_itself_or_from_the_set(tmp_path):
    put(tmp_path, "sub/images/a.jpg")
    file = yaml(tmp_path, "train: sub/train.txt\nnames: [cat]\n")
    for line in ("images/a.jpg", "sub/images/a.jpg", "sub\\images\\a.jpg", str(tmp_path / "sub/images/a.jpg")):
        (tmp_path / "sub" / "train.txt").write_text(line)
        assert find_split(file, "train").read().file_names == ("sub/images/a.jpg",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/no.jpg", r"train\.txt:2: images/no\.jpg: no such image"),
        ("../outside.jpg", r"train\.txt:2: \.\./outside\.jpg is outside of the data set"),
        ("images/a.jpg", "is listed twice"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(tmp_path, line, message):
    root = tmp_path / "set"
    put(root, "images/a.jpg")
    put(tmp_path, "outside.jpg")
    (root / "train.txt").write_text(f"images/a.jpg\n{line}\n")
    with pytest.raises(InputError, match=message):
        find_split(yaml(root, "train: train.txt\nnames: [cat]\n"), "train").read()


def test_path_is_the_folder_of_the_set(tmp_path, monkeypatch):
    put(tmp_path / "sets" / "mine", "images/train/a.jpg")
    text = "train: images/train\nnames: [cat]\n"
    for given in ("../sets/mine", tmp_path / "sets" / "mine", "sets/mine"):
        monkeypatch.chdir(tmp_path)
        file = yaml(tmp_path / "yamls", f"path: {given}\n{text}")
        assert find_split(file, "train").read().file_names == ("a.jpg",)
    with pytest.raises(UsageError, match="path is 'sets/other': no such folder, neither from where the YAML is nor"):
        find_splits(yaml(tmp_path / "yamls", f"path: sets/other\n{text}"))


def test_nothing_outside_of_the_set_is_read(tmp_path):
    put(tmp_path, "secret/images/a.jpg")
    for given in ("../../secret/images", "images/../../secret", tmp_path / "secret"):
        with pytest.raises(UsageError, match="outside of the data set"):
            find_splits(yaml(tmp_path / "set", f"train: {given}\nnames: [cat]\n"))
    with pytest.raises(UsageError, match="no such file or folder"):  # ../secret means secret beside the YAML
        find_splits(yaml(tmp_path / "set", "train: ../secret/images\nnames: [cat]\n"))
    put(tmp_path / "set", "images/b.jpg")
    (tmp_path / "set" / "images" / "link.jpg").symlink_to(tmp_path / "secret" / "images" / "a.jpg")
    with pytest.raises(InputError, match="outside of the image folder"):
        open_split(find_split(yaml(tmp_path / "set", "train: images\nnames: [cat]\n"), "train"))


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("names: [b, a]", Classes((0, 1), ("b", "a"))),
        ("names: {1: a, 0: b}", Classes((0, 1), ("b", "a"))),
        ("names: {7: seven, 3: three}", Classes((3, 7), ("three", "seven"))),
        ("names: [10, no, 'x y', Größe]", Classes((0, 1, 2, 3), ("10", "no", "x y", "Größe"))),
        ("nc: 2", Classes((0, 1), ("class_0", "class_1"))),
    ],
)
def test_names_come_as_a_list_or_with_numbers(tmp_path, names, classes):
    put(tmp_path, "images/a.jpg", f"{classes.ids[-1]} .5 .5 .5 .5")
    found = find_split(yaml(tmp_path, f"train: images\n{names}\n"), "train").read()
    assert found.classes == classes and found.labels.tolist() == [len(classes) - 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images", "names is missing"),
        ("train: images\nnames: cat", "names is 'cat'; expected a list"),
        ("train: images\nnames: []", "expected a list"),
        ("train: images\nnames: [a, a]", "class name 'a' is given more than once"),
        ("train: images\nnames: [a, {b: c}]", "expected text"),
        ("train: images\nnames: [a, true]", "in quotes"),
        ("train: images\nnames: {a: 0}", "names has 'a'; expected numbers"),
        ("train: images\nnames: {0: a, 0: b}", "key '0' is given twice"),
        ("train: images\nnames: [a]\nnc: 2", "nc is 2, but names has 1"),
        ("train: images\nnames: [a]\nnc: many", "nc is 'many'"),
        ("train: imags\nnames: [a]", "train is 'imags': no such file or folder .*did you mean 'images'"),
        ("train: images\nval: valid\nnames: [a]", "val is 'valid': no such file or folder"),
        ("train: images/a.jpg\nnames: [a]", "expected a folder with images, or a list"),
        ("train: [1]\nnames: [a]", "train has 1"),
        ("trian: images\nnames: [a]", "names no split.*did you mean 'trian'"),
        ("path: 3\ntrain: images\nnames: [a]", "path is 3"),
        ("train: images\nnames: [a]\nkpt_shape: 3", "kpt_shape is 3"),
    ],
)
def test_a_wrong_yaml_is_refused_in_one_line(tmp_path, text, message):
    put(tmp_path, "images/a.jpg")
    with pytest.raises(UsageError, match=message) as caught:
        find_splits(yaml(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_other_keys_are_left_alone_and_nothing_is_downloaded(tmp_path):
    put(tmp_path, "images/a.jpg")
    more = "download: |\n  import os\n  os.abort()\nroboflow: {workspace: x, license: CC}\nval:\n"
    assert list(find_splits(yaml(tmp_path, f"train: images\nnames: [a]\n{more}"))) == ["train"]


def test_a_folder_of_two_formats_asks_which(tmp_path):
    put(tmp_path, "images/a.jpg")
    yaml(tmp_path, "train: images\nnames: [a]\n")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(UsageError, match=r"is both COCO \(.*instances_train\.json\) and YOLO \(.*data\.yaml\)"):
        find_splits(tmp_path)
    assert list(find_splits(tmp_path / "data.yaml")) == ["train"]
    yaml(tmp_path, "train: images\nnames: [a]\n", "dataset.yaml")
    with pytest.raises(UsageError, match=r"has data\.yaml and dataset\.yaml"):
        find_splits(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".hidden.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="no images in"):
        find_split(yaml(tmp_path, "train: images\nnames: [a]\n"), "train").read()


def test_validation_classes_follow_those_of_a_checkpoint(tmp_path):
    put(tmp_path, "images/a.jpg", "1 .5 .5 .5 .5")
    source = find_split(yaml(tmp_path, "train: images\nnames: [cat, dog]\n"), "train")
    found = source.read(classes=Classes((4, 9), ("Dog", "cat")))
    assert found.labels.tolist() == [0] and found.classes == Classes((1, 0), ("Dog", "cat"))
