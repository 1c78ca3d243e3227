"""A DreamReport as the page draws it. Pure."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from system.dream import Band, DreamReport, Example, Film

MOST_STRIP_PIXELS = 60_000
"""Width of a strip of frames side by side; browsers draw no wider ones."""


def dream_event(report: DreamReport) -> dict[str, Any]:
    """That there is a new one."""
    return {"update": report.update, "frames": report.frames, "time_s": report.time_s}


def dream_json(report: DreamReport, example: int = 0) -> dict[str, Any]:
    """One dream with one of its examples.

    Args:
      report: what the learner wrote.
      example: which start; one that is not there becomes the last.
    """
    shown = min(example, len(report.examples) - 1)
    return {
        **dream_event(report),
        "context_steps": report.context_steps,
        "horizon": report.horizon,
        "step_s": None,
        "parting_step": report.parting_step,
        "error": {
            "model": _floats(report.model_error),
            "repeat_last": _floats(report.repeat_error),
            "earlier": None if report.earlier_error is None else {
                "update": report.earlier_update, "model": _floats(report.earlier_error),
            },
        },
        **(_example(report.examples[shown]) if report.examples else _NOTHING),
        "examples": list(range(len(report.examples))),
        "example": max(shown, 0),
    }  # fmt: skip


_NOTHING: dict[str, Any] = {"vectors": [], "images": [], "reward": None}


def _example(example: Example) -> dict[str, Any]:
    return {
        "vectors": [_band(band) for band in example.vectors],
        "images": [_film(film) for film in example.images],
        "reward": _band(example.reward),
    }


def _band(band: Band) -> dict[str, Any]:
    return {
        "name": band.name,
        "real": _floats(band.real),
        "mean": _floats(band.mean),
        "low": _floats(band.low),
        "high": _floats(band.high),
    }


def _film(film: Film) -> dict[str, Any]:
    frames, height, width, _ = film.real.shape
    # The error as brightness: black where the dream is right.
    error = np.abs(film.real.astype(np.int16) - film.dreamed).mean(axis=-1, keepdims=True)
    return {
        "name": film.name,
        "width": width,
        "height": height,
        "frames": min(frames, MOST_STRIP_PIXELS // width),
        "real": strip(film.real),
        "dreamed": strip(film.dreamed),
        "error": strip(error.astype(np.uint8)),
    }


def strip(frames: NDArray[np.uint8]) -> str:
    """Frames [T, height, width, 1, 2, 3 or 4] uint8 side by side, as a data URL of a PNG."""
    kept = frames[: max(1, MOST_STRIP_PIXELS // frames.shape[2])]
    side = np.concatenate(list(kept), axis=1)
    colours = side[..., :3] if side.shape[-1] >= 3 else side[..., 0]
    image = Image.fromarray(np.ascontiguousarray(colours))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _floats(values: NDArray[np.float32]) -> list[float]:
    """Six digits are more than a screen shows. The codec lets only finite ones pass."""
    return [float(f"{value:.6g}") for value in values.tolist()]
