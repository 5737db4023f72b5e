"""Large pictures seen in overlapping tiles, and what the tiles show put together into one answer."""

from detr.slicing.merging import merged
from detr.slicing.views import Slicing, View, views_of

__all__ = ["Slicing", "View", "merged", "views_of"]
