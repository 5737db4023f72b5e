"""A detector for each family: the same as `Detector`, but it refuses weights of another architecture."""

from __future__ import annotations

from detr.engine.detector import Detector


class DETR(Detector):
    """DETR (Carion et al. 2020)."""

    archs = ("detr",)


class DeformableDETR(Detector):
    """Deformable DETR (Zhu et al. 2021), with refined boxes and two stages too."""

    archs = ("deformable_detr",)


class DINO(Detector):
    """DINO (Zhang et al. 2023)."""

    archs = ("dino",)


class RTDETR(Detector):
    """RT-DETR (Zhao et al. 2024), v2 and DEIM's too."""

    archs = ("rtdetr",)


class RTDETRv2(RTDETR):
    """RT-DETRv2 (Lv et al. 2024): the same network with two more settings, so that this takes what `RTDETR` takes."""


class DFINE(Detector):
    """D-FINE (Peng et al. 2025), and DEIM's."""

    archs = ("dfine",)


class DEIM(Detector):
    """DEIM (Huang et al. 2025): a way to train D-FINE's and RT-DETRv2's networks, whose files are theirs."""

    archs = ("dfine", "rtdetr")


class DEIMv2(Detector):
    """DEIMv2 (Huang et al. 2025)."""

    archs = ("deimv2",)


def door(arch: str) -> str:
    """The name of the class that takes this architecture."""
    return next((each.__name__ for each in Detector.__subclasses__() if arch in each.archs), "Detector")
