"""The whole update as one slow, literal scalar function of all parameters, float64 NumPy.

What was drawn at random (posteriors, dreamed codes, actions) is given. `Stop` holds what has no
gradient: the first evaluation records it, later ones with other parameters read what was recorded.
So differences of this function are the gradient that the update must have, straight-through
samples and stopped gradients included.
"""

from __future__ import annotations

import numpy as np

from tests import references
from tests.references import head, part, two_hot_cross_entropy, two_hot_mean

SCALES = {
    "reconstruction": 1.0, "reward": 1.0, "continue": 1.0, "dynamics": 1.0, "representation": 0.1,
    "policy": 1.0, "value": 1.0, "replay_value": 0.3,
}  # fmt: skip
UNIMIX, LAMBDA, ENTROPY, RATE = 0.01, 0.95, 3e-4, 0.01


class Stop:
    """`stop(name, value)` is the value that came first under this name."""

    def __init__(self):
        self._held = {}

    def __call__(self, name, value):
        return self._held.setdefault(name, value)


def observe(world_model, config, batch, samples, stop):
    """deters, stochs, posteriors, priors over [B, T]; stochs carry straight-through gradients."""
    dynamics = part(world_model, "dynamics")
    B, T = batch["is_first"].shape
    deters, stochs = np.zeros((B, T, config.deter)), np.zeros(samples.shape)
    posteriors, priors = np.zeros(samples.shape), np.zeros(samples.shape)
    for b in range(B):
        deter, stoch = batch["deter"][b], batch["stoch"][b]
        for t in range(T):
            action = batch["previous_action"][b, t]
            if batch["is_first"][b, t]:
                deter, stoch, action = 0.0 * deter, 0.0 * stoch, 0.0 * action
            deter = references.gru_step(dynamics, deter, stoch.ravel(), action, config.blocks)
            seen = {name: array[b, t] for name, array in batch["observation"].items()}
            embedding = references.encode(part(world_model, "encoder"), seen)
            probs = references.posterior(dynamics, deter, embedding, config)
            stoch = samples[b, t] + probs - stop(("probs", b, t), probs)
            deters[b, t], stochs[b, t], posteriors[b, t] = deter, stoch, probs
            priors[b, t] = references.prior(dynamics, deter, config)
    return deters, stochs, posteriors, priors


def dream(parameters, config, start, drawn, stop):
    """Features [N, H + 1, F] that follow from the starts, given what was drawn.

    Only the policy is followed here, by way of the actions: the world model is held.
    """
    held = stop("parameters", parameters)
    dynamics, policy = part(held, "world_model.dynamics"), part(parameters, "behavior.policy")
    N, steps = drawn["actions"].shape[:2]
    features = np.zeros((N, steps, config.feature))
    for n in range(N):
        deter, stoch = start[n], drawn["stochs"][n, 0]
        for t in range(steps):
            features[n, t] = np.concatenate([deter, stoch.ravel()])
            if t + 1 == steps:
                break
            action = reparametrized(features[n, t], policy, drawn["actions"][n, t], stop, (n, t))
            divisor = stop(("divisor", n, t), references.action_divisor(action))
            deter = references.gru_step(
                dynamics, deter, stoch.ravel(), action, config.blocks, divisor
            )
            probs = references.prior(dynamics, deter, config)
            stoch = drawn["stochs"][n, t + 1] + probs - stop(("dreamed", n, t), probs)
    return features


def reparametrized(feature, policy, action, stop, place):
    """The drawn action: mean + deviation * noise, or one-hot with the gradient of the chances."""
    output = head(feature, policy)
    if len(output) == len(action):
        probs = references.unimix(output, UNIMIX)
        return action + probs - stop(("chances", place), probs)
    mean, std = references.bounded_normal(*np.split(output, 2))
    return mean + std * stop(("noise", place), (action - mean) / std)


def update_losses(parameters, config, learner, batch, drawn, stop):
    """Mean of every loss of one update, by name.

    Args:
      parameters: of `Learning`, as arrays.
      config, learner: ModelConfig and LearnerConfig.
      batch: arrays [B, T, ...].
      drawn: arrays `samples` [B, T, S, K], `stochs` [B * T, H + 1, S, K], `actions`.
      stop: see above.
    """
    world_model = part(parameters, "world_model")
    deters, stochs, posteriors, priors = observe(
        world_model, config, batch, drawn["samples"], stop
    )  # fmt: skip
    B, T = batch["is_first"].shape
    feature = np.concatenate([deters, stochs.reshape(B, T, -1)], -1)
    losses = world_losses(parameters, learner, batch, feature, stop)
    kl = np.zeros((2, B, T))
    for b, t in np.ndindex(B, T):
        post, prior = posteriors[b, t], priors[b, t]
        held_post, held_prior = stop(("post", b, t), post), stop(("prior", b, t), prior)
        kl[0, b, t] = references.kl_with_free_nats(held_post, prior, learner.free_nats)
        kl[1, b, t] = references.kl_with_free_nats(post, held_prior, learner.free_nats)
    losses |= {"dynamics": kl[0], "representation": kl[1]}
    start = stop("start", deters).reshape(B * T, -1)
    dreamed = dream(parameters, config, start, drawn, stop)
    if learner.gradient == "reinforce":
        dreamed = stop("dream", dreamed)
    behavior, returns = behavior_losses(parameters, learner, dreamed, drawn["actions"], stop)
    losses |= behavior
    worth = returns[:, 0].reshape(B, T)
    losses["replay_value"] = replay_value(parameters, learner, batch, feature, worth, stop)
    return {name: loss.mean() for name, loss in losses.items()}


