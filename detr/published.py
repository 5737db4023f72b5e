"""What others have published: files of weights, where they are, and what they reach. What is not known is None.

AP and AP50 are the authors', on COCO val2017 in percent. Latency is theirs too: milliseconds for an image on an NVIDIA
T4 with TensorRT in 16 bits, batch 1, where they say so; RT-DETR's say images a second, which is 1000 by that.
"""

from __future__ import annotations

from dataclasses import dataclass

_RT_DETR = "https://github.com/lyuwenyu/storage/releases/download"
_D_FINE = "https://github.com/Peterande/storage/releases/download/dfinev1.0"
_DETR = "https://dl.fbaipublicfiles.com/detr"
_HUGGING_FACE = "https://huggingface.co"
_DRIVE = "https://drive.google.com/file/d"
_OBJECTS365 = "Objects365, then COCO"


@dataclass(frozen=True)
class Release:
    """One published file of weights.

    Without `url` and `page` it comes with the toolkit; with a `page` alone only a browser can fetch it.
    """

    model: str | None  # preset; None: a backbone only, to start a training from
    url: str | None
    ap: float | None = None
    ap50: float | None = None
    sha256: str | None = None  # or its first digits, where the file's name has no more
    dataset: str = "COCO"
    note: str = ""
    page: str | None = None
    saved_as: str | None = None  # in the cache, where the address doesn't end in a name of its own
    latency: float | None = None
    gflops: float | None = None  # as the authors count them

    @property
    def file_name(self) -> str:
        if self.saved_as:
            return self.saved_as
        return self.url.rsplit("/", 1)[-1] if self.url else f"{self.model}.safetensors"


