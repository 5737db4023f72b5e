import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from detr.errors import InputError, UsageError
from detr.image_file import MOST_PIXELS, count_pictures, read_image, read_reduced, read_size, to_pixels

RAMP = np.stack([np.tile(np.linspace(0, 255, 60), (40, 1))] * 3, -1).astype(np.uint8)  # [40, 60, 3], mean 127


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + b"\0\0\0\x04IDATabcd"
    )


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "RGB"])
@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_every_colour_mode_becomes_rgb_with_its_brightness(tmp_path, mode, extension):
    if mode == "CMYK" and extension == "png":
        extension = "jpg"
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(RAMP).convert(mode))
    image = read_image(path)
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    assert abs(image.mean() - 127) < 4


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, extension):
    deep = (RAMP[:, :, 0].astype(np.uint16)) * 257
    image = read_image(saved(tmp_path / f"a.{extension}", Image.fromarray(deep)))
    np.testing.assert_array_equal(image, RAMP)


def test_32_bit_grey_beyond_16_bits_is_refused(tmp_path):
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.full((4, 4), 70_000, np.int32)))
    with pytest.raises(InputError, match="70000"):
        read_image(path)


def test_floating_point_pixels_are_refused(tmp_path):
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(InputError, match="floating-point"):
        read_image(path)


def test_alpha_is_dropped_and_the_colour_below_it_kept(tmp_path):
    hidden = np.dstack([RAMP, np.zeros((40, 60), np.uint8)])
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(hidden))), RAMP)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    picture = Image.fromarray(RAMP).convert("P")
    image = read_image(saved(tmp_path / "a.png", picture, transparency=bytes(range(256))))
    assert abs(image.mean() - 127) < 4


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2", "ppm"])
def test_common_formats_are_read(tmp_path, extension):
    image = read_image(saved(tmp_path / f"a.{extension}", Image.fromarray(RAMP)))
    assert image.shape == RAMP.shape and abs(image.mean() - 127) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    upright = RAMP.copy()
    upright[:10, :10] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(undo(upright))), exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(to_pixels(picture), upright)


@pytest.mark.parametrize("name", ["späße und 漢字.png", "-y.png", "%03d.png", "a;touch x.png", "a.jpg"])
def test_the_name_of_a_file_does_not_matter(tmp_path, name):
    saved(tmp_path / name, Image.fromarray(RAMP), format="png")
    np.testing.assert_array_equal(read_image(tmp_path / name), RAMP)


def test_an_animation_gives_its_first_picture(tmp_path):
    pictures = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    path = saved(tmp_path / "a.webp", pictures[0], save_all=True, append_images=pictures[1:], lossless=True)
    assert (read_image(path) == 10).all()
    assert count_pictures(path) == 2
    assert count_pictures(saved(tmp_path / "b.png", pictures[0])) == 1


@pytest.mark.parametrize("size", [(1, 1), (30_000, 10), (10, 65_500)])
def test_extreme_shapes_are_read(tmp_path, size):
    assert read_image(saved(tmp_path / "a.png", Image.new("RGB", size))).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("keep", [0.5, -2])
def test_a_truncated_image_is_an_error(tmp_path, extension, keep):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(noise))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)] if keep > 0 else whole[:keep])
    if (extension, keep) == ("png", -2):  # only the end mark is cut: every pixel is there
        np.testing.assert_array_equal(read_image(path), noise)
        return
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


def test_a_png_with_a_wrong_checksum_is_an_error(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RAMP))
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 10] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b'{"a": 1}', "JSON"),
        (b"hello there, this is no image", "text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"%PDF-1.7", "PDF"),
        (b"\0" * 1000, "zeros"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "MP4"),
        (bytes(range(128, 256)) * 8, "unknown content"),
    ],
)
def test_what_is_not_an_image_is_named(tmp_path, content, words):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        read_image(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(InputError, match=words):
        read_image(io.BytesIO(content), name="upload")


def test_a_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "a.png"
    for width, height in [(60_000, 60_000), (20_000, 20_000), (MOST_PIXELS + 1, 1)]:
        path.write_bytes(png_header(width, height))
        started = time.perf_counter()
        with pytest.raises(InputError, match="pixels"):
            read_image(path)
        assert time.perf_counter() - started < 1


def test_a_bomb_is_refused_even_if_someone_lifted_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "a.png"
    path.write_bytes(png_header(60_000, 60_000))
    with pytest.raises(InputError, match="pixels"):
        read_image(path)


def test_a_missing_file_and_a_folder_are_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(UsageError, match="folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("short", "size"),
    [(10, (32, 25)), (26, (63, 50)), (50, (63, 50)), (51, (125, 100)), (101, (250, 200)), (900, (250, 200))],
)
def test_a_large_jpeg_is_read_with_fewer_pixels(tmp_path, short, size):
    ramp = np.linspace(0, 255, 250, dtype=np.uint8)[:, None, None].repeat(200, 1).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    small, whole = read_reduced(tmp_path / "a.jpg", short)
    assert small.shape[:2] == size and whole == (250, 200)
    assert np.abs(small[:, 0, 0].astype(int) - np.linspace(0, 255, size[0])).max() < 8


def test_a_reduced_jpeg_is_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    small, whole = read_reduced(tmp_path / "a.jpg", 50)
    assert small.shape == (100, 50, 3) and whole == (200, 100)


def test_a_png_is_never_reduced(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    small, whole = read_reduced(tmp_path / "a.png", 1)
    np.testing.assert_array_equal(small, RAMP)
    assert whole == RAMP.shape[:2]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_read_from_the_header_is_that_of_the_image(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "a.img"
    Image.new("RGB", (20, 10)).save(file, format, **({} if format == "BMP" else {"exif": exif}))
    assert read_size(file) == read_image(file).shape[:2]


def test_an_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(file, exif=exif)
    data = file.read_bytes()
    start = data.index(b"eXIf") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    chunk, rest = data[start : start + length], data[:start] + data[start + length :]
    end = rest.index(b"IEND") - 4
    file.write_bytes(rest[:end] + chunk + rest[end:])
    assert read_size(file) == read_image(file).shape[:2] == (20, 10)


def test_what_has_no_size_is_refused_as_where_it_is_decoded(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"<html>")
    with pytest.raises(InputError, match="looks like HTML"):
        read_size(file)
    Image.new("RGB", (20, 10)).save(file)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match=r"a\.png"):
        read_size(file)
    with pytest.raises(UsageError, match="no such file"):
        read_size(tmp_path / "b.png")
