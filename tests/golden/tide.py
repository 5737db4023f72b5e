"""The numbers of TIDE's own library for the sets of `made_sets.py`, as `tide.json` holds them.

pip install tidecv && PYTHONPATH=. python tests/golden/tide.py > tests/golden/tide.json
"""

import json

from made_sets import random_case

SEEDS = range(8)
NAMES = {
    "Cls": "class",
    "Loc": "place",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
    "FalsePos": "false positives",
    "FalseNeg": "false negatives",
}


def measured(annotations, detections):
    """AP at IoU 0.5, the gains and the counts, as the library gives them."""
    from tidecv import TIDE, Data

    truth, found = Data("truth"), Data("found")
    for image, name in zip(annotations.image_ids, annotations.file_names, strict=True):
        truth.add_image(image, name)
    for row in range(len(annotations.labels)):
        add = truth.add_ignore_region if annotations.crowd[row] else truth.add_ground_truth
        add(int(annotations.image_indices[row]), int(annotations.labels[row]), box=annotations.boxes[row].tolist())
    for row in range(len(detections)):
        image, label = int(detections.image_indices[row]), int(detections.labels[row])
        found.add_detection(image, label, float(detections.scores[row]), box=detections.boxes[row].tolist())
    run = TIDE(mode=TIDE.BOX).evaluate(truth, found)
    gains = {**run.fix_main_errors(), **run.fix_special_errors()}
    counts = run.count_errors()
    return {
        "ap50": run.ap,
        "gains": {NAMES[kind.short_name]: value for kind, value in gains.items()},
        "counts": {NAMES[kind.short_name]: value for kind, value in counts.items()},
    }


if __name__ == "__main__":
    print(json.dumps({str(seed): measured(*random_case(seed)) for seed in SEEDS}, indent=1))
