"""The names of torchvision's ResNet: alone, and as the backbone inside DETR, Deformable DETR and DINO."""

from __future__ import annotations

from detr.convert.renaming import Row, Table

SOURCE = "resnet-torchvision"


def rows(theirs: str, ours: str = "backbone.") -> tuple[Row, ...]:
    """Rows for a ResNet whose names begin with `theirs` there and with `ours` here, such as `backbone.0.body.`."""
    result: list[Row] = [
        (f"{theirs}conv1.*", f"{ours}stem.0.conv.*"),
        (f"{theirs}bn1.*", f"{ours}stem.0.norm.*"),
    ]
    for stage in range(4):
        there, here = f"{theirs}layer{stage + 1}.{{block}}", f"{ours}stages.{stage}.{{block}}"
        result += [
            (f"{there}.conv{{n}}.*", f"{here}.conv{{n}}.conv.*"),
            (f"{there}.bn{{n}}.*", f"{here}.conv{{n}}.norm.*"),
            (f"{there}.downsample.0.*", f"{here}.shortcut.conv.*"),
            (f"{there}.downsample.1.*", f"{here}.shortcut.norm.*"),
        ]
    return tuple(result)


TABLES: dict[str, Table] = {
    SOURCE: Table(
        rows=rows(""),
        marks=("conv1.weight", "layer1.0.conv1.weight", "layer4.0.downsample.0.weight"),
        derived=("fc.weight", "fc.bias"),  # of the classifier, which a detector has no use for
    )
}
"""A file of torchvision's classifier: only its backbone is used."""
