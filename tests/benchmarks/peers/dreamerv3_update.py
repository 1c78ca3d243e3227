"""danijar/dreamerv3 (JAX): its own agent, its own `train`. Runs in the environment of `compare`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import turns


def main():
    options, answers = arguments(), turns.stdout_for_answers()
    os.environ["XLA_FLAGS"] = options.xla_flags
    sys.path.insert(0, options.checkout)
    import elements
    import jax
    import numpy as np
    import ruamel.yaml

    jax.devices()  # now, so that the flags above are those which count
    from dreamerv3.agent import Agent

    text = Path(options.checkout, "dreamerv3", "configs.yaml").read_text()
    presets = ruamel.yaml.YAML(typ="safe").load(text)
    config = elements.Config(presets["defaults"]).update(presets["size1m"])
    agent = Agent(
        {
            "height": elements.Space(np.float32, ()),
            "orientations": elements.Space(np.float32, (14,)),
            "velocity": elements.Space(np.float32, (9,)),
            "reward": elements.Space(np.float32, ()),
            **{name: elements.Space(bool) for name in ("is_first", "is_last", "is_terminal")},
        },
        {"action": elements.Space(np.float32, (6,), -1, 1)},
        elements.Config(
            **config.agent,
            logdir=tempfile.mkdtemp(),
            seed=0,
            jax={
                "platform": "cpu",
                "compute_dtype": options.dtype,
                "prealloc": False,
                "profiler": False,
                "precompile": False,
            },
            batch_size=options.batch_size,
            batch_length=options.batch_length,
            replay_context=config.replay_context,
            report_length=config.report_length,
            replica=0,
            replicas=1,
        ),
    )
    batch = random_batch(agent.spaces, options.batch_size, options.batch_length + 1)
    batch = jax.device_put(batch, agent.train_sharded)
    carry = agent.init_train(options.batch_size)
    seed = agent._seeds(0, agent.train_mirrored)

    def update():
        nonlocal carry
        carry, _, _ = agent.train(carry, {**batch, "seed": seed})
        jax.block_until_ready((agent.params, carry))

    facts = {"jax": jax.__version__, "parameters": trained_parameters(agent)}
    turns.take(answers, update, facts)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkout", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--batch-length", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--xla-flags", default="")
    return parser.parse_args()


def random_batch(spaces, batch, time):
    """Of every space the agent reads; actions within their bounds, one-hot latents."""
    import numpy as np

    random = np.random.default_rng(0)
    data = {}
    for name, space in spaces.items():
        shape = (batch, time, *space.shape)
        if space.dtype == np.float32:
            data[name] = np.clip(random.normal(size=shape), -1, 1).astype(np.float32)
        else:
            data[name] = np.zeros(shape, space.dtype)
    classes = spaces["dyn/stoch"].shape[-1]
    index = random.integers(classes, size=data["dyn/stoch"].shape[:-1])
    data["dyn/stoch"] = np.eye(classes, dtype=np.float32)[index]
    data["is_first"] = random.random((batch, time)) < 0.01
    return data


def trained_parameters(agent):
    """Number of parameters the optimizer moves."""
    modules = ("enc/", "dyn/", "dec/", "rew/", "con/", "pol/", "val/")
    return sum(v.size for k, v in agent.params.items() if k.startswith(modules))


if __name__ == "__main__":
    main()
