"""Pictures of dreams: one or two checkpoints beside what was recorded. Okabe-Ito colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from learner.dream_scores import PARTING_ERROR
from system.dream import Band, DreamReport, Example, Film

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

COLORS = ("#0072B2", "#D55E00")
"""Of the first checkpoint and of the one it is compared with."""
STYLES = ("-", "--")
REAL = "#1a1a1a"
SEEN = "#e9ecef"
GREY = "#6c757d"
MAX_PANELS = 11
"""Numbers of one strip besides the reward: those that vary most."""
COLUMNS = 3
FILM_COLUMNS = 10
DPI = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What a strip is drawn from."""

    title: str
    reports: list[DreamReport]
    """One, or two of the same stretch."""
    policy_acts: bool
    env_step: str
    """What one Step is, for the axis: `agent step = 4 frames`."""


def draw_strip(picture: Picture) -> Figure:
    """Numbers as panels (real line, dreamed band), images as rows (real, dreamed, error).

    If the policy acts, images stand alone: what is recorded followed other actions.
    """
    examples = [report.examples[0] for report in picture.reports]
    films, bands = examples[0].images, _panels(examples)
    of_each = len(examples) if picture.policy_acts else 1 + 2 * len(examples)
    film_rows = of_each * len(films)
    panel_rows = -(-len(bands[0]) // COLUMNS)
    figure = new_figure(10.5, 1.15 + 1.05 * film_rows + 1.75 * panel_rows)
    grid = figure.add_gridspec(
        film_rows + panel_rows, COLUMNS, height_ratios=[1.05] * film_rows + [1.75] * panel_rows
    )
    row = 0
    for place in range(len(films)):
        shown = [example.images[place] for example in examples]
        row = _draw_film(figure, grid, row, shown, picture)
    for place in range(len(bands[0])):
        axes = figure.add_subplot(grid[row + place // COLUMNS, place % COLUMNS], label="panel")
        _draw_band(axes, [each[place] for each in bands], picture)
        if place >= len(bands[0]) - COLUMNS:
            axes.set_xlabel(f"since eyes closed ({picture.env_step})", fontsize=8)
    _legend(figure, picture)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out; whoever renders it need not do so again
    return figure


def save_error(path: Path, picture: Picture) -> None:
    """Error against horizon of each checkpoint, beside two that do not dream at all."""
    figure = new_figure(7.5, 4.4)
    axes = figure.add_subplot()
    horizon = np.arange(1, len(picture.reports[0].model_error) + 1)
    axes.axhline(1.0, color=GREY, linewidth=1, linestyle=":")
    axes.text(
        horizon[-1], 1.02, "predicts the mean", ha="right", va="bottom", color=GREY, fontsize=8
    )
    repeat = picture.reports[0].repeat_error
    axes.plot(horizon, repeat, color=GREY, linewidth=1.2, label="repeats what was seen last")
    top = min(2.0, max(1.25, 1.05 * float(repeat.max())))
    for report, color, style in zip(picture.reports, COLORS, STYLES, strict=False):
        parting = report.parting_step
        parted = "never parts" if parting is None else f"parts at step {parting}"
        label = f"update {report.update:,}: {parted}"
        axes.plot(
            horizon, report.model_error, color=color, linestyle=style, linewidth=2, label=label
        )
        if report.parting_step is not None:
            at = report.parting_step
            axes.plot(at, report.model_error[at - 1], "o", color=color, markersize=7)
        top = max(top, float(report.model_error.max()) * 1.08)
    axes.axhline(PARTING_ERROR, color=GREY, linewidth=0.8, linestyle=(0, (1, 3)))
    axes.text(horizon[-1], PARTING_ERROR + 0.02, "parting", ha="right", va="bottom", color=GREY,
              fontsize=8)  # fmt: skip
    axes.set(
        xlabel=f"dreamed steps ({picture.env_step})", xlim=(1, max(2, horizon[-1])),
        ylabel="error / variance of the data", ylim=(0, min(top, 3.0)),
    )  # fmt: skip
    axes.set_title(
        f"{picture.title} (starts: {picture.reports[0].starts})", fontsize=10, loc="left"
    )
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8.5)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=DPI)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty Figure that needs no display; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _panels(examples: Sequence[Example]) -> list[list[Band]]:
    """Of each example the same bands: those that vary most, in order, then the reward."""
    vectors = examples[0].vectors
    spread = np.array([float(np.ptp(band.real)) / _scale(band) for band in vectors])
    kept = sorted(np.argsort(-spread, kind="stable")[:MAX_PANELS].tolist())
    ends = any((example.continues.real < 1).any() for example in examples)
    return [
        [*(example.vectors[place] for place in kept), example.reward,
         *([example.continues] if ends else [])]
        for example in examples
    ]  # fmt: skip


def _scale(band: Band) -> float:
    return float(np.abs(band.real).max()) or 1.0


def _draw_band(axes: Axes, bands: Sequence[Band], picture: Picture) -> None:
    """One number: x is 0 at the last Step seen."""
    report = picture.reports[0]
    context = report.context_steps
    time = np.arange(len(bands[0].real)) - context + 1
    axes.axvspan(time[0], 0, color=SEEN, linewidth=0)
    for band, color, style in zip(bands, COLORS, STYLES, strict=False):
        part = slice(context - 1, None)
        axes.fill_between(
            time[part], band.low[part], band.high[part], color=color, alpha=0.22, linewidth=0
        )
        axes.plot(time, band.mean, color=color, linestyle=style, linewidth=1.6)
    seen, later = slice(0, context), slice(context - 1, None)
    axes.plot(time[seen], bands[0].real[seen], color=REAL, linewidth=1.3)
    color, style = (GREY, ":") if picture.policy_acts else (REAL, "-")
    axes.plot(time[later], bands[0].real[later], color=color, linestyle=style, linewidth=1.3)
    if report.parting_step is not None and report.parting_step < time[-1]:
        axes.axvline(report.parting_step, color=COLORS[0], linewidth=1, linestyle=":")
    lines = [line for band in bands for line in (band.real, band.mean, band.low, band.high)]
    low, high = min(line.min() for line in lines), max(line.max() for line in lines)
    margin = 0.08 * (high - low) or 0.5
    axes.set(xlim=(time[0], time[-1]), ylim=(low - margin, high + margin))
    axes.set_title(bands[0].name, fontsize=9, loc="left", pad=3)
    axes.tick_params(labelsize=7.5)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_film(
    figure: Figure, grid: GridSpec, row: int, films: Sequence[Film], picture: Picture
) -> int:
    """Rows of pictures at equal distances in time; returns the row after them."""
    report = picture.reports[0]
    context, steps = report.context_steps, len(films[0].real)
    places = np.unique(np.linspace(context - 1, steps - 1, FILM_COLUMNS).round().astype(int))
    compared = not picture.policy_acts
    rows = [("real", films[0].real, REAL)] if compared else []
    for film, each, color in zip(films, picture.reports, COLORS, strict=False):
        name = "dreamed" if len(films) == 1 else f"update {each.update:,}"
        rows += [(name, film.dreamed, color)]
        rows += [("error", distance(film), color)] if compared else []
    rows[0] = (f"{films[0].name}\n{rows[0][0]}", *rows[0][1:])
    for name, pixels, color in rows:
        axes = figure.add_subplot(grid[row, :])
        axes.imshow(_side_by_side(pixels[places]), cmap="gray", vmin=0, vmax=255,
                    interpolation="nearest")  # fmt: skip
        axes.set_ylabel(name, color=color, fontsize=9, rotation=0, ha="right", va="center")
        width = films[0].real.shape[2] + GAP_PIXELS
        ticks = [width * i + (width - GAP_PIXELS) / 2 for i in range(len(places))]
        labels = [_when(int(place) - context + 1) for place in places]
        axes.set_xticks(ticks, labels if name == rows[0][0] else [""] * len(ticks), fontsize=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        row += 1
    return row


GAP_PIXELS = 2


def distance(film: Film) -> NDArray[np.uint8]:
    """How far each pixel is off, uint8 [T, H, W, 1]; white is all the way."""
    off = np.abs(film.real.astype(np.int16) - film.dreamed)
    return np.asarray(off.max(-1, keepdims=True), np.uint8)


def _side_by_side(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, H, W, C] -> one image, white between them."""
    gap = np.full((images.shape[1], GAP_PIXELS, images.shape[3]), 255, np.uint8)
    pieces = [piece for image in images for piece in (image, gap)][:-1]
    return np.concatenate(pieces, 1)


def _when(step: int) -> str:
    return "last seen" if step == 0 else f"+{step}"


def _legend(figure: Figure, picture: Picture) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    real = "recorded" + (" (dotted: other actions than dreamed)" if picture.policy_acts else "")
    handles: list[Line2D | Patch] = [
        Patch(color=SEEN, label="eyes open"),
        Line2D([], [], color=REAL, label=real),
    ]
    acted = "the policy's actions" if picture.policy_acts else "the recorded actions"
    for report, color, style in zip(picture.reports, COLORS, STYLES, strict=False):
        handles.append(
            Line2D([], [], color=color, linestyle=style, linewidth=2,
                   label=f"update {report.update:,} dreams {acted} (80 % band)")
        )  # fmt: skip
    if picture.reports[0].parting_step is not None:
        label = f"parting (starts: {picture.reports[0].starts})"
        handles.append(Line2D([], [], color=COLORS[0], linewidth=1, linestyle=":", label=label))
    figure.suptitle(picture.title, fontsize=11, x=0.01, ha="left")
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=8.5)
