"""Slow, literal twins of every formula, float64 NumPy, close to the notation of dreamerv3.md.

Nothing here shares code with the product. Arrays are indexed one element at a time wherever the
paper writes an index; that is the point. Parameters come as dicts of arrays, named as in the
product's `state_dict` (`parameters_of`).
"""

from __future__ import annotations

import math

import numpy as np


def parameters_of(module):
    """state_dict -> dict of float64 arrays."""
    return {name: t.detach().cpu().double().numpy() for name, t in module.state_dict().items()}


def part(parameters, prefix):
    """The entries below `prefix.`, without it."""
    return {k[len(prefix) + 1 :]: v for k, v in parameters.items() if k.startswith(prefix + ".")}


# Scalars: dreamerv3.md 1.3.


def symlog(x):
    return math.copysign(math.log(1.0 + abs(x)), x)


def symexp(x):
    return math.copysign(math.exp(abs(x)) - 1.0, x)


def two_hot_bins(num_bins):
    """symexp(linspace(-20, 0, 128)), mirrored around zero."""
    half = [symexp(x) for x in np.linspace(-20.0, 0.0, (num_bins - 1) // 2 + 1)]
    return np.array(half + [-x for x in reversed(half[:-1])])


def two_hot(value, bins):
    """Dense weights [V]: the two bins around the value share 1 in proportion to closeness."""
    weights = np.zeros(len(bins))
    value = min(max(value, bins[0]), bins[-1])
    if value == bins[-1]:
        weights[-1] = 1.0
        return weights
    k = max(i for i in range(len(bins)) if bins[i] <= value)
    weights[k + 1] = abs(value - bins[k]) / abs(bins[k + 1] - bins[k])
    weights[k] = abs(bins[k + 1] - value) / abs(bins[k + 1] - bins[k])
    return weights


def softmax(logits):
    raised = [math.exp(x - max(logits)) for x in logits]
    return np.array([x / sum(raised) for x in raised])


def two_hot_mean(logits, bins):
    """Expectation; halves paired so that equal weights cancel exactly."""
    probs, half = softmax(logits), len(bins) // 2
    return sum((probs[half + i] - probs[half - i]) * bins[half + i] for i in range(1, half + 1))


def two_hot_cross_entropy(logits, target, bins):
    log_probs = np.log(softmax(logits))
    return -sum(w * p for w, p in zip(two_hot(target, bins), log_probs, strict=True) if w)


def binary_cross_entropy(logit, target):
    p = 1.0 / (1.0 + math.exp(-logit))
    return -(target * math.log(p) + (1.0 - target) * math.log(1.0 - p))


# Distributions: dreamerv3.md 1.2.7, 1.4.


def unimix(logits, share):
    """99 % softmax + 1 % uniform, over the last axis of [..., K]."""
    flat = np.asarray(logits, np.float64).reshape(-1, np.shape(logits)[-1])
    rows = [(1.0 - share) * softmax(row) + share / len(row) for row in flat]
    return np.array(rows).reshape(np.shape(logits))


def kl_with_free_nats(p, q, free):
    """Sum over groups and classes of one Step, [S, K] each, then clipped below."""
    total = 0.0
    for s in range(p.shape[0]):
        for k in range(p.shape[1]):
            total += p[s, k] * (math.log(p[s, k]) - math.log(q[s, k]))
    return max(total, free)


def bounded_normal(mean_output, std_output):
    std = 0.9 / (1.0 + np.exp(-(std_output + 2.0))) + 0.1
    return np.tanh(mean_output), std


def normal_log_prob(x, mean, std):
    """Sum over the last axis of log N(x; mean, std)."""
    density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))
    return np.log(density).sum(-1)


def normal_entropy(std):
    return (0.5 * np.log(2.0 * math.pi * math.e * std**2)).sum(-1)


# Returns: dreamerv3.md 1.4, 1.5.


def lambda_return(reward, alive, flows, value, lam):
    """The recursion: R_t = r' + g' ((1 - l') v' + l' R'), primes at t + 1, l = lambda * flows."""
    N, T = reward.shape
    returns = np.zeros((N, T - 1))
    for n in range(N):
        later = value[n, T - 1]
        for t in reversed(range(T - 1)):
            lam_t = lam * flows[n, t + 1]
            mixed = (1.0 - lam_t) * value[n, t + 1] + lam_t * later
            later = returns[n, t] = reward[n, t + 1] + alive[n, t + 1] * mixed
    return returns


