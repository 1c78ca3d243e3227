"""NM512/r2dreamer (PyTorch), with its decoder (`rep_loss=dreamer`): its own `Dreamer.update`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

import turns

SIZE_1M = {"deter": 512, "hidden": 64, "discrete": 4, "depth": 4, "units": 64}
SHAPES = {"height": (1,), "orientations": (14,), "velocity": (9,)}
ACTION = 6


def main():
    options, answers = arguments(), turns.stdout_for_answers()
    sys.path.insert(0, options.checkout)
    import torch
    from omegaconf import OmegaConf

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    import dreamer
    import numpy as np

    if options.dtype == "float32":  # its `update` asks for float16 whatever the device
        dreamer.autocast = lambda **_: contextlib.nullcontext()
    folder = Path(options.checkout, "configs")
    base = OmegaConf.load(folder / "model" / "_base_.yaml")
    base.update({**SIZE_1M, "act": "SiLU", "norm": True, "rep_loss": "dreamer"})
    base.compile = options.compile
    everything = OmegaConf.create({"device": "cpu", "seed": 0, "model": base})
    everything.env = OmegaConf.load(folder / "env" / "dmc_proprio.yaml")
    OmegaConf.resolve(everything)
    spaces = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    agent = dreamer.Dreamer(
        everything.model, SimpleNamespace(spaces=spaces), np.zeros(ACTION, np.float32)
    )
    replay = OneBatch(options.batch_size, options.batch_length)
    trained = sum(parameter.numel() for parameter in agent._named_params.values())
    facts = {"torch": torch.__version__, "compiled": options.compile, "parameters": trained}
    turns.take(answers, lambda: agent.update(replay), facts)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--batch-length", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


class OneBatch:
    """What `Dreamer.update` asks of a replay: always the same random batch."""

    def __init__(self, batch, time):
        import torch
        from tensordict import TensorDict

        none = torch.zeros(batch, time, 1, dtype=torch.bool)
        self._data = TensorDict(
            {
                **{name: torch.randn(batch, time, *shape) for name, shape in SHAPES.items()},
                "action": torch.rand(batch, time, ACTION) * 2 - 1,
                "reward": torch.randn(batch, time, 1),
                "is_first": torch.rand(batch, time, 1) < 0.01,
                "is_last": none,
                "is_terminal": none,
            },
            batch_size=(batch, time),
        )
        index = torch.randint(SIZE_1M["discrete"], (batch, 32))
        stoch = torch.nn.functional.one_hot(index, SIZE_1M["discrete"]).float()
        self._initial = (stoch, torch.randn(batch, SIZE_1M["deter"]) / 2)

    def sample(self):
        return self._data.clone(), None, self._initial

    def update(self, index, stoch, deter):
        """Fresh posteriors: nobody keeps them here."""


if __name__ == "__main__":
    main()
