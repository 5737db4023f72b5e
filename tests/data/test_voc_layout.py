import pytest
from PIL import Image

from detr.classes import Classes
from detr.data.opening import open_for_training, open_split
from detr.data.sources import find_split, find_splits
from detr.errors import InputError, UsageError


def put(root, name="a", thing="cat", images="JPEGImages", xml="Annotations"):
    (root / xml).mkdir(parents=True, exist_ok=True)
    (root / images).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(root / images / f"{name}.jpg")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    text = f"<annotation><object><name>{thing}</name>{box}</object></annotation>"
    (root / xml / f"{name}.xml").write_text(text)


def lists(root, **names):
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for split, lines in names.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)


def test_lists_say_what_belongs_to_which_split(tmp_path):
    for name, thing in (("a", "cat"), ("b", "dog"), ("c", "ape"), ("not listed", "fox")):
        put(tmp_path, name, thing)
    lists(tmp_path, train="a\n", val="b\n", trainval="a\nb\n", test="c\n", cat_train="a  1\n")
    assert list(find_splits(tmp_path)) == ["train", "val", "test"]
    train_set, val_set = open_for_training(tmp_path)
    assert train_set.classes == Classes.from_names(("ape", "cat", "dog", "fox"))  # whatever split they are in
    assert train_set.annotations.file_names == ("a.jpg",) and train_set[0].labels.tolist() == [1]
    assert val_set.annotations.file_names == ("b.jpg",) and val_set[0].labels.tolist() == [2]
    assert val_set[0].boxes.tolist() == [[0, 0, 5, 5]]


def test_trainval_is_the_training_set_where_there_is_no_train(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b")
    lists(tmp_path, trainval="a\n", test="b")
    assert {split: source.read().image_ids for split, source in find_splits(tmp_path).items()} == {
        "train": ("a",),
        "test": ("b",),
    }


def test_without_lists_all_files_are_both_splits(tmp_path):
    put(tmp_path, images="images")
    found = find_splits(tmp_path)
    assert found["train"] == found["val"] and found["train"].images == tmp_path / "images"


@pytest.mark.parametrize("line", ["my cat.x", "my cat.x 1", "my cat.x  -1", "my cat.x.jpg", "\r\n my cat.x \r\n"])
def test_lines_of_lists_come_in_several_forms(tmp_path, line):
    put(tmp_path, "my cat.x")
    lists(tmp_path, train=line)
    assert find_split(tmp_path, "train").read().file_names == ("my cat.x.jpg",)


@pytest.mark.parametrize("line", ["b", "../a", "Annotations/a", "."])
def test_a_line_without_its_file_is_named(tmp_path, line):
    put(tmp_path, "a")
    lists(tmp_path, train=f"a\n{line}")
    with pytest.raises(InputError, match=r"train\.txt:2: .* has no .*Annotations/"):
        find_split(tmp_path, "train").read()
    lists(tmp_path, train="a\na\n")
    with pytest.raises(InputError, match="listed more than once"):
        find_split(tmp_path, "train").read()


def test_roboflow_puts_the_files_beside_the_images(tmp_path):
    put(tmp_path, "a", "cat", "train", "train")
    put(tmp_path, "b", "dog", "valid", "valid")
    train_set, val_set = open_for_training(tmp_path)
    assert train_set.classes.names == val_set.classes.names == ("cat", "dog")
    assert train_set[0].labels.tolist() == [0] and val_set[0].labels.tolist() == [1]


def test_the_folders_above_are_found_too(tmp_path):
    put(tmp_path / "VOCdevkit" / "VOC2007")
    assert find_splits(tmp_path) == find_splits(tmp_path / "VOCdevkit")
    assert find_splits(tmp_path)["train"].read().file_names == ("a.jpg",)
    put(tmp_path / "VOCdevkit" / "VOC2012")
    with pytest.raises(UsageError, match=r"holds several: .*VOC2007, .*VOC2012; give one of them"):
        find_splits(tmp_path)


def test_a_folder_of_two_formats_asks_which_and_takes_annotations_as_the_answer(tmp_path):
    put(tmp_path)
    (tmp_path / "data.yaml").write_text("train: JPEGImages\nnames: [cat]\n")
    with pytest.raises(UsageError, match=r"is both YOLO .* and Pascal VOC .*Annotations\); give its"):
        find_splits(tmp_path)
    assert find_split(tmp_path / "Annotations", "train").read().classes.names == ("cat",)


def test_a_file_of_names_gives_classes_their_order(tmp_path):
    put(tmp_path, "a", "cat")
    (tmp_path / "labels.txt").write_bytes("zebra\r\nGröße\ncat\n\n".encode())
    found = open_split(find_split(tmp_path, "train"))
    assert found.classes.names == ("zebra", "Größe", "cat") and found[0].labels.tolist() == [2]
    (tmp_path / "labels.txt").write_text("cat\ncat\n")
    with pytest.raises(InputError, match=r"labels\.txt: class name 'cat' is given more than once"):
        find_split(tmp_path, "train").read()
    (tmp_path / "labels.txt").write_text("\n")
    with pytest.raises(InputError, match="it is empty"):
        find_split(tmp_path, "train").read()
