"""Frames in and out: images, folders, video files, cameras, streams read alike; videos that browsers play."""

from detr.video.reading import Frame, FrameReader, frames
from detr.video.sources import Source, as_sequences, find_sources
from detr.video.writing import VideoWriter

__all__ = ["Frame", "FrameReader", "Source", "VideoWriter", "as_sequences", "find_sources", "frames"]
