"""Every result of ours beside theirs, from the same weights, batch and draws."""

from __future__ import annotations

import numpy as np
import torch

from learner.config import LearnerConfig
from learner.imagination import imagine
from learner.optimizer import LaProp
from learner.update import Learning
from system.models.dynamics import Latent
from tests.parity import theirs as settings
from tests.parity.recorded import MODEL, NAMES, below
from tests.parity.theirs import B, T
from tests.parity.weights import to_ours

H = 15
NO_CLIP = 1e9


class Notes:
    """The largest relative difference of every result, by name."""

    def __init__(self):
        self.found = {}

    def __call__(self, name, ours, wanted):
        """max |ours - wanted| / max |wanted|."""
        ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
        assert ours.shape == wanted.shape, (name, ours.shape, wanted.shape)
        self.keep(name, float(np.abs(ours - wanted).max() / np.abs(wanted).max()))

    def norm(self, name, ours, wanted):
        """|ours - wanted| / |wanted|, of dicts of arrays."""
        self.keep(name, norm({k: ours[k] - wanted[k] for k in wanted}) / norm(wanted))

    def keep(self, name, value):
        self.found[name] = max(self.found.get(name, 0.0), value)


def compare(theirs):
    """Largest difference of every result over all updates, by name."""
    note = Notes()
    for update in range(settings.UPDATES):
        weights = to_ours(theirs.before[update], MODEL, NAMES)
        learning = learning_with(theirs.spec, weights, NO_CLIP)
        intermediate(learning, theirs, update, note)
        whole_update(learning, theirs, update, note)
    optimizer(theirs, note)
    return note.found


def learning_with(spec, weights, clip):
    config = LearnerConfig(
        batch_size=B, batch_length=T, horizon=H, learning_rate=settings.LEARNING_RATE,
        warmup_updates=settings.WARMUP, clip=clip, device="cpu",
    )  # fmt: skip
    learning = Learning(config, MODEL, spec, torch.device("cpu"))
    state = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in weights.items()}
    learning.load_state_dict(state)
    return learning


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
    reconstruction = sum(wanted[f"losses/{name}"] for name in batch.observation)
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
    note("whole update: sum of losses", np.array(total), sum_of_losses(wanted, theirs.seen))
    ours = gradients_of(learning)
    gradient = to_ours(below(wanted, "gradient/"), MODEL, NAMES)
    assert ours.keys() == gradient.keys()
    note.norm("whole update: gradient (norms)", ours, gradient)
    for name in ours:
        note.norm("-- its worst tensor (norms)", {0: ours[name]}, {0: gradient[name]})


def sum_of_losses(wanted, seen):
    """Theirs, float64 []: their own float32 sum over all pixels of a batch is right to 2e-5."""
    scales = dict.fromkeys(("rew", "con", "dyn", "policy", "value", *seen), 1.0)
    scales |= {"rep": 0.1, "repval": 0.3}
    means = {name: wanted[f"losses/{name}"].mean(dtype=np.float64) for name in scales}
    total = sum(scale * means[name] for name, scale in scales.items())
    assert np.isclose(total, wanted["total"], rtol=1e-4), (total, wanted["total"])
    return np.array(total)


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
        parameters.values(),
        learning_rate=settings.LEARNING_RATE,
        warmup_updates=settings.WARMUP,
        clip=0.3,
    )
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad.copy_(torch.from_numpy(gradient[name]))
        laprop.step()
    ours = {k: parameter.detach().numpy() - start[k] for k, parameter in parameters.items()}
    note.norm("three optimizer steps, their tensors (norms)", ours, moved)
    learning = learning_with(theirs.spec, to_ours(start, MODEL, NAMES), 0.3)
    for gradient in gradients:
        for name, array in to_ours(gradient, MODEL, NAMES).items():
            learning.get_parameter(name).grad.copy_(torch.from_numpy(array.copy()))
        learning.optimizer.step()
    first, last = (to_ours(weights, MODEL, NAMES) for weights in (start, end))
    trained = [name for name, p in learning.named_parameters() if p.requires_grad]
    moved = {name: last[name] - first[name] for name in trained}
    ours = {k: learning.get_parameter(k).detach().numpy() - first[k] for k in trained}
    note.norm("three optimizer steps, our tensors (norms)", ours, moved)
