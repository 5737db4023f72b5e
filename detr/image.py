"""File or frame -> the tensor the network takes. Training, evaluation and prediction all prepare images here."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from detr.archives import Member
from detr.bands import (
    MOST_CHANNELS,
    Bands,
    band_by_band,
    from_array_file,
    from_picture,
    from_tiff,
    is_array,
    is_tiff,
    require_channels,
)
from detr.config import Config
from detr.errors import InputError, NotAnImage, TooLarge, UsageError

RGB = NDArray[np.uint8]  # [h, w, 3]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
"""What Pillow may decode for us. Its other formats are rare in this trade and have been the way in for attacks."""

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"),
        *(".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"),
    ]
)
"""What files of these formats are called."""

MOST_PIXELS = 178_956_970
"""Larger images are refused from their header, before anything is decoded: a small file can claim to be huge."""

STRIDE = 32
"""Both sides of an input of one size are multiples of it: one position of the coarsest map."""

MOST_SIDE = 8192
"""Of the network's input: attention over more would take all memory there is, of this machine or any other."""


class InputConfig(Config):
    """How an image becomes the network's input. It travels in every checkpoint.

    "stretch" gives every image one size, whatever its aspect. "short side" keeps the aspect, so that images differ in
    size; in a batch they are then padded (see `padded`). Boxes are shares of the image either way, without padding.
    """

    resize: Literal["stretch", "short side"] = "stretch"
    height: int = Field(default=640, ge=1, le=MOST_SIDE)  # of "stretch"
    width: int = Field(default=640, ge=1, le=MOST_SIDE)
    short: int = Field(default=800, ge=1, le=MOST_SIDE)  # of "short side": what the shorter side becomes,
    long: int = Field(default=1333, ge=1, le=MOST_SIDE)  # or less, so that the longer one is not longer than this
    interpolation: Literal["bilinear"] = "bilinear"
    channels: int = Field(default=3, ge=1, le=MOST_CHANNELS)  # 3: RGB; 1: grey; others as the files have them
    mean: tuple[float, ...] | None = None  # of each channel; None: values stay in [0, 1], as in RT-DETR
    std: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _fits(self) -> InputConfig:
        if self.long < self.short:
            raise ValueError(f"long {self.long} is less than short {self.short}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} {list(values)}: expected a number for each of {self.channels} channels")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std {list(self.std)}: expected numbers above 0")
        return self

    @property
    def keeps_aspect(self) -> bool:
        return self.resize == "short side"

    @property
    def frame(self) -> tuple[int, int]:
        """(height, width) of the input: the only one, or that of a wide image at the limit of both sides."""
        return (self.short, self.long) if self.keeps_aspect else (self.height, self.width)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the input that an image of `height` x `width` becomes."""
        if not self.keeps_aspect:
            return self.height, self.width
        shorter, longer = min(height, width), max(height, width)
        short, long = self.short, self.long
        # Which way each side is rounded is DETR's: a pixel more or less would move every box.
        if longer / shorter * short > long:
            short = round(long * shorter / longer)
        if short > 0:  # else the image is a line, and stays one
            long = int(short * longer / shorter)
        return (max(1, short), long) if height <= width else (long, max(1, short))


def _stretched(config: InputConfig) -> InputConfig:
    if config.keeps_aspect:
        raise ValueError("resize 'short side' is for models that tell padding from image; this one needs 'stretch'")
    return config


StretchedInput = Annotated[InputConfig, AfterValidator(_stretched)]
"""The input of models whose boxes are shares of the whole frame: padding would move them."""


DETR_INPUT = InputConfig(resize="short side", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What DETR, Deformable DETR and DINO see: the shorter side 800 and the longer at most 1333, by ImageNet's colours."""


def prepare(image: Bands, config: InputConfig) -> Tensor:
    """[h, w, C] uint8 -> [C, H, W] float32: resized to `config.size_of(h, w)`, scaled, normalised."""
    return normalise(resized(image, config), config)


