import io
import tarfile
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from detr.archives import Archive, is_archive
from detr.errors import InputError, UsageError
from detr.image_file import read_image, read_size


def png(value, size=(6, 4)):
    stream = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_each_file_is_read_from_its_place(tmp_path):
    contents = {f"{number}.bin": bytes([number]) * (number * 300) for number in range(5)}
    files = Archive(write_tar(tmp_path / "a.tar", contents))
    assert len(files) == 5
    for name in reversed(contents):
        assert files.find(PurePosixPath(name)).open().read() == contents[name]
    assert files.find(PurePosixPath("5.bin")) is None


def test_shards_of_a_folder_are_one_archive(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"images-{number:06d}.tar", {f"{number}.png": png(number), f"{number}.json": b"{}"})
    (tmp_path / "notes.txt").write_text("about them")
    assert is_archive(tmp_path)
    files = Archive(tmp_path)
    assert [int(read_image(files.find(PurePosixPath(f"{number}.png")))[0, 0, 0]) for number in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("name", ["image.png", "folder"])
def test_a_folder_with_images_or_folders_is_no_archive(tmp_path, name):
    write_tar(tmp_path / "backup.tar", {"a.png": png(1)})
    (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_bytes(png(1))
    assert not is_archive(tmp_path)


@pytest.mark.parametrize("prefix", ["", "./", "train2017/", "./train2017/"])
def test_the_one_folder_around_all_files_may_be_left_out(tmp_path, prefix):
    files = Archive(write_tar(tmp_path / "a.tar", {f"{prefix}a.png": png(1), f"{prefix}b/c.png": png(2)}))
    assert read_image(files.find(PurePosixPath("a.png")))[0, 0, 0] == 1
    assert read_image(files.find(PurePosixPath("b/c.png")))[0, 0, 0] == 2


def test_of_two_files_with_one_name_the_last_counts_and_two_shards_may_not_share_one(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.png": png(1)})
    write_tar(path, {"a.png": png(2)}, "a")
    assert read_image(Archive(path).find(PurePosixPath("a.png")))[0, 0, 0] == 2
    write_tar(tmp_path / "b.tar", {"a.png": png(3)})
    with pytest.raises(InputError, match=r"a\.png is in both .*a\.tar and .*b\.tar"):
        Archive(tmp_path)


def test_links_in_an_archive_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            entry = tarfile.TarInfo(f"{kind.decode()}.png")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tar.addfile(entry)
    assert len(Archive(tmp_path / "a.tar")) == 0


def test_compressed_damaged_and_shortened_archives_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"compressed archive; expected a plain \.tar"):
        Archive(write_tar(tmp_path / "a.tar.gz", {"a.png": png(1)}, "w:gz"))
    (tmp_path / "text.tar").write_text("not a tar file at all" * 100)
    with pytest.raises(InputError, match=r"text\.tar: not a whole tar file"):
        Archive(tmp_path / "text.tar")
    path = write_tar(tmp_path / "b.tar", {"a.png": png(1)})
    file = Archive(path).find(PurePosixPath("a.png"))
    path.write_bytes(path.read_bytes()[:540])
    with pytest.raises(InputError, match=r"b\.tar/a\.png: .*the archive ends within it"):
        read_image(file)


def test_images_of_an_archive_are_read_as_files_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "a.png", exif=turned)
    files = {"a.png": (tmp_path / "a.png").read_bytes(), "b.txt": b"no image"}
    archive = Archive(write_tar(tmp_path / "a.tar", files))
    member = archive.find(PurePosixPath("a.png"))
    assert (read_image(member) == read_image(tmp_path / "a.png")).all()
    assert read_size(member) == read_size(tmp_path / "a.png") == (7, 5)
    with pytest.raises(InputError, match=r"a\.tar/b\.txt: not an image we can read \(looks like text\)"):
        read_image(archive.find(PurePosixPath("b.txt")))
