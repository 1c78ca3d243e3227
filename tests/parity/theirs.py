"""The authors' numbers: their agent on a given batch and given weights, written to a file.

Runs in the environment of danijar/dreamerv3 (`tests.parity.authors` starts it)::

    python theirs.py CHECKOUT FOLDER [pixels]

It writes `weights.npz`, `batch.npz` and, for each of three updates, `update0.npz` ...: what was
drawn, every intermediate result, the gradients, and the weights after the step.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

B, T = 4, 12  # T differs from the 16 features of a dream: `capture` tells them apart by it
UPDATES = 3
LEARNING_RATE, WARMUP = 1e-3, 2
TRAINED = re.compile("^(enc|dyn|dec|rew|con|pol|val)/")
VECTORS = {"height": (), "orientations": (14,), "velocity": (9,)}
IMAGES = {"image": (64, 64, 3)}
ACTION = 6


def main(checkout, folder, pixels):
    sys.path.insert(0, checkout)
    import jax
    import ninjax
    import numpy as np

    agent = make_agent(checkout, pixels)
    jax.config.update("jax_transfer_guard", "allow")
    params = outspoken({k: np.asarray(v) for k, v in agent.params.items()})
    batch = random_batch(agent.spaces)
    np.savez(folder / "weights.npz", **params)
    np.savez(folder / "batch.npz", **batch)

    captured, gradients = capture(agent.model), capture_gradients(agent.model.opt)

    def step(data):
        model = agent.model
        carry, obs, prevact, _ = model._apply_replay_context(model.init_train(B), data)

        def loss(*args, **kwargs):
            captured.clear()
            loss, (_, _, outs, _) = model.loss(*args, **kwargs)
            return loss, {**captured, **outs}

        metrics, found = model.opt(loss, carry, obs, prevact, training=True, has_aux=True)
        model.slowval.update()
        return {"total": metrics["opt/loss"], "gradient": dict(gradients), **found}

    step = jax.jit(ninjax.pure(step))
    for update in range(UPDATES):
        seed = np.array([0, update], np.uint32)
        params, found = step(params, batch, seed=seed)
        after = {f"after/{k}": v for k, v in params.items() if not k.startswith("opt/")}
        np.savez(folder / f"update{update}.npz", **flat(found), **after)


def make_agent(checkout, pixels):
    import elements
    import numpy as np
    import ruamel.yaml
    from dreamerv3.agent import Agent

    text = Path(checkout, "dreamerv3", "configs.yaml").read_text()
    presets = ruamel.yaml.YAML(typ="safe").load(text)
    config = elements.Config(presets["defaults"]).update(presets["size1m"])
    config = config.update({"agent.opt.lr": LEARNING_RATE, "agent.opt.warmup": WARMUP})
    spaces = {name: elements.Space(np.float32, shape) for name, shape in VECTORS.items()}
    if pixels:
        spaces |= {name: elements.Space(np.uint8, shape) for name, shape in IMAGES.items()}
    spaces["reward"] = elements.Space(np.float32, ())
    spaces |= {name: elements.Space(bool) for name in ("is_first", "is_last", "is_terminal")}
    settings = {
        "platform": "cpu", "compute_dtype": "float32", "prealloc": False, "profiler": False,
        "precompile": False, "debug": True,  # compiles in a third of the time
    }  # fmt: skip
    return Agent(
        spaces,
        {"action": elements.Space(np.float32, (ACTION,), -1, 1)},
        elements.Config(
            **config.agent, logdir=tempfile.mkdtemp(), seed=0, jax=settings, batch_size=B,
            batch_length=T, replay_context=config.replay_context,
            report_length=config.report_length, replica=0, replicas=1,
        ),
    )  # fmt: skip


def outspoken(params):
    """Off their initial values, so that biases, norm scales and zero heads count too."""
    import numpy as np

    random = np.random.default_rng(0)
    for name in sorted(params):
        if TRAINED.match(name):
            noise = random.normal(size=params[name].shape).astype(np.float32)
            params[name] = params[name] + 0.1 * noise * (1.0 if "kernel" not in name else 0.3)
    for head in ("rew", "val"):
        # Two-hot heads that say moderate numbers: logits fall faster than the bins grow, but not to
        # where squared gradients leave float32 (XLA flushes denormal numbers, torch does not).
        away = np.abs(np.arange(255) - 127.0)
        weights = random.normal(size=params[f"{head}/head/logits/kernel"].shape)
        params[f"{head}/head/logits/kernel"] = np.float32(weights * (away < 20) * 0.3)
        params[f"{head}/head/logits/bias"] = np.float32(-0.2 * away)
    for name in [name for name in params if name.startswith("val/")]:
        noise = random.normal(size=params[name].shape).astype(np.float32)
        params["slow" + name] = params[name] + 0.01 * noise
    params["retnorm/lo/value"], params["retnorm/hi/value"] = np.float32(-7.0), np.float32(3.0)
    return params


def random_batch(spaces):
    """One context Step and T more, with episodes that end, are cut, and begin."""
    import numpy as np

    random = np.random.default_rng(1)
    data = {}
    for name, space in spaces.items():
        shape = (B, T + 1, *space.shape)
        if space.dtype == np.float32:
            data[name] = random.normal(size=shape).astype(np.float32)
        else:
            most = 256 if name in IMAGES else 1
            data[name] = random.integers(most, size=shape).astype(space.dtype)
    classes = spaces["dyn/stoch"].shape[-1]
    index = random.integers(classes, size=data["dyn/stoch"].shape[:-1])
    data["dyn/stoch"] = np.eye(classes, dtype=np.float32)[index]
    data["dyn/deter"] = np.tanh(data["dyn/deter"])
    data["velocity"] *= 10
    data["reward"] *= 3
    data["is_first"] = random.random((B, T + 1)) < 0.1
    data["is_last"][:, :-1] = data["is_first"][:, 1:]
    data["is_terminal"] = data["is_last"] & (random.random((B, T + 1)) < 0.5)
    return data


def capture(model):
    """A dict that fills while the loss runs, with what it does not return."""
    import dreamerv3.agent as module

    found = {}
    to_tensor, imagination_loss, replay_loss = (
        model.feat2tensor, module.imag_loss, module.repl_loss
    )  # fmt: skip

    def feat2tensor(feat):
        if feat["deter"].ndim == 3:  # not inside the scan of the dream
            found["dream" if feat["deter"].shape[1] != T else "posterior"] = dict(feat)
        return to_tensor(feat)

    def imag_loss(act, rew, con, policy, value, slowvalue, *args, **kwargs):
        losses, outs, metrics = imagination_loss(
            act, rew, con, policy, value, slowvalue, *args, **kwargs
        )
        normal = policy["action"].output
        found["imagined"] = {
            "action": act["action"], "mean": normal.mean, "std": normal.stddev, "reward": rew,
            "alive": con, "value": value.pred(), "slow": slowvalue.pred(), "return": outs["ret"],
            "policy": losses["policy"], "value_loss": losses["value"],
        }  # fmt: skip
        return losses, outs, metrics

    def repl_loss(*args, **kwargs):
        losses, outs, metrics = replay_loss(*args, **kwargs)
        found["replay"] = {"return": outs["ret"], **losses}
        return losses, outs, metrics

    model.feat2tensor, module.imag_loss, module.repl_loss = feat2tensor, imag_loss, repl_loss
    return found


def capture_gradients(optimizer):
    """A dict that fills while the optimizer runs, with what it is given."""
    found = {}
    inner = optimizer.opt

    def update(gradients, state, params):
        found.update(gradients)
        return inner.update(gradients, state, params)

    optimizer.opt = inner._replace(update=update)
    return found


def flat(tree, prefix=""):
    """Nested dicts -> one dict with a/b/c as names."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = value
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), pixels=sys.argv[3:] == ["pixels"])