def resized(image: Bands, config: InputConfig) -> Tensor:
    """[h, w, C] -> [C, H, W], both uint8: what is left to `as_input`, which is faster where the network is.

    InputError for another number of channels than the network takes.
    """
    require_channels(image, config.channels, "image")
    height, width = config.size_of(*image.shape[:2])

    def resize(picture: Image.Image) -> Image.Image:
        if picture.size == (width, height):
            return picture
        return picture.resize((width, height), Image.Resampling.BILINEAR)

    pixels = np.array(resize(Image.fromarray(image))) if image.shape[2] == 3 else band_by_band(image, resize)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Images [C, h, w] -> [B, C, H, W], zeros to the right of and below the smaller ones, and where they are.

    The padding is [B, H, W], True where there is no image; None where all images have one size. Boxes stay shares of
    the image itself, so nothing is to be done to them on either side of the network.
    """
    sizes = [image.shape[-2:] for image in images]
    if len(set(sizes)) == 1:
        return torch.stack(list(images)), None
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool, device=batch.device)
    for place, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        batch[place, :, :h, :w] = image
        padding[place, :h, :w] = False
    return batch, padding


def normalise(image: Tensor, config: InputConfig) -> Tensor:
    """[..., C, h, w] uint8 -> float32 in [0, 1], less the mean and over the deviation where the model has them."""
    scaled = image.to(torch.float32) / 255
    if config.mean is None or config.std is None:
        return scaled
    mean = torch.tensor(config.mean, device=image.device).view(-1, 1, 1)
    return (scaled - mean) / torch.tensor(config.std, device=image.device).view(-1, 1, 1)


def as_input(images: Tensor, padding: Tensor | None, config: InputConfig) -> Tensor:
    """A batch of `padded` as the network takes it, on the device that it is on: the same numbers as `prepare` gives."""
    if images.dtype != torch.uint8:
        return images
    values = normalise(images, config)
    return values if padding is None else values.masked_fill_(padding.to(images.device)[:, None], 0)


ImageSource = str | os.PathLike[str] | Member | BinaryIO


def read_image(
    source: ImageSource, *, name: str | None = None, channels: int | None = 3, most_pixels: int = MOST_PIXELS
) -> Bands:
    """The first picture in a file, as [h, w, 3] RGB: upright by its EXIF, alpha dropped, 16 bits scaled to 8.

    With 1 of `channels` it is grey; with another number, or None for whatever it has, the file's own channels are
    given: alpha is one, and arrays (.npy) and TIFFs of any number of bands are read too.

    `name` is what errors call an open file. InputError says what is wrong with a file that is not a whole image, and
    what it looks like: NotAnImage, TooLarge, or damaged; UsageError if there is no such file.
    """
    return _read(source, name, None, channels, most_pixels)[0]


def read_reduced(source: ImageSource, short: int, *, channels: int | None = 3) -> tuple[Bands, tuple[int, int]]:
    """As `read_image`, but a large JPEG at a half, a quarter or an eighth of its size, which is several times as fast.

    Its shorter side stays at least `short`. The second answer is (height, width) of the whole picture.
    """
    return _read(source, None, short, channels)


def _read(
    source: ImageSource,
    name: str | None,
    short: int | None,
    channels: int | None,
    most_pixels: int = MOST_PIXELS,
) -> tuple[Bands, tuple[int, int]]:
    name = name or (str(source) if isinstance(source, (str, os.PathLike, Member)) else "image")
    try:
        return _decoded(source, name, short, channels, most_pixels)
    except Image.DecompressionBombError:
        raise TooLarge(f"{name}: claims more than {most_pixels:,} pixels; such images are not decoded") from None
    except (InputError, UsageError, MemoryError):
        raise
    except Exception as problem:  # a decoder meets damage with whatever exception its own code stumbles into
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise InputError(f"{name}: damaged or cut short ({reason})") from problem


def _decoded(
    source: ImageSource, name: str, short: int | None, channels: int | None, most_pixels: int
) -> tuple[Bands, tuple[int, int]]:
    try:
        opened = _opened(source, name)
    except InputError:
        if (pixels := _of_many_bands(source, channels, name)) is None:
            raise
        return pixels, pixels.shape[:2]
    with opened as picture:
        if picture.width * picture.height > most_pixels:
            raise Image.DecompressionBombError
        if picture.format == "TIFF" and channels not in (1, 3, None) and len(picture.getbands()) != channels:
            pixels = from_tiff(_content(source), name, most_pixels=MOST_PIXELS)  # Pillow drops bands without a name
            require_channels(pixels, channels, name)
            return pixels, pixels.shape[:2]
        width, height = picture.size
        if short is not None:
            picture.draft(None, (short, short))
        read = picture.size
        picture.load()
        upright = _upright(picture, name)
        return _as_pixels(upright, channels, name), (height, width) if upright.size == read else (width, height)


def read_size(path: str | os.PathLike[str] | Member) -> tuple[int, int]:
    """(height, width) that `read_image` would give, mostly from the header alone; InputError as there."""
    return _read_header(path)[0]


def read_orientation(path: str | os.PathLike[str] | Member) -> int:
    """EXIF's orientation, 1 (upright) to 8; InputError where there is no image to be turned."""
    return _read_header(path)[1]


