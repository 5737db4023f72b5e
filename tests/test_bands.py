import numpy as np
import pytest
import tifffile
from PIL import Image

from detr import bands
from detr.bands import shown
from detr.errors import InputError, UsageError
from detr.image import InputConfig, prepare, resized
from detr.image_file import count_pictures, read_image, read_size


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 12])
def test_arrays_are_read_as_they_are(tmp_path, channels):
    pixels = noise(7, 9, channels)
    np.save(tmp_path / "a.npy", pixels)
    for wanted in (channels, None):
        np.testing.assert_array_equal(read_image(tmp_path / "a.npy", channels=wanted), pixels)
    assert read_size(tmp_path / "a.npy") == (7, 9) and count_pictures(tmp_path / "a.npy") == 1
    np.save(tmp_path / "fortran.npy", np.asfortranarray(pixels))
    np.testing.assert_array_equal(read_image(tmp_path / "fortran.npy", channels=channels), pixels)
    np.save(tmp_path / "b.npy", pixels[:, :, 0])
    np.testing.assert_array_equal(read_image(tmp_path / "b.npy", channels=1), pixels[:, :, :1])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 5, 8])
def test_tiffs_of_many_bands_are_read_in_either_order(tmp_path, channels, planar):
    pixels = noise(7, 9, channels)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    for compression in (None, "lzw", "deflate", "zstd"):
        tifffile.imwrite(
            tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar, compression=compression
        )
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif", channels=channels), pixels)
    assert read_size(tmp_path / "a.tif") == (7, 9)


def test_four_channels_of_a_png_are_kept_where_four_are_asked_for(tmp_path):
    pixels = noise(7, 9, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=4), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels[:, :, :3])


def test_grey_is_made_of_colours_and_of_16_bits(tmp_path):
    colours = noise(7, 9, 3)
    Image.fromarray(colours).save(tmp_path / "a.png")
    grey = np.asarray(Image.fromarray(colours).convert("L"))[:, :, None]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=1), grey)
    Image.fromarray(np.full((4, 5), 65535, np.uint16)).save(tmp_path / "wide.png")
    assert read_image(tmp_path / "wide.png", channels=1).tolist() == [[[255]] * 5] * 4


def test_another_number_of_channels_is_named(tmp_path):
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: has 3 channels; the model takes 5 \(model\.input\.channels\)"):
        read_image(tmp_path / "a.png", channels=5)
    np.save(tmp_path / "a.npy", noise(4, 4, 5))
    with pytest.raises(InputError, match="has 5 channels; the model takes 3"):
        read_image(tmp_path / "a.npy")
    with pytest.raises(InputError, match="has 3 channels; the model takes 5"):
        resized(noise(4, 4, 3), InputConfig(channels=5))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4), np.float32), "numbers of kind <f4; expected uint8"),
        (np.zeros((3, 400, 500), np.uint8), "the channels come last"),
        (np.zeros((2, 2, 2, 2), np.uint8), r"of shape \(2, 2, 2, 2\)"),
        (np.array([{}], object), r"numbers of kind \|O; expected uint8"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / "a.npy", channels=4)


def test_cut_files_and_those_that_claim_too_much_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise(40, 40, 4))
    whole = (tmp_path / "a.npy").read_bytes()
    for length in (7, 60, 200, len(whole) - 1):
        (tmp_path / "a.npy").write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged or cut short"):
            read_image(tmp_path / "a.npy", channels=4)
    claim = whole.replace(b"(40, 40, 4), }      ", b"(99999, 99999, 4), }")
    assert len(claim) == len(whole) and claim != whole
    (tmp_path / "a.npy").write_bytes(claim)
    with pytest.raises(InputError, match="claims more than"):
        read_image(tmp_path / "a.npy", channels=4)
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 40, 5), photometric="minisblack", planarconfig="contig")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:500])
    with pytest.raises(InputError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif", channels=5)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_model_for_colours_says_what_a_tiff_of_many_bands_is(tmp_path, monkeypatch, order):
    bands = noise(4, 4, 5)
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="contig", byteorder=order)
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(InputError, match=r"a\.tif: .*looks like a TIFF of several bands.*model\.input\.channels"):
        read_image(tmp_path / "a.tif")


def test_without_tifffile_the_line_to_type_is_said(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 4, 5), photometric="minisblack", planarconfig="contig")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(UsageError, match=r"several bands needs tifffile, .* pip install 'detr-toolkit\[bands\]'"):
        read_image(tmp_path / "a.tif", channels=5)


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(UsageError, match=r"no\.npy: no such file"):
        read_image(tmp_path / "no.npy", channels=4)


def test_bands_are_resized_and_normalised_as_colours_are():
    pixels = noise(20, 30, 3)
    three = InputConfig(height=32, width=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    six = InputConfig(height=32, width=64, channels=6, mean=three.mean * 2, std=three.std * 2)
    both = prepare(np.concatenate([pixels, pixels], 2), six)
    assert both.shape == (6, 32, 64)
    assert (both[:3] == prepare(pixels, three)).all() and (both[3:] == both[:3]).all()


def test_mean_and_deviation_have_a_number_for_each_channel():
    with pytest.raises(ValueError, match=r"mean .*expected a number for each of 4 channels"):
        InputConfig(channels=4, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


@pytest.mark.parametrize(("channels", "seen"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (6, [0, 1, 2])])
def test_what_is_shown_are_the_first_three_bands(channels, seen):
    pixels = noise(4, 5, channels)
    np.testing.assert_array_equal(shown(pixels), pixels[:, :, seen])
    assert channels <= bands.MOST_CHANNELS
