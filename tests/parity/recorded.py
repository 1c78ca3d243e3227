"""What `theirs.py` wrote: their batch, weights, draws and results."""

from __future__ import annotations

import numpy as np
import torch

from learner.batch import Batch
from system.config import ModelConfig
from system.models.dynamics import Latent
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.parity import theirs
from tests.parity.draws import Draws, noise_for
from tests.parity.theirs import ACTION, IMAGES, VECTORS, B, T

MODEL = ModelConfig(size="1m", deter=512, hidden=64, classes=4, units=64)
NAMES = sorted(VECTORS)


class Recorded:
    """Their numbers, read from a folder."""

    def __init__(self, folder):
        self.batch = dict(np.load(folder / "batch.npz"))
        self.before = [dict(np.load(folder / "weights.npz"))]
        self.updates = [dict(np.load(folder / f"update{i}.npz")) for i in range(theirs.UPDATES)]
        self.before += [below(update, "after/") for update in self.updates]
        self.seen = [name for name in (*NAMES, *IMAGES) if name in self.batch]

    @property
    def spec(self):
        specs = {name: ArraySpec(shape=shape) for name, shape in VECTORS.items()}
        specs |= {k: ArraySpec(shape=shape, dtype="uint8") for k, shape in IMAGES.items()
                  if k in self.seen}  # fmt: skip
        action = ActionSpec(kind="continuous", size=ACTION)
        return EnvSpec(name="walker", observation=specs, action=action)

    def our_batch(self):
        """Theirs has one context Step in front."""
        now = {name: torch.from_numpy(array[:, 1:]) for name, array in self.batch.items()}
        context = (torch.from_numpy(self.batch[f"dyn/{part}"][:, 0]) for part in Latent._fields)
        return Batch(
            observation={name: now[name] for name in self.seen},
            action=now["action"],
            previous_action=torch.from_numpy(self.batch["action"][:, :-1]),
            reward=now["reward"],
            is_first=now["is_first"],
            is_last=now["is_last"],
            is_terminal=now["is_terminal"],
            context=Latent(*context),
            ordinals=np.arange(B * T).reshape(B, T),
        )

    def draws(self, update):
        """The noise with which we draw what they drew."""
        numbers = {name: torch.from_numpy(array) for name, array in self.updates[update].items()}

        def noise(name, start=0):
            logits, drawn = (numbers[f"{name}/{part}"][:, start:] for part in ("logit", "stoch"))
            return noise_for(logits, drawn, MODEL.unimix)

        imagined = {name: numbers[f"imagined/{name}"] for name in ("action", "mean", "std")}
        eps = (imagined["action"] - imagined["mean"]) / imagined["std"]
        return Draws(noise("posterior"), noise("dream", 1), eps)


def below(arrays, prefix):
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