_OF_RT_DETR = (  # file, AP, AP50, images a second, GFLOPs
    ("rtdetr-r18", "v0.1/rtdetr_r18vd_dec3_6x_coco_from_paddle.pth", 46.4, 63.7, 217, 60),
    ("rtdetr-r34", "v0.1/rtdetr_r34vd_dec4_6x_coco_from_paddle.pth", 48.9, 66.8, 161, 92),
    ("rtdetr-r50m", "v0.1/rtdetr_r50vd_m_6x_coco_from_paddle.pth", 51.3, 69.5, 145, 100),
    ("rtdetr-r50", "v0.1/rtdetr_r50vd_6x_coco_from_paddle.pth", 53.1, 71.2, 108, 136),
    ("rtdetr-r101", "v0.1/rtdetr_r101vd_6x_coco_from_paddle.pth", 54.3, 72.8, 74, 259),
    ("rtdetr-l", "v0.1/rtdetrv2_hgnetv2_l_6x_coco_from_paddle.pth", 52.9, 71.5, 114, 110),
    ("rtdetr-x", "v0.1/rtdetrv2_hgnetv2_x_6x_coco_from_paddle.pth", 54.7, 72.9, 74, 234),
    ("rtdetrv2-r18", "v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1.pth", 48.1, 65.1, 217, 60),
    ("rtdetrv2-r18-dsp", "v0.1/rtdetrv2_r18vd_dsp_3x_coco.pth", 47.4, 64.8, None, None),
    ("rtdetrv2-r34", "v0.1/rtdetrv2_r34vd_120e_coco_ema.pth", 49.9, 67.5, 161, 92),
    ("rtdetrv2-r50m", "v0.1/rtdetrv2_r50vd_m_7x_coco_ema.pth", 51.9, 69.9, 145, 100),
    ("rtdetrv2-r50", "v0.1/rtdetrv2_r50vd_6x_coco_ema.pth", 53.4, 71.6, 108, 136),
    ("rtdetrv2-r101", "v0.1/rtdetrv2_r101vd_6x_coco_from_paddle.pth", 54.3, 72.8, 74, 259),
)
_NOTES = {
    "rtdetr-l": "in the names of RT-DETRv2",
    "rtdetr-x": "in the names of RT-DETRv2",
    "rtdetrv2-r18-dsp": "discrete sampling",
}
_OF_RT_DETR_365 = (
    ("rtdetr-r18", "v0.1/rtdetr_r18vd_5x_coco_objects365_from_paddle.pth", 49.0, 66.5),
    ("rtdetr-r50", "v0.1/rtdetr_r50vd_2x_coco_objects365_from_paddle.pth", 55.2, 73.4),
    ("rtdetr-r101", "v0.1/rtdetr_r101vd_2x_coco_objects365_from_paddle.pth", 56.2, 74.5),
)
_OF_DETR = (  # the name of a file ends in the first digits of its SHA-256
    ("detr-r50", "detr-r50-e632da11.pth", 42.0, 62.4),
    ("detr-r50-dc5", "detr-r50-dc5-f0fb7ef5.pth", 43.3, 63.1),
    ("detr-r101", "detr-r101-2c7b67e5.pth", 43.5, 63.8),
    ("detr-r101-dc5", "detr-r101-dc5-a2e86def.pth", 44.9, 64.7),
)
_OF_DEFORMABLE_DETR = (  # repository of the authors at Hugging Face, its commit, SHA-256, AP
    (
        "deformable-detr-r50",
        "SenseTime/deformable-detr",
        "83ecd26945199939cb82806f988debdb71e6f43e",
        "caf1e3e61283c6ce35cd2d9adaa7033cf40997d4dfe434003bcdb9085cc8cf9b",
        44.5,
    ),
    (
        "deformable-detr-r50-refine",
        "SenseTime/deformable-detr-with-box-refine",
        "2e9e461623a8fdc296e19666c46c8a4389a3a6fe",
        "4113700fe8aade398808424b7c5c1304cfbf886adc6450a6ca5d50a702be3373",
        46.2,
    ),
    (
        "deformable-detr-r50-two-stage",
        "SenseTime/deformable-detr-with-box-refine-two-stage",
        "e74bff70d69f3e825f6cefaf179bfba707f92054",
        "411bb4238a834d40fff651b1b5b7d6dd80c2dd28be1747eec7b6918674e85de6",
        46.9,
    ),
)
_OF_DINO = (  # the authors' 12-epoch models
    ("dino-r50-4scale", "0011_4scale", 49.0, "0bcd6b0c33d60ed33461ce6f02ce5797a819c7c02eb7e15b76adfb6df307955a"),
    ("dino-r50-5scale", "0011_5scale", 49.4, "1ccc1b6b7139813e4d3bfbeecfcf88347ebc226829769a0bf16c4a114c275cc0"),
)
_OF_D_FINE = (  # AP, latency, GFLOPs
    ("dfine-n", "dfine_n_coco.pth", 42.8, 2.12, 7),
    ("dfine-s", "dfine_s_coco.pth", 48.5, 3.49, 25),
    ("dfine-m", "dfine_m_coco.pth", 52.3, 5.62, 57),
    ("dfine-l", "dfine_l_coco.pth", 54.0, 8.07, 91),
    ("dfine-x", "dfine_x_coco.pth", 55.8, 12.89, 202),
)
_OF_D_FINE_365 = (
    ("dfine-s", "dfine_s_obj2coco.pth", 50.7),
    ("dfine-m", "dfine_m_obj2coco.pth", 55.1),
    ("dfine-l", "dfine_l_obj2coco_e25.pth", 57.3),
    ("dfine-x", "dfine_x_obj2coco.pth", 59.3),
)
_OF_DEIM = (  # its number at Google Drive, the file, AP, latency, GFLOPs
    ("deim-dfine-n", "1ZPEhiU9nhW4M5jLnYOFwTSLQC1Ugf62e", "deim_dfine_hgnetv2_n_coco_160e.pth", 43.0, 2.12, 7),
    ("deim-dfine-s", "1tB8gVJNrfb6dhFvoHJECKOF5VpkthhfC", "deim_dfine_hgnetv2_s_coco_120e.pth", 49.0, 3.49, 25),
    ("deim-dfine-m", "18Lj2a6UN6k_n_UzqnJyiaiLGpDzQQit8", "deim_dfine_hgnetv2_m_coco_90e.pth", 52.7, 5.62, 57),
    ("deim-dfine-l", "1PIRf02XkrA2xAD3wEiKE2FaamZgSGTAr", "deim_dfine_hgnetv2_l_coco_50e.pth", 54.7, 8.07, 91),
    ("deim-dfine-x", "1dPtbgtGgq1Oa7k_LgH1GXPelg1IVeu0j", "deim_dfine_hgnetv2_x_coco_50e.pth", 56.5, 12.89, 202),
    ("deim-rtdetrv2-r18", "153_JKff6EpFgiLKaqkJsoDcLal_0ux_F", "deim_rtdetrv2_r18vd_coco_120e.pth", 49.0, 4.59, 60),
    ("deim-rtdetrv2-r34", "1O9RjZF6kdFWGv1Etn1Toml4r-YfdMDMM", "deim_rtdetrv2_r34vd_coco_120e.pth", 50.9, 6.40, 92),
    ("deim-rtdetrv2-r50m", "10dLuqdBZ6H5ip9BbBiE6S7ZcmHkRbD0E", "deim_rtdetrv2_r50vd_m_coco_60e.pth", 53.2, 6.90, 100),
    ("deim-rtdetrv2-r50", "1mWknAXD5JYknUQ94WCEvPfXz13jcNOTI", "deim_rtdetrv2_r50vd_coco_60e.pth", 54.3, 9.15, 136),
    ("deim-rtdetrv2-r101", "1BIevZijOcBO17llTyDX32F_pYppBfnzu", "deim_rtdetrv2_r101vd_coco_60e.pth", 55.5, 13.66, 259),
)
_OF_DEIMV2 = (  # repository of the authors at Hugging Face, AP, latency, GFLOPs, SHA-256
    (
        "deimv2-atto",
        "DEIMv2_HGNetv2_ATTO_COCO",
        23.8,
        1.10,
        0.8,
        "774dd877ef7b90e10d4136f31555f34627a62dc00a0d6908d9b1a48574002730",
    ),
    ("deimv2-femto", "DEIMv2_HGNetv2_FEMTO_COCO", 31.0, 1.45, 1.7, None),
    ("deimv2-pico", "DEIMv2_HGNetv2_PICO_COCO", 38.5, 2.13, 5.2, None),
    ("deimv2-n", "DEIMv2_HGNetv2_N_COCO", 43.0, 2.32, 6.8, None),
    ("deimv2-s", "DEIMv2_DINOv3_S_COCO", 50.9, 5.78, 25.6, None),
    ("deimv2-m", "DEIMv2_DINOv3_M_COCO", 53.0, 8.80, 52.2, None),
    ("deimv2-l", "DEIMv2_DINOv3_L_COCO", 56.0, 10.47, 96.7, None),
    ("deimv2-x", "DEIMv2_DINOv3_X_COCO", 57.8, 13.75, 151.6, None),
)

