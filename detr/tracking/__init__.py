"""Objects followed from frame to frame, and counted where they cross lines and enter zones."""

from detr.tracking.counting import Anchor, Counted, Counter, Place
from detr.tracking.tracker import Tracker

__all__ = ["Anchor", "Counted", "Counter", "Place", "Tracker"]
