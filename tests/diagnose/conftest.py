"""`made_sets` and `tide`, which make data sets and ask the reference library, lie beside the recordings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
