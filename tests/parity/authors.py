"""Our numbers beside the authors': the same weights, the same batch, the same draws, float32.

Run by hand::

    python -m tests.parity.authors --checkout PATH [--python PYTHON] [--folder DIR]

PATH is a checkout of danijar/dreamerv3, PYTHON an interpreter that has what it needs (without it,
`tests.benchmarks.peers.environments` makes one). Their agent (size1m, vectors of walker walk) does
three updates on one batch with its own random numbers (`theirs.py`); our code is then given their
weights before each update and what they drew, and every intermediate result is compared. It prints
a table of max |ours - theirs| / max |theirs|, for the fused kernels and for the plain code.

With `--folder` that holds their numbers already, they are not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from learner.batch import Batch
from learner.config import LearnerConfig
from learner.imagination import imagine
from learner.optimizer import LaProp
from learner.update import Learning
from system.config import ModelConfig
from system.models import kernels
from system.models.dynamics import Latent
from system.specs import ActionSpec, ArraySpec, EnvSpec
from tests.benchmarks.peers.environments import environment
from tests.parity.draws import Draws, noise_for
from tests.parity.theirs import ACTION, LEARNING_RATE, OBSERVATION, UPDATES, WARMUP, B, T
from tests.parity.weights import to_ours

SPEC = EnvSpec(
    name="walker",
    observation={name: ArraySpec(shape=shape) for name, shape in OBSERVATION.items()},
    action=ActionSpec(kind="continuous", size=ACTION),
)
MODEL = ModelConfig(size="1m", deter=512, hidden=64, classes=4, units=64)
NAMES = sorted(OBSERVATION)
H = 15
NO_CLIP = 1e9


def main():
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        if not (folder / f"update{UPDATES - 1}.npz").exists():
            folder.mkdir(parents=True, exist_ok=True)
            python = options.python or environment("dreamerv3", options.cache)
            script = Path(__file__).with_name("theirs.py")
            subprocess.run([python, script, options.checkout, folder], check=True)
        theirs = Theirs(folder)
        found = {}
        for path in ("fused", "plain"):
            with nullcontext() if path == "fused" else kernels.switched_off():
                found[path] = compare(theirs)
    report(found)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkout", help="of danijar/dreamerv3")
    parser.add_argument("--python", type=Path, help="interpreter with its dependencies")
    parser.add_argument("--cache", type=Path, default=Path("build/peers"))
    parser.add_argument("--folder", type=Path, help="keeps their numbers, or has them already")
    options = parser.parse_args()
    if not (options.checkout or options.folder):
        parser.error("--checkout PATH (danijar/dreamerv3) or --folder DIR with its numbers")
    return options


class Theirs:
    """What `theirs.py` wrote."""

    def __init__(self, folder):
        self.batch = dict(np.load(folder / "batch.npz"))
        self.before = [dict(np.load(folder / "weights.npz"))]
        self.updates = [dict(np.load(folder / f"update{i}.npz")) for i in range(UPDATES)]
        self.before += [below(update, "after/") for update in self.updates]

    def our_batch(self):
        """Theirs has one context Step in front."""
        now = {name: torch.from_numpy(array[:, 1:]) for name, array in self.batch.items()}
        context = (torch.from_numpy(self.batch[f"dyn/{part}"][:, 0]) for part in Latent._fields)
        return Batch(
            observation={name: now[name] for name in NAMES},
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


def learning_with(weights, clip):
    config = LearnerConfig(
        batch_size=B, batch_length=T, horizon=H, learning_rate=LEARNING_RATE,
        warmup_updates=WARMUP, clip=clip, device="cpu",
    )  # fmt: skip
    learning = Learning(config, MODEL, SPEC, torch.device("cpu"))
    state = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in weights.items()}
    learning.load_state_dict(state)
    return learning


def compare(theirs):
    """Largest relative difference of every result, over all updates."""
    found = {}

    def note(name, ours, wanted):
        found[name] = max(found.get(name, 0.0), difference(ours, wanted))

    for update in range(UPDATES):
        weights = to_ours(theirs.before[update], MODEL, NAMES)
        learning = learning_with(weights, NO_CLIP)
        intermediate(learning, theirs, update, note)
        whole_update(learning, theirs, update, note)
    optimizer(theirs, note)
    return found


def difference(ours, wanted):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    assert ours.shape == wanted.shape, (ours.shape, wanted.shape)
    return float(np.abs(ours - wanted).max() / np.abs(wanted).max())


def mixed(logits):
    """Their logits -> probabilities with the share of the uniform."""
    probs = torch.softmax(torch.from_numpy(logits), -1)
    return ((1 - MODEL.unimix) * probs + MODEL.unimix / MODEL.classes).numpy()


def intermediate(learning, theirs, update, note):
    """Everything between the batch and the losses."""
    wanted, batch, draws = theirs.updates[update], theirs.our_batch(), theirs.draws(update)
    observed = world(learning, wanted, batch, draws, note)
    start = Latent(*(torch.from_numpy(wanted[f"posterior/{part}"]) for part in Latent._fields))
    with draws.given():
        dream = imagine(learning.world_model, learning.behavior.policy, start.flatten_time(), H)
    dreamed(learning.world_model, wanted, dream, note)
    behavior = learning.behavior
    action = behavior.policy.distribution(dream.feature)
    note("policy: mean", action.mean, wanted["imagined/mean"])
    note("policy: standard deviation", action.std, wanted["imagined/std"])
    value, slow = (head.predict(dream.feature) for head in (behavior.value, behavior.slow_value))
    note("value", value.mean(), wanted["imagined/value"])
    note("slow value", slow.mean(), wanted["imagined/slow"])
    loss = behavior.loss(dream)
    note("lambda-return", loss.returns, wanted["imagined/return"])
    note("policy loss", loss.policy, wanted["imagined/policy"])
    note("value loss", loss.value, wanted["imagined/value_loss"])
    ours = np.array([behavior.scale.low.item(), behavior.scale.high.item()])
    moved = [wanted[f"after/retnorm/{name}/value"] for name in ("lo", "hi")]
    note("return percentiles, moving", ours, np.array(moved))
    worth = torch.from_numpy(wanted["imagined/return"][:, 0].reshape(B, T))
    replay = behavior.replay_loss(observed.latent.feature, batch, worth)
    note("replay value loss", replay, wanted["losses/repval"])


def world(learning, wanted, batch, draws, note):
    """Encoder, filter and the losses of the world model."""
    world_model = learning.world_model
    embedding = world_model.encoder.encode(batch.observation)
    note("encoder", embedding, wanted["tokens"])
    with draws.given():
        observed = world_model.dynamics.observe(
            batch.context, batch.previous_action, embedding, batch.is_first
        )
    note("posterior: deter", observed.latent.deter, wanted["posterior/deter"])
    note("posterior: stoch", observed.latent.stoch, wanted["posterior/stoch"])
    note("posterior: probabilities", observed.posterior.probs, mixed(wanted["posterior/logit"]))
    with draws.given():
        losses = learning.objective.loss(batch).losses
    reconstruction = sum(wanted[f"losses/{name}"] for name in NAMES)
    note("reconstruction loss", losses["reconstruction"], reconstruction)
    for ours, name in {"reward": "rew", "continue": "con", "dynamics": "dyn",
                       "representation": "rep"}.items():  # fmt: skip
        note(f"{ours} loss", losses[ours], wanted[f"losses/{name}"])
    return observed


def dreamed(world_model, wanted, dream, note):
    """Every step of the dream."""
    deter, stoch = dream.feature.split([MODEL.deter, MODEL.stoch * MODEL.classes], -1)
    note("dream: deter, 15 steps", deter, wanted["dream/deter"])
    note("dream: stoch", stoch.unflatten(-1, (MODEL.stoch, MODEL.classes)), wanted["dream/stoch"])
    prior = world_model.dynamics.prior(deter[:, 1]).probs
    note("dream: prior of the first step", prior, mixed(wanted["dream/logit"][:, 1]))
    note("dream: action", dream.action, wanted["imagined/action"])
    note("dream: reward", dream.reward, wanted["imagined/reward"])
    note("dream: continue", dream.alive, wanted["imagined/alive"])


def whole_update(learning, theirs, update, note):
    """`Learning.update`: the sum of all losses and its gradient."""
    wanted, draws = theirs.updates[update], theirs.draws(update)
    before = theirs.before[update]
    learning.behavior.scale.low.fill_(float(before["retnorm/lo/value"]))
    learning.behavior.scale.high.fill_(float(before["retnorm/hi/value"]))
    with draws.given():
        metrics = learning.update(theirs.our_batch()).metrics
    total = sum(learning._scale(name.removeprefix("loss/")) * loss.item()
                for name, loss in metrics.items() if name.startswith("loss/"))  # fmt: skip
    note("whole update: sum of losses", np.array(total), wanted["total"])
    ours = gradients_of(learning)
    gradient = to_ours(below(wanted, "gradient/"), MODEL, NAMES)
    assert ours.keys() == gradient.keys()
    apart = norm({name: ours[name] - gradient[name] for name in ours}) / norm(gradient)
    note("whole update: gradient, norm of the difference", np.array(1 + apart), np.array(1.0))
    worst = max(norm({0: ours[k] - gradient[k]}) / norm({0: gradient[k]}) for k in ours)
    note("-- of the worst tensor", np.array(1 + worst), np.array(1.0))


def gradients_of(learning):
    """What the step saw, from what it left behind: rms = 0.001 * g^2 and momentum = 0.1 * sign."""
    kept = learning.optimizer.tensors()
    flat = torch.sign(kept["momentum"]) * (kept["rms"].double() / 1e-3).sqrt()
    named = [(n, p) for n, p in learning.named_parameters() if p.requires_grad]
    parts = flat.split([parameter.numel() for _, parameter in named])
    return {name: part.view_as(parameter).numpy()
            for (name, parameter), part in zip(named, parts, strict=True)}  # fmt: skip


def norm(arrays):
    return float(np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays.values())))


def optimizer(theirs, note):
    """AGC and LaProp on their gradients: their tensors, and ours, where three are cut otherwise."""
    start, end = theirs.before[0], theirs.before[-1]
    gradients = [below(update, "gradient/") for update in theirs.updates]
    moved = {name: end[name] - start[name] for name in gradients[0]}
    parameters = {k: torch.nn.Parameter(torch.from_numpy(start[k].copy())) for k in moved}
    laprop = LaProp(
        parameters.values(), learning_rate=LEARNING_RATE, warmup_updates=WARMUP, clip=0.3
    )
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad.copy_(torch.from_numpy(gradient[name]))
        laprop.step()
    ours = {k: parameter.detach().numpy() - start[k] for k, parameter in parameters.items()}
    apart = norm({k: ours[k] - moved[k] for k in moved}) / norm(moved)
    note("three optimizer steps, their tensors", np.array(1 + apart), np.array(1.0))
    learning = learning_with(to_ours(start, MODEL, NAMES), 0.3)
    for gradient in gradients:
        for name, array in to_ours(gradient, MODEL, NAMES).items():
            learning.get_parameter(name).grad.copy_(torch.from_numpy(array.copy()))
        learning.optimizer.step()
    first, last = (to_ours(weights, MODEL, NAMES) for weights in (start, end))
    trained = [name for name, p in learning.named_parameters() if p.requires_grad]
    moved = {name: last[name] - first[name] for name in trained}
    ours = {k: learning.get_parameter(k).detach().numpy() - first[k] for k in trained}
    apart = norm({k: ours[k] - moved[k] for k in moved}) / norm(moved)
    note("three optimizer steps, our tensors", np.array(1 + apart), np.array(1.0))


def report(found):
    print(f"| max abs difference / max abs value | {' | '.join(found)} |")
    print("|---|" + "---|" * len(found))
    for name in next(iter(found.values())):
        print(f"| {name} | {' | '.join(f'{each[name]:.1e}' for each in found.values())} |")


if __name__ == "__main__":
    main()
