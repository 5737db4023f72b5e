"""What each box looked at: attention and sampling points, kept while a network answers, and brought to the picture."""

from detr.explain.explanations import explanations
from detr.explain.recording import Recording, recording
from detr.explain.records import Explanation

__all__ = ["Explanation", "Recording", "explanations", "recording"]
