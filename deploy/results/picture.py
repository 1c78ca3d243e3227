"""The picture of one task: return against frames and against time, published points over it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.results.groups import Summary
from deploy.results.published import published
from deploy.results.statistics import Band
from deploy.results.tables import seeds_text

REACH = 1.3
"""Published points are drawn up to so much of our frames [share]."""
COLORS = ("#0b6e99", "#d1603d", "#3c7d3c", "#7a4fa3", "#c79a1b", "#b03a6f", "#4d4d4d", "#45b5aa",
          "#8b4513", "#9aa13b", "#e58fb1", "#86a8d9")  # fmt: skip
MOST_LABEL = 150
"""Letters of a label; the table has the whole."""


def save_pictures(folder: Path, summaries: Sequence[Summary]) -> list[str]:
    """Writes a PNG for each task; returns their names, in order. The same input, the same bytes."""
    names = []
    for task in sorted({one.group.task for one in summaries}):
        name = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-") + ".png"
        _save(folder / name, task, [one for one in summaries if one.group.task == task])
        names.append(name)
    return names


def _save(path: Path, task: str, summaries: Sequence[Summary]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.3 + 0.2 * len(summaries)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for index, one in enumerate(summaries):
        color = COLORS[index % len(COLORS)]
        _draw(left, one.against_frames, color, label=_label(one))
        _draw(right, one.against_time, color, scale=1 / 60)
        if one.acted_against_frames is not None:
            _draw(left, one.acted_against_frames, color, style="--")
    _draw_published(left, task, max(one.frames for one in summaries))
    figure.suptitle(f"{task}: mean over seeds, 95 % bootstrap")
    left.set(xlabel="frames (agent steps x action repeat)",
             ylabel="return (dashed: training episodes)")  # fmt: skip
    right.set(xlabel="training time [min]")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
    figure.legend(fontsize=8, loc="outside lower center", ncols=1)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _draw(
    axes: Any, band: Band, color: str, *, style: str = "-", scale: float = 1.0, label: str = ""  # noqa: ANN401
) -> None:  # fmt: skip
    at = band.at * scale
    axes.plot(at, band.mean, style, color=color, linewidth=1.4, label=label or None)
    if band.low is not None:
        axes.fill_between(at, band.low, band.high, color=color, alpha=0.18, linewidth=0)


def _draw_published(axes: Any, task: str, frames: int) -> None:  # noqa: ANN401
    """Those about as far as we came; else the first one, so that the eye sees where it goes."""
    rows = published(task)
    shown = [row for row in rows if row.frames <= REACH * frames] or rows[:1]
    if shown:
        axes.plot(
            [row.frames for row in shown], [row.value for row in shown], "k*", markersize=9,
            label=f"{shown[0].method}, published: {shown[0].seeds} seeds, training episodes, "
            f"repeat {shown[0].action_repeat}",
        )  # fmt: skip


def _label(one: Summary) -> str:
    group = one.group
    settings = f", {group.settings}" if group.settings else ""
    head = (
        f"{group.preset} {group.size}: {seeds_text(len(group.runs))}, repeat {group.action_repeat}"
    )
    label = head + settings
    return label if len(label) <= MOST_LABEL else label[: MOST_LABEL - 3] + "..."