def _read_header(path: str | os.PathLike[str] | Member) -> tuple[tuple[int, int], int]:
    name = str(path)
    try:
        return _header(path, name)
    except (InputError, UsageError):
        raise
    except Exception as problem:
        raise InputError(f"{name}: damaged or cut short ({problem})") from problem


def _header(path: str | os.PathLike[str] | Member, name: str) -> tuple[tuple[int, int], int]:
    try:
        opened = _opened(path, name)
    except InputError:
        if (pixels := _of_many_bands(path, None, name)) is None:
            raise
        return pixels.shape[:2], 1
    with opened as picture:
        if picture.format == "PNG" and _has_texts_at_its_end(path):
            picture.load()
        orientation = _orientation(picture)
        if orientation not in (5, 6, 7, 8):
            return (picture.height, picture.width), orientation
        if picture.format == "TIFF":  # is turned by decoding it, and says so before or after, as Pillow's age is
            upright = _upright(picture, name)
            return (upright.height, upright.width), orientation
        return (picture.width, picture.height), orientation


def _orientation(picture: Image.Image) -> int:
    try:
        # That of PngImageFile would decode the whole image to find an EXIF written after it.
        return int(Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable, which is taken as upright here as where the image is decoded
        return 1


def _has_texts_at_its_end(path: str | os.PathLike[str] | Member) -> bool:
    """Whether a PNG has an EXIF, or texts which may hold one, behind its pixels."""
    with (path if isinstance(path, Member) else Path(path)).open("rb") as stream:
        stream.seek(8)
        is_behind = False
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            is_behind = is_behind or head[4:] == b"IDAT"
            if is_behind and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            stream.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def count_pictures(path: str | os.PathLike[str]) -> int:
    """How many pictures a file that `read_image` could read holds: more than one in animations and multi-page TIFF.

    The views of one scene that some cameras pack into a JPEG count as one.
    """
    try:
        opened = Image.open(Path(path), formats=FORMATS)
    except Image.UnidentifiedImageError:  # an array, or bands
        return 1
    with opened as picture:
        return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


def to_pixels(picture: Image.Image, *, name: str = "image", channels: int | None = 3) -> Bands:
    """An open Pillow image -> [h, w, C] as `read_image` gives it, upright by its EXIF."""
    return _as_pixels(_upright(picture, name), channels, name)


def _opened(source: ImageSource, name: str) -> Image.Image:
    try:
        if isinstance(source, Member):
            source = source.open()
        return Image.open(Path(source) if isinstance(source, (str, os.PathLike)) else source, formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise NotAnImage(f"{name}: not an image we can read ({_looks_like(source)})") from None
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{name}: is a folder, not an image") from None
    except OSError as problem:
        if problem.errno is None:  # a decoder's own word about damage
            raise
        raise InputError(f"{name}: {problem.strerror}") from None


def _upright(picture: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as problem:  # the pixels are whole; only the note about their orientation is lost
        warnings.warn(f"{name}: unreadable EXIF ({problem}); taken as upright", stacklevel=3)
        return picture


def _of_many_bands(source: ImageSource, channels: int | None, name: str) -> Bands | None:
    """What Pillow can't read: an array, or a TIFF whose bands it has no name for; None for all else."""
    try:
        head = _head(source)
    except OSError:
        return None
    if is_array(head):
        pixels = from_array_file(_content(source), name, most_pixels=MOST_PIXELS)
    elif is_tiff(head) and channels != 3:
        pixels = from_tiff(_content(source), name, most_pixels=MOST_PIXELS)
    else:
        return None
    require_channels(pixels, channels, name)
    return pixels


def _as_pixels(picture: Image.Image, channels: int | None, name: str) -> Bands:
    if picture.mode == "F":
        raise InputError(f"{name}: floating-point pixels have no agreed range; save it with 8 or 16 bits per channel")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        grey = _from_16_bits(np.asarray(picture), name)
        return np.repeat(grey, 3, axis=2) if channels == 3 else grey
    if channels != 3:
        return from_picture(picture, channels, name)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # resolves a transparent palette, which RGB alone would warn about
    return np.array(picture.convert("RGB"))


def _from_16_bits(values: NDArray[np.generic], name: str) -> Bands:
    """[h, w] grey of 16 bits -> [h, w, 1] of 8. 65535 / 257 = 255, so white stays white."""
    wide = values.astype(np.int64)
    if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
        raise InputError(f"{name}: grey values reach {wide.max()}; expected 8 or 16 bits per channel")
    return ((wide + 128) // 257).astype(np.uint8)[:, :, None]


_SIGNS = (
    (b"\x89PNG", "a damaged PNG"),
    (b"\xff\xd8", "a damaged JPEG"),
    (b"GIF8", "a damaged GIF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"8BPS", "a Photoshop file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with git lfs pull"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)


def _looks_like(source: ImageSource) -> str:
    return looks_like(_head(source))


def _head(source: ImageSource) -> bytes:
    return _content(source, 512).getvalue()


def _content(source: ImageSource, most: int = -1) -> BytesIO:
    if isinstance(source, Member):
        return source.open()
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            return BytesIO(file.read(most))
    source.seek(0)
    content = BytesIO(source.read(most))
    source.seek(0)
    return content


def looks_like(head: bytes) -> str:
    """What the first bytes of a file suggest it is, in words."""
    if not head:
        return "the file is empty"
    for sign, words in _SIGNS:
        if head.startswith(sign):
            return f"looks like {words}"
    if head.startswith(b"RIFF"):
        kind = {b"WEBP": "a damaged WebP", b"AVI ": "an AVI video", b"WAVE": "a WAV sound"}
        return f"looks like {kind.get(head[8:12], 'RIFF')}"
    if head[4:8] == b"ftyp":
        still = head[8:12] in (b"heic", b"heix", b"mif1", b"msf1")
        return "looks like HEIC; save it as JPEG" if still else "looks like an MP4 video"
    if not any(head):
        return "it is all zeros"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "looks like HTML, perhaps a web page saved in its place"
    if text.startswith(b"<"):
        return "looks like XML or SVG"
    if text.startswith((b"{", b"[")):
        return "looks like JSON"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as problem:
        if problem.start < len(head) - 3:
            return "unknown content"
    return "looks like text"
