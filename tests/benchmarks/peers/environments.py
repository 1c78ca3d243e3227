"""A virtual environment for each peer, from the package registries, kept in a cache folder.

::

    environment("sheeprl", Path("build/peers"))     # -> its interpreter; made if it is not there
"""

from __future__ import annotations

import hashlib
import subprocess
import venv
from pathlib import Path

TORCH = "torch==2.13.0"
"""The same as ours (`constraints.txt`)."""
PACKAGES = {
    "dreamerv3": [
        "jax[cpu]==0.4.33", "numpy<2", "chex", "einops", "elements>=3.19.1", "granular>=0.20.3",
        "jaxtyping", "ninjax>=3.5.1", "optax", "portal>=3.5.0", "ruamel.yaml", "scope>=0.4.4",
    ],
    "r2dreamer": [TORCH, "torchrl", "tensordict", "omegaconf", "tensorboard", "setuptools"],
    "sheeprl": [TORCH, "sheeprl==0.8.4"],
}  # fmt: skip
"""Of danijar/dreamerv3 and NM512/r2dreamer: what their code imports, without simulators."""


def environment(name: str, cache: Path) -> Path:
    """The interpreter of this peer's environment. The first call installs it, which takes minutes.

    Raises:
      CalledProcessError: pip could not install it; it has said why.
    """
    packages = PACKAGES[name]
    digest = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]
    folder = cache.absolute() / f"{name}-{digest}"
    python, finished = folder / "bin" / "python", folder / "installed"
    if not finished.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        finished.touch()
    return python