def lambda_return_sum(reward, alive, flows, value, lam):
    """The same as a weighted sum of k-step returns.

    G_t^(k) = r_{t+1} + g_{t+1} r_{t+2} + ... + (g_{t+1} ... g_{t+k}) v_{t+k}; its weight is
    l_{t+1} ... l_{t+k-1} (1 - l_{t+k}), and the longest one has what remains.
    """
    N, T = reward.shape
    returns = np.zeros((N, T - 1))
    for n in range(N):
        for t in range(T - 1):
            longest = T - 1 - t
            for k in range(1, longest + 1):
                discount, k_step = 1.0, 0.0
                for i in range(1, k + 1):
                    k_step += discount * reward[n, t + i]
                    discount *= alive[n, t + i]
                k_step += discount * value[n, t + k]
                weight = 1.0
                for i in range(1, k):
                    weight *= lam * flows[n, t + i]
                if k < longest:
                    weight *= 1.0 - lam * flows[n, t + k]
                returns[n, t] += weight * k_step
    return returns


def chance_to_be_here(alive):
    """weight_t = product of alive_0 ... alive_t, [N, T]."""
    weight = np.ones_like(alive)
    for t in range(alive.shape[1]):
        weight[:, t] = (weight[:, t - 1] if t else 1.0) * alive[:, t]
    return weight


def nearest_rank(values, share):
    """The sorted value whose rank is nearest to share * (count - 1)."""
    ordered = np.sort(np.ravel(values))
    return ordered[round(share * (len(ordered) - 1))]


def return_scale(low, high, returns, rate):
    """Moves P5 and P95 and gives (low, high, max(1, high - low))."""
    low = (1.0 - rate) * low + rate * nearest_rank(returns, 0.05)
    high = (1.0 - rate) * high + rate * nearest_rank(returns, 0.95)
    return low, high, max(1.0, high - low)


def continue_target(is_terminal, discount_horizon):
    return (0.0 if is_terminal else 1.0) * (1.0 - 1.0 / discount_horizon)


def replay_value_targets(reward, is_last, is_terminal, worth, horizon, lam):
    """Targets [B, T - 1] and which of them count: none at the last Step of an episode."""
    discount = 1.0 - 1.0 / horizon
    alive = (1.0 - is_terminal.astype(np.float64)) * discount
    flows = 1.0 - is_last.astype(np.float64)
    return lambda_return(reward, alive, flows, worth, lam), flows[:, :-1]


# Optimizer: dreamerv3.md 1.6.


def agc(gradient, parameter, clip):
    """Per tensor: the gradient's norm is at most clip * max(1e-3, the parameter's norm)."""
    limit = clip * max(1e-3, math.sqrt(float((parameter**2).sum())))
    norm = math.sqrt(float((gradient**2).sum()))
    return gradient * (limit / norm) if norm > limit else gradient


def laprop_step(parameter, gradient, memory, *, learning_rate, warmup, clip):
    """One step of one tensor; `memory` is {} before the first. Returns the new parameter."""
    count = memory.get("count", 0)
    rate = learning_rate * min(1.0, count / warmup)
    count += 1
    gradient = agc(gradient, parameter, clip)
    nu = 0.999 * memory.get("nu", 0.0) + 0.001 * gradient**2
    scaled = gradient / (np.sqrt(nu / (1.0 - 0.999**count)) + 1e-20)
    mu = 0.9 * memory.get("mu", 0.0) + 0.1 * scaled
    memory.update(count=count, nu=nu, mu=mu)
    return parameter - rate * mu / (1.0 - 0.9**count)


# Networks: dreamerv3.md 1.2, 1.6, 1.7.


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def norm_silu(x, scale):
    """RMSNorm (eps 1e-4 inside the root) with learned scale, then SiLU, of one vector."""
    y = x / math.sqrt(float((x**2).mean()) + 1e-4) * scale
    return y * sigmoid(y)


def linear(x, parameters):
    return parameters["weight"] @ x + parameters["bias"]


def block(x, parameters):
    """Linear -> RMSNorm -> SiLU."""
    return norm_silu(linear(x, part(parameters, "linear")), parameters["norm.scale"])


def mlp(x, parameters):
    layers = len({name.split(".")[1] for name in parameters})
    for i in range(layers):
        x = block(x, part(parameters, f"blocks.{i}"))
    return x


def head(feature, parameters):
    return linear(mlp(feature, part(parameters, "mlp")), part(parameters, "out"))


def action_divisor(action):
    """max(1, |a|): no gradient flows through it."""
    return np.array([max(1.0, abs(a)) for a in action])