def world_losses(parameters, learner, batch, feature, stop):
    """Reconstruction, reward and continuation, [B, T] each."""
    B, T = feature.shape[:2]
    losses = {name: np.zeros((B, T)) for name in ("reconstruction", "reward", "continue")}
    bins = bins_of(parameters)
    for b, t in np.ndindex(B, T):
        x = feature[b, t]
        predicted = head(x, part(parameters, "decoder"))
        seen = np.concatenate(
            [np.ravel(batch["observation"][name][b, t]) for name in sorted(batch["observation"])]
        )
        losses["reconstruction"][b, t] = sum(
            (p - references.symlog(float(o))) ** 2 for p, o in zip(predicted, seen, strict=True)
        )
        losses["reward"][b, t] = two_hot_cross_entropy(
            head(x, part(parameters, "world_model.reward")), batch["reward"][b, t], bins
        )
        losses["continue"][b, t] = references.binary_cross_entropy(
            head(x, part(parameters, "world_model.continuation"))[0],
            references.continue_target(batch["is_terminal"][b, t], learner.discount_horizon),
        )
    return losses


def behavior_losses(parameters, learner, dreamed, actions, stop):
    """Policy and value loss [N, H] of a dream [N, H + 1]; and its returns, which are held.

    The returns follow the dream with heads that are held; everything else reads a held dream.
    """
    N, steps = dreamed.shape[:2]
    bins, held = bins_of(parameters), stop("parameters", parameters)
    reward, alive, bootstrap = (
        outputs(dreamed, part(held, name))
        for name in ("world_model.reward", "world_model.continuation", "behavior.value")
    )
    reward, bootstrap = means(reward, bins), means(bootstrap, bins)
    alive = references.sigmoid(alive[..., 0])
    returns = references.lambda_return(reward, alive, np.ones_like(reward), bootstrap, LAMBDA)
    target, feature = stop("returns", returns), stop("feature", dreamed)
    mean, weight = stop("value", bootstrap), references.chance_to_be_here(stop("alive", alive))
    scale = references.return_scale(
        held["behavior.scale.low"], held["behavior.scale.high"], target, RATE
    )[2]
    value, policy = (
        outputs(feature, part(parameters, f"behavior.{name}")) for name in ("value", "policy")
    )
    slow = means(outputs(feature, part(held, "behavior.slow_value")), bins)
    policy_loss, value_loss = np.zeros((2, N, steps - 1))
    for n, t in np.ndindex(N, steps - 1):
        log_prob, entropy = log_prob_and_entropy(policy[n, t], actions[n, t])
        score = {
            "reinforce": log_prob * (target[n, t] - mean[n, t]) / scale,
            "analytic": returns[n, t] / scale,
        }[learner.gradient]
        policy_loss[n, t] = -weight[n, t] * (score + ENTROPY * entropy)
        value_loss[n, t] = weight[n, t] * (
            two_hot_cross_entropy(value[n, t], target[n, t], bins)
            + two_hot_cross_entropy(value[n, t], slow[n, t], bins)
        )
    return {"policy": policy_loss, "value": value_loss}, target


def outputs(feature, parameters):
    """Of a head, [N, H + 1, ...]."""
    return np.array([[head(x, parameters) for x in row] for row in feature])


def means(logits, bins):
    """Of two-hot logits, [N, H + 1]."""
    return np.array([[two_hot_mean(x, bins) for x in row] for row in logits])


def log_prob_and_entropy(output, action):
    """Of a bounded normal (twice as many outputs as actions) or a categorical with unimix."""
    if len(output) == len(action):
        probs = references.unimix(output, UNIMIX)
        return np.log(probs) @ action, -probs @ np.log(probs)
    mean, std = references.bounded_normal(*np.split(output, 2))
    return references.normal_log_prob(action, mean, std), references.normal_entropy(std)


def replay_value(parameters, learner, batch, feature, worth, stop):
    """The value's loss on replayed Steps [B, T - 1]."""
    targets, counts = references.replay_value_targets(
        batch["reward"], batch["is_last"], batch["is_terminal"], worth, learner.discount_horizon,
        LAMBDA,
    )  # fmt: skip
    bins, loss = bins_of(parameters), np.zeros(targets.shape)
    for b, t in np.ndindex(*targets.shape):
        logits = head(feature[b, t], part(parameters, "behavior.value"))
        pull = two_hot_mean(head(feature[b, t], part(parameters, "behavior.slow_value")), bins)
        loss[b, t] = two_hot_cross_entropy(logits, targets[b, t], bins)
        loss[b, t] += two_hot_cross_entropy(logits, stop(("pull", b, t), pull), bins)
    return counts * loss


def bins_of(parameters):
    return references.two_hot_bins(len(parameters["behavior.value.out.bias"]))
