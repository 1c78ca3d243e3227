"""Screenshots of the page, light and dark, on a phone, a desk and a wall.

::

    python -m tests.browser.screenshots OUT                     # a made-up run that rests
    python -m tests.browser.screenshots OUT --url 'http://127.0.0.1:8700/?token=...'

`docs/images` has two of them: `--height 1660` of `make demo` on its way.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from PIL import Image

from deploy.dashboard.folders import FolderRuns
from deploy.dashboard.server import PageServer
from system.clock import SystemClock
from tests.browser.chromium import Chromium
from tests.browser.rested import write_run

SIZES = ((390, 844), (1440, 900), (2560, 1440))
DRAWN = (
    "document.querySelector('#link').dataset.link !== 'waiting'"
    " && document.querySelectorAll('#multiples canvas').length > 0"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", help="with the token, as train prints it")
    parser.add_argument("--height", type=int, help="cut below so many pixels")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chromium = stack.enter_context(Chromium(folder))
        url = arguments.url or made_up(folder, stack)
        for theme in ("light", "dark"):
            page = chromium.open(url, theme=theme)
            page.until(DRAWN, "showed a dream")
            for width, height in SIZES:
                page.resize(width, height)
                settle(page)
                path = arguments.out / f"{theme}-{width}.png"
                page.screenshot(path)
                shrink(path, arguments.height)
                print(path, path.stat().st_size, "bytes")
            page.close()


def made_up(folder, stack):
    """URL of a run without a fleet."""
    write_run(folder)
    server = PageServer(FolderRuns(folder), SystemClock(), port=0)
    stack.callback(server.close)
    return server.url


def settle(page):
    """Charts follow a new size a frame later, bars within their transition."""
    page.evaluate(
        "new Promise((quiet) => setTimeout(() => requestAnimationFrame(() => quiet(true)), 900))"
    )


def shrink(path, height):
    """Cuts, and keeps 256 colours: a page has no more."""
    with Image.open(path) as image:
        shown = image.convert("RGB").crop((0, 0, image.width, height or image.height))
    shown.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


if __name__ == "__main__":
    main()