def gru_step(parameters, deter, stoch, action, blocks, divisor=None):
    """Steps 1-5 of dreamerv3.md 1.2 for one vector each; every block has its own full matrix.

    `divisor` is that of the action where it is held for differences.
    """
    hidden = parameters["deter_in.linear.bias"].size
    D, size = len(deter), len(deter) // blocks
    action = action / (action_divisor(action) if divisor is None else divisor)
    shared = np.concatenate(
        [
            block(deter, part(parameters, "deter_in")),
            block(stoch, part(parameters, "stoch_in")),
            block(action, part(parameters, "action_in")),
        ]
    )
    assert len(shared) == 3 * hidden
    middle = np.zeros(D)
    for g in range(blocks):
        mine = slice(g * size, (g + 1) * size)
        # [D / G + 3 * hidden, D / G]: the matrix of this block alone.
        matrix = np.concatenate(
            [parameters["hidden_deter"][g], parameters["hidden_shared"][:, mine]]
        )
        group = np.concatenate([deter[mine], shared])
        middle[mine] = group @ matrix + parameters["hidden_bias"][mine]
    middle = norm_silu(middle, parameters["hidden_norm.scale"])
    new = np.zeros(D)
    for g in range(blocks):
        mine = slice(g * size, (g + 1) * size)
        reset, candidate, update = (
            middle[mine] @ parameters["gates.weight"][i, g] + parameters["gates.bias"][i, g, 0]
            for i in range(3)
        )
        candidate = np.tanh(sigmoid(reset) * candidate)
        update = sigmoid(update - 1.0)
        new[mine] = update * candidate + (1.0 - update) * deter[mine]
    return new


def posterior(parameters, deter, embedding, config):
    x = linear(np.concatenate([deter, embedding]), part(parameters, "posterior_in"))
    x = norm_silu(x, parameters["posterior_norm.scale"])
    logits = linear(x, part(parameters, "posterior_out"))
    return unimix(logits.reshape(config.stoch, config.classes), config.unimix)


def prior(parameters, deter, config):
    x = block(block(deter, part(parameters, "prior_in.0")), part(parameters, "prior_in.1"))
    logits = linear(x, part(parameters, "prior_out"))
    return unimix(logits.reshape(config.stoch, config.classes), config.unimix)


def encode(parameters, observation):
    """One Step: symlog of all vectors, by sorted name, through the MLP."""
    flat = np.concatenate([np.ravel(observation[name]) for name in sorted(observation)])
    return mlp(np.array([symlog(float(x)) for x in flat]), part(parameters, "mlp"))


def observe(parameters, config, batch, embeddings, samples):
    """deter, posterior, prior over [B, T] when the given `samples` [B, T, S, K] were drawn."""
    B, T = batch["is_first"].shape
    deters = np.zeros((B, T, config.deter))
    posteriors, priors = np.zeros_like(samples), np.zeros_like(samples)
    for b in range(B):
        deter, stoch = batch["deter"][b], batch["stoch"][b].ravel()
        for t in range(T):
            action = batch["previous_action"][b, t]
            if batch["is_first"][b, t]:
                deter, stoch, action = 0.0 * deter, 0.0 * stoch, 0.0 * action
            deter = gru_step(parameters, deter, stoch, action, config.blocks)
            stoch = samples[b, t].ravel()
            deters[b, t] = deter
            posteriors[b, t] = posterior(parameters, deter, embeddings[b, t], config)
            priors[b, t] = prior(parameters, deter, config)
    return deters, posteriors, priors


def world_model_losses(world_model, decoder, config, learner, batch, samples):
    """Every loss of dreamerv3.md 1.3 per Step, [B, T], given the stochastic samples drawn.

    `batch` holds arrays: observation, previous_action, reward, is_first, is_terminal, and the
    context's deter and stoch.
    """
    B, T = batch["is_first"].shape
    observation = batch["observation"]
    embeddings = np.array(
        [
            [
                encode(part(world_model, "encoder"), {k: v[b, t] for k, v in observation.items()})
                for t in range(T)
            ]
            for b in range(B)
        ]
    )
    dynamics = part(world_model, "dynamics")
    deters, posteriors, priors = observe(dynamics, config, batch, embeddings, samples)
    bins = two_hot_bins(config.bins)
    names = ("reconstruction", "reward", "continue", "dynamics", "representation")
    losses = {name: np.zeros((B, T)) for name in names}
    for b in range(B):
        for t in range(T):
            feature = np.concatenate([deters[b, t], samples[b, t].ravel()])
            predicted = head(feature, decoder)
            seen = np.concatenate([np.ravel(observation[k][b, t]) for k in sorted(observation)])
            losses["reconstruction"][b, t] = sum(
                (p - symlog(float(x))) ** 2 for p, x in zip(predicted, seen, strict=True)
            )
            losses["reward"][b, t] = two_hot_cross_entropy(
                head(feature, part(world_model, "reward")), batch["reward"][b, t], bins
            )
            losses["continue"][b, t] = binary_cross_entropy(
                head(feature, part(world_model, "continuation"))[0],
                continue_target(batch["is_terminal"][b, t], learner.discount_horizon),
            )
            kl = kl_with_free_nats(posteriors[b, t], priors[b, t], learner.free_nats)
            losses["dynamics"][b, t] = losses["representation"][b, t] = kl
    return deters, losses
