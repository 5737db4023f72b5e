"""The door to OpenCV, whose package needs libraries of a desktop that servers and containers often lack."""

from detr.errors import InputError

try:
    import cv2
except ImportError as problem:
    raise InputError(
        f"OpenCV can't be loaded ({problem}); without windows it needs less of the system: "
        "pip install --force-reinstall --no-deps opencv-python-headless"
    ) from problem

__all__ = ["cv2"]
