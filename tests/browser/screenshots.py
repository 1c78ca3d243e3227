"""Screenshots of the page, light and dark, on a phone, a desk and a wall.

::

    python -m tests.browser.screenshots OUT --url 'http://127.0.0.1:8700/?token=...'
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.browser.chromium import Chromium

SIZES = ((390, 844), (1440, 900), (2560, 1440))
DRAWN = (
    "document.querySelector('#link').dataset.link !== 'waiting'"
    " && (!document.querySelector('#film').hidden"
    " || document.querySelectorAll('#multiples canvas').length > 0)"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", required=True, help="with the token, as train prints it")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder)) as chromium:
        for theme in ("light", "dark"):
            page = chromium.open(arguments.url, theme=theme)
            page.until(DRAWN, "showed a dream")
            for width, height in SIZES:
                page.resize(width, height)
                settle(page)
                path = arguments.out / f"{theme}-{width}.png"
                page.screenshot(path)
                print(path, path.stat().st_size, "bytes")
            page.close()


def settle(page):
    """Charts follow a new size a frame later, bars within their transition."""
    page.evaluate(
        "new Promise((quiet) => setTimeout(() => requestAnimationFrame(() => quiet(true)), 900))"
    )


if __name__ == "__main__":
    main()
