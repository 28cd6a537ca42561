"""Writes test/golden/signals.safetensors: OpenCV's Canny, bilateral and Gaussian filters on pictures from a
formula.

    signal_golden.py     (run by hand, with opencv-python-headless; test_signals.cpp reads it)

Pixel (y, x, c) is rint(110 + 55 sin(0.21 x + 0.05 y + c) + 40 sin(0.13 y - 0.31 x c) + 45 ((x // 9 + y // 7) % 2)).
Edges are stored as bits, the filters' pictures as they are.
"""

import pathlib

import cv2
import numpy as np
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
THRESHOLDS = [(20, 50), (50, 100), (100, 200), (200, 300), (300, 400)]


def picture(height: int, width: int) -> np.ndarray:
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    value = 110 + 55 * np.sin(0.21 * x + 0.05 * y + c) + 40 * np.sin(0.13 * y - 0.31 * x * c)
    return np.clip(np.rint(value + 45 * ((x // 9 + y // 7) % 2)), 0, 255).astype(np.uint8)


def main() -> None:
    image = picture(45, 61)
    tensors = {}
    for low, high in THRESHOLDS:
        edges = cv2.Canny(image, low, high)
        tensors[f"edges.{low}.{high}"] = np.packbits(edges.flatten() > 0)
    small = picture(33, 40)
    tensors["bilateral"] = cv2.bilateralFilter(small, 30, 150, 100)
    tensors["gaussian"] = cv2.GaussianBlur(small, (25, 25), 12.5)
    path = ROOT / "test/golden/signals.safetensors"
    save_file(tensors, path)
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes, OpenCV {cv2.__version__}")


main()
