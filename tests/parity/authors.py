"""Our numbers beside the authors': the same weights, the same batch, the same draws, float32.

Run by hand::

    python -m tests.parity.authors --checkout PATH [--pixels] [--python PYTHON] [--folder DIR]

PATH is a checkout of danijar/dreamerv3, PYTHON an interpreter that has what it needs (without it,
`tests.benchmarks.peers.environments` makes one). Their agent (size1m, vectors of walker walk;
`--pixels`: a 64x64 image too) does three updates on one batch with its own draws (`theirs.py`); our
code is then given their weights before each update and what they drew, and every intermediate
result is compared. It prints a table of max |ours - theirs| / max |theirs|, for the fused kernels
and for the plain code.

With `--folder` that holds their numbers already, they are not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch

from system.models import kernels
from tests.benchmarks.peers.environments import environment
from tests.parity.recorded import Recorded
from tests.parity.results import compare
from tests.parity.theirs import UPDATES


def main():
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        if not (folder / f"update{UPDATES - 1}.npz").exists():
            folder.mkdir(parents=True, exist_ok=True)
            python = options.python or environment("dreamerv3", options.cache)
            script = Path(__file__).with_name("theirs.py")
            pixels = ["pixels"] if options.pixels else []
            subprocess.run([python, script, options.checkout, folder, *pixels], check=True)
        theirs = Recorded(folder)
        found = {}
        for path in ("fused", "plain"):
            with nullcontext() if path == "fused" else kernels.switched_off():
                found[path] = compare(theirs)
    report(found)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkout", help="of danijar/dreamerv3")
    parser.add_argument("--pixels", action="store_true", help="a 64x64 image beside the vectors")
    parser.add_argument("--python", type=Path, help="interpreter with its dependencies")
    parser.add_argument("--cache", type=Path, default=Path("build/peers"))
    parser.add_argument("--folder", type=Path, help="keeps their numbers, or has them already")
    options = parser.parse_args()
    if not (options.checkout or options.folder):
        parser.error("--checkout PATH (danijar/dreamerv3) or --folder DIR with its numbers")
    return options


def report(found):
    print(f"| max abs difference / max abs value | {' | '.join(found)} |")
    print("|---|" + "---|" * len(found))
    for name in next(iter(found.values())):
        print(f"| {name} | {' | '.join(f'{each[name]:.1e}' for each in found.values())} |")


if __name__ == "__main__":
    main()
