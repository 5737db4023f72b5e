"""What a folder holds that is no data set in any form we read, and what to do about it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from detr.data.coco_layout import annotation_files
from detr.errors import counted, listed
from detr.image_file import IMAGE_SUFFIXES

_DEPTH = 3
_MOST = 20_000  # names that are looked at


def what_is_there(root: Path) -> str:
    """A clause for the end of a message: the kind of thing that is in the folder, and how it becomes a data set."""
    names = _names_in(root)
    if not names:
        return "it is empty"
    kinds = Counter(os.path.splitext(name)[1].lower() for name in names)
    if len(files := annotation_files(root)) > 1:
        shown = listed([file.name for file in files])
        return f"it has {len(files)} annotation files ({shown}); say in a YAML which is train and which is val"
    if yamls := [name for name in names if name.lower().endswith((".yaml", ".yml")) and "/" not in name]:
        return f"it has {listed(yamls)}: give the one that describes it"
    if tables := [name for name in names if name.lower().endswith(".csv")]:
        return f"it has {listed(tables)}, but tables are not read; write COCO's JSON from it (see datasets/README.md)"
    if others := [name for name in names if name.lower().endswith((".json", ".xml"))]:
        return (
            f"it has {listed(others, 3)}, but not as COCO or Pascal VOC have it; "
            'most labelling tools export "COCO", "YOLO" or "Pascal VOC"'
        )
    if archives := [name for name in names if name.lower().endswith((".zip", ".tar", ".gz", ".rar", ".7z"))]:
        return f"it has {listed(archives)}: unpack first"
    pictures = sum(kinds[suffix] for suffix in IMAGE_SUFFIXES)
    texts = kinds[".txt"]
    if pictures and texts * 2 > pictures:
        return "it has YOLO's labels, but no data.yaml or classes.txt, which names the classes"
    if pictures:
        images = counted(pictures, "image")
        return f"it has {images}, but nothing that says what is on them (`detr predict` needs no labels)"
    return f"it has {listed(sorted(names), 3)}, neither images nor annotations"


def _names_in(root: Path) -> list[str]:
    """Paths of files below the folder, some levels deep, as far as it takes to tell what it is."""
    found: list[str] = []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(Path(parent).relative_to(root).parts) >= _DEPTH - 1:
            folders.clear()
        found += [os.path.relpath(os.path.join(parent, name), root) for name in sorted(names) if name[:1] != "."]
        if len(found) > _MOST:
            break
    return found
