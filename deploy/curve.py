"""The learning curve: from `metrics.jsonl` to a picture and to a few lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEVELS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One evaluation."""

    frames: int
    time_s: float
    return_mean: float
    return_std: float


def points(lines: Iterable[dict[str, Any]]) -> list[Point]:
    """The evaluations among lines of metrics, by growing frames."""
    found = [
        Point(
            frames=int(line["frames"]),
            time_s=float(line["time_s"]),
            return_mean=float(line["eval/return_mean"]),
            return_std=float(line.get("eval/return_std", 0.0)),
        )
        for line in lines
        if "eval/return_mean" in line
    ]
    return sorted(found, key=lambda point: point.frames)


def save_png(path: Path, curve: Sequence[Point], title: str) -> None:
    """Draws return against frames; nothing if there is nothing to draw."""
    if not curve:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    frames = [point.frames for point in curve]
    mean = [point.return_mean for point in curve]
    low = [point.return_mean - point.return_std for point in curve]
    high = [point.return_mean + point.return_std for point in curve]
    axes.fill_between(frames, low, high, alpha=0.2, linewidth=0)
    axes.plot(frames, mean, marker="o", markersize=3)
    axes.set(
        title=title, xlabel="frames (simulator steps)", ylabel="return (deterministic, mean ± std)"
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def text_plot(curve: Sequence[Point], *, width: int = 60, height: int = 8) -> str:
    """Return against frames as columns of block characters.

    Args:
      curve: at least one point.
      width: columns of the picture.
      height: lines of the picture.
    """
    values = _resampled(curve, width)
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    # Each column is so many eighths of a line high; the lowest value still shows one.
    heights = [1 + round((value - low) / span * (8 * height - 1)) for value in values]
    rows = []
    for row in range(height - 1, -1, -1):
        label = (
            f"{high:9.1f} ┤"
            if row == height - 1
            else f"{low:9.1f} ┤"
            if row == 0
            else " " * 10 + "│"
        )
        cells = (LEVELS[min(max(eighths - 8 * row, 0), 8)] for eighths in heights)
        rows.append(label + "".join(cells))
    first, last = f"{curve[0].frames:,}", f"{curve[-1].frames:,} frames"
    gap = " " * max(1, len(values) - len(first) - len(last))
    return "\n".join([*rows, " " * 11 + first + gap + last])


def _resampled(curve: Sequence[Point], width: int) -> list[float]:
    """The return at `width` equal distances in frames, linear between evaluations."""
    if len(curve) == 1:
        return [curve[0].return_mean]
    start, end = curve[0].frames, curve[-1].frames
    values, index = [], 0
    for column in range(width):
        at = start + (end - start) * column / (width - 1)
        while index < len(curve) - 2 and curve[index + 1].frames < at:
            index += 1
        before, after = curve[index], curve[index + 1]
        share = (at - before.frames) / ((after.frames - before.frames) or 1)
        share = min(max(share, 0.0), 1.0)
        values.append(before.return_mean + share * (after.return_mean - before.return_mean))
    return values
