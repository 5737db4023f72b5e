"""A validation split set aside from a data set that has none."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from detr.data.annotations import Annotations
from detr.errors import InputError, UsageError


def set_aside(known: Annotations, share: float) -> NDArray[np.bool_]:
    """[I] the images that validation gets: about `share` of all, and of the images with each class.

    They follow from the file names, so that they are the same each time. Images are sorted by the rarest class on them,
    and every so manieth is taken, so that a rare class is shared out as well.
    """
    if not 0 < share < 1:
        raise UsageError(f"a validation split of {share:g}; expected a share between 0 and 1, such as 0.2")
    num_images = len(known.image_ids)
    on_image = np.zeros((num_images, len(known.classes)), bool)
    on_image[known.image_indices[~known.crowd], known.labels[~known.crowd]] = True
    rarity = np.argsort(np.argsort(on_image.sum(0), kind="stable"), kind="stable")  # 0 for the rarest class
    rarest = np.where(on_image, rarity, len(known.classes)).min(1, initial=len(known.classes))
    digests = [hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest() for name in known.file_names]
    order = sorted(range(num_images), key=lambda image: (rarest[image], digests[image]))
    counts = np.floor(np.arange(num_images + 1) * share + 0.5)
    chosen = np.zeros(num_images, bool)
    chosen[np.array(order, np.int64)[np.diff(counts) > 0]] = True
    if not chosen.any() or chosen.all():
        raise InputError(f"{share:g} of {num_images} images leave none for one of the splits")
    return chosen
