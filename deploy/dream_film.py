"""Dreams that move: a GIF, and an MP4 with the extra `[video]`.

Images are shown side by side, enlarged; numbers as the strip that is drawn while time goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deploy.dream_strip import COLORS, REAL, Picture, distance
from system.dream import Film
from system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Frame = NDArray[np.uint8]
"""One picture, uint8 [H, W, 3]."""

FRAME_S = 0.12
LAST_FRAME_S = 1.2
SIDE_PIXELS = 224
"""An image is enlarged to at least so much, by a whole number."""
EDGE = 8
CAPTION = 18
FILM_DPI = 100
CURSOR = (173, 181, 189)


def frames_of(picture: Picture, strip: Figure) -> list[Frame]:
    """The film of one example, a Frame for each Step; `strip` as `draw_strip` made it."""
    films = picture.reports[0].examples[0].images
    return list(_image_frames(picture) if films else _strip_frames(picture, strip))


def save_gif(path: Path, frames: Sequence[Frame]) -> None:
    """Endless, with a rest at the end."""
    # One palette for all: else the colors flicker.
    some = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])
    palette = Image.fromarray(some).quantize(256, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    ]
    pauses = [round(1000 * FRAME_S)] * (len(frames) - 1) + [round(1000 * LAST_FRAME_S)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=pauses, loop=0)


def check_video() -> None:
    """Raises UserError if the extra `[video]` is not installed."""
    if importlib.util.find_spec("av") is None:
        raise UserError(
            "film.mp4 needs PyAV; install it with: pip install 'dreamfleet[video]', or leave out "
            "--video"
        )


def save_mp4(path: Path, frames: Sequence[Frame]) -> None:
    """H.264, at the pace of the GIF; see `check_video`."""
    av = importlib.import_module("av")
    rest = [frames[-1]] * round(LAST_FRAME_S / FRAME_S)
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=round(1 / FRAME_S))
        # The codec wants even sides.
        stream.height, stream.width = (side // 2 * 2 for side in frames[0].shape[:2])
        stream.pix_fmt = "yuv420p"
        for frame in [*frames, *rest]:
            image = np.ascontiguousarray(frame[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _image_frames(picture: Picture) -> Iterator[Frame]:
    """Rows: the images of the environment; columns: real, dreamed, error (of each checkpoint).

    If the policy acts, only what is dreamed.
    """
    context = picture.reports[0].context_steps
    examples = [report.examples[0] for report in picture.reports]
    for step in range(examples[0].steps):
        rows = []
        for place in range(len(examples[0].images)):
            films = [example.images[place] for example in examples]
            # What was recorded followed other actions than the policy's: nothing to compare.
            cells = [] if picture.policy_acts else [_cell(films[0].real[step], "real", REAL)]
            for film, report, color in zip(films, picture.reports, COLORS, strict=False):
                name = "dreamed" if len(films) == 1 else f"update {report.update:,}"
                cells.append(_cell(film.dreamed[step], name, color))
                if not picture.policy_acts:
                    cells.append(_cell(_error(film, step), "error", color))
            rows.append(np.concatenate(cells, 1))
        width = max(row.shape[1] for row in rows)
        frame = np.concatenate([_widened(row, width) for row in rows], 0)
        ahead = step - context + 1
        text = "eyes open" if ahead <= 0 else f"dreaming, step {ahead}"
        yield _captioned(frame, text, REAL if ahead <= 0 else COLORS[0])


def _error(film: Film, step: int) -> NDArray[np.uint8]:
    part = Film(
        name=film.name, real=film.real[step : step + 1], dreamed=film.dreamed[step : step + 1]
    )
    off: NDArray[np.uint8] = distance(part)[0]
    return off


def _cell(pixels: NDArray[np.uint8], name: str, color: str) -> Frame:
    """An image [H, W, 1 or 3], enlarged, with its name above it."""
    times = max(1, -(-SIDE_PIXELS // max(pixels.shape[:2])))
    colored = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    large = colored.repeat(times, 0).repeat(times, 1)
    height, width = large.shape[:2]
    cell = Image.new("RGB", (width + 2 * EDGE, height + CAPTION + EDGE), "white")
    cell.paste(Image.fromarray(large), (EDGE, CAPTION))
    ImageDraw.Draw(cell).text((EDGE, 3), name, fill=color)
    return np.asarray(cell, np.uint8)


def _widened(row: Frame, width: int) -> Frame:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)


def _captioned(frame: Frame, text: str, color: str) -> Frame:
    whole = Image.new("RGB", (frame.shape[1], frame.shape[0] + CAPTION), "white")
    whole.paste(Image.fromarray(frame), (0, 0))
    ImageDraw.Draw(whole).text((EDGE, frame.shape[0]), text, fill=color)
    return np.asarray(whole, np.uint8)


def _strip_frames(picture: Picture, strip: Figure) -> Iterator[Frame]:
    """The strip, uncovered from left to right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    strip.set_dpi(FILM_DPI)
    canvas = FigureCanvasAgg(strip)
    canvas.draw()
    whole = np.asarray(canvas.buffer_rgba(), np.uint8)[..., :3]
    panels = [axes for axes in strip.axes if axes.get_label() == "panel"]
    example = picture.reports[0].examples[0]
    for ahead in range(example.steps - picture.reports[0].context_steps + 1):
        frame = whole.copy()
        for axes in panels:
            left, bottom, right, top = (round(edge) for edge in axes.bbox.extents)
            now = max(left, min(round(axes.transData.transform((ahead, 0.0))[0]), right))
            rows = slice(len(frame) - top, len(frame) - bottom - 1)
            frame[rows, now + 1 : right + 1] = 255
            frame[rows, now - 1 : now + 1] = CURSOR
        yield frame