RELEASES: dict[str, Release] = {
    "rtdetr-tiny": Release("rtdetr-tiny", None, dataset="shapes"),
    **{
        name: Release(name, f"{_DETR}/{file}", ap, ap50, file.removesuffix(".pth").rsplit("-", 1)[1])
        for name, file, ap, ap50 in _OF_DETR
    },
    **{
        name: Release(
            name,
            f"{_HUGGING_FACE}/{repository}/resolve/{commit}/model.safetensors",
            ap,
            sha256=sha256,
            note="in Hugging Face's form",
            saved_as=f"{repository.replace('/', '-')}.safetensors",
        )
        for name, repository, commit, sha256, ap in _OF_DEFORMABLE_DETR
    },
    **{
        name: Release(
            name,
            None,
            ap,
            sha256=sha256,
            page="https://drive.google.com/drive/folders/1qD5m1NmK0kjE5hh-G17XUX751WsEG-h_",
            saved_as=f"checkpoint{file}.pth",
        )
        for name, file, ap, sha256 in _OF_DINO
    },
    **{
        name: Release(
            name,
            f"{_RT_DETR}/{file}",
            ap,
            ap50,
            note=_NOTES.get(name, ""),
            latency=None if per_second is None else round(1000 / per_second, 1),
            gflops=gflops,
        )
        for name, file, ap, ap50, per_second, gflops in _OF_RT_DETR
    },
    **{
        f"{name}-obj365": Release(name, f"{_RT_DETR}/{file}", ap, ap50, dataset=_OBJECTS365)
        for name, file, ap, ap50 in _OF_RT_DETR_365
    },
    **{
        name: Release(name, f"{_D_FINE}/{file}", ap, latency=latency, gflops=gflops)
        for name, file, ap, latency, gflops in _OF_D_FINE
    },
    **{
        f"{name}-obj365": Release(name, f"{_D_FINE}/{file}", ap, dataset=_OBJECTS365)
        for name, file, ap in _OF_D_FINE_365
    },
    **{
        name: Release(name, None, ap, page=f"{_DRIVE}/{number}/view", saved_as=file, latency=latency, gflops=gflops)
        for name, number, file, ap, latency, gflops in _OF_DEIM
    },
    **{
        name: Release(
            name,
            f"{_HUGGING_FACE}/Intellindust/{repository}/resolve/main/model.safetensors",
            ap,
            sha256=sha256,
            saved_as=f"{repository}.safetensors",
            latency=latency,
            gflops=gflops,
        )
        for name, repository, ap, latency, gflops, sha256 in _OF_DEIMV2
    },
    **{
        name: Release(None, f"{_RT_DETR}/v0.1/{file}", dataset="ImageNet", note=note)
        for name, file, note in (
            ("resnet18-vd", "ResNet18_vd_pretrained_from_paddle.pth", ""),
            ("resnet34-vd", "ResNet34_vd_pretrained_from_paddle.pth", ""),
            ("resnet50-vd", "ResNet50_vd_ssld_v2_pretrained_from_paddle.pth", "learned from a larger network (SSLD)"),
            ("resnet101-vd", "ResNet101_vd_ssld_pretrained_from_paddle.pth", "learned from a larger network (SSLD)"),
        )
    },
    **{
        name: Release(None, f"https://download.pytorch.org/models/{name}-{digits}.pth", None, None, digits, "ImageNet")
        for name, digits in (("resnet50", "0676ba61"), ("resnet101", "63fe2227"))
    },
    **{
        f"hgnetv2-{size.lower()}": Release(None, f"{_D_FINE}/PPHGNetV2_{size}_stage1.pth", dataset="ImageNet")
        for size in ("B0", "B2", "B4", "B5")
    },
}
"""Every release, under the name that works wherever weights are asked for."""
