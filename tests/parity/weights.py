"""The authors' weights in our layout. All of it is linear, so gradients are turned the same way."""

from __future__ import annotations

import numpy as np

STAGES = 4
"""Of the image networks."""


def to_ours(theirs, config, names):
    """Their arrays by name -> ours, named as in `Learning.state_dict()`.

    Args:
      theirs: `enc/mlp0/kernel` and so on; kernels are [in, out].
      config: our ModelConfig.
      names: of the observed vectors, sorted.
    """
    found = {}
    for i in range(config.encoder_layers):
        found |= block(theirs, f"enc/mlp{i}", f"world_model.encoder.mlp.blocks.{i}")
    found |= under("world_model.dynamics", dynamics(theirs, config))
    found |= under("world_model.reward", head(theirs, "rew", config.reward_layers, "logits"))
    found |= under("world_model.continuation", head(theirs, "con", config.continue_layers, "logit"))
    found |= under("decoder", decoder(theirs, config, names))
    found |= under("behavior.policy", policy(theirs, config))
    found |= under("behavior.value", head(theirs, "val", config.value_layers, "logits"))
    if "enc/cnn0/kernel" in theirs:
        found |= under("world_model.encoder.images.0", image_encoder(theirs))
        found |= under("decoder.images.0", image_decoder(theirs, config))
    if "slowval/head/logits/kernel" in theirs:
        slow = head(theirs, "slowval", config.value_layers, "logits")
        found |= under("behavior.slow_value", slow)
        found["behavior.scale.low"] = theirs["retnorm/lo/value"]
        found["behavior.scale.high"] = theirs["retnorm/hi/value"]
    return found


def dynamics(theirs, config):
    found = {}
    for i, name in enumerate(("deter_in", "stoch_in", "action_in")):
        found |= block(theirs, f"dyn/dynin{i}", name)
    size = config.deter // config.blocks
    kernel = theirs["dyn/dynhid0/kernel"]  # [G, D / G + 3 * hidden, D / G]
    found["hidden_deter"] = kernel[:, :size]
    found["hidden_shared"] = np.concatenate(list(kernel[:, size:]), 1)
    found["hidden_bias"] = theirs["dyn/dynhid0/bias"]
    found["hidden_norm.scale"] = theirs["dyn/dynhid0norm/scale"]
    kernel = theirs["dyn/dyngru/kernel"]  # [G, D / G, 3 * D / G]
    found["gates.weight"] = np.stack(np.split(kernel, 3, -1))
    bias = theirs["dyn/dyngru/bias"].reshape(config.blocks, 3, 1, size)
    found["gates.bias"] = bias.transpose(1, 0, 2, 3)
    found |= linear(theirs, "dyn/obs0", "posterior_in")
    found["posterior_norm.scale"] = theirs["dyn/obs0norm/scale"]
    found |= linear(theirs, "dyn/obslogit", "posterior_out")
    found |= block(theirs, "dyn/prior0", "prior_in.0") | block(theirs, "dyn/prior1", "prior_in.1")
    return found | linear(theirs, "dyn/priorlogit", "prior_out")


def head(theirs, name, layers, output):
    found = mlp(theirs, f"{name}/mlp", layers)
    return found | linear(theirs, f"{name}/head/{output}", "out")


def policy(theirs, config):
    """One output layer of ours is two of theirs."""
    found = mlp(theirs, "pol/mlp", config.policy_layers)
    return found | joined(theirs, [f"pol/head/action/{each}" for each in ("mean", "stddev")])


def decoder(theirs, config, names):
    """One output layer of ours is one for each observation; their feature is stoch, then deter."""
    found = mlp(theirs, "dec/mlp", config.decoder_layers)
    stoch, deter = np.split(
        found["mlp.blocks.0.linear.weight"], [config.stoch * config.classes], -1
    )  # fmt: skip
    found["mlp.blocks.0.linear.weight"] = np.concatenate([deter, stoch], -1)
    return found | joined(theirs, [f"dec/vec/{name}/pred" for name in names])


def image_encoder(theirs):
    found = {}
    for i in range(STAGES):
        found |= convolution(theirs, f"enc/cnn{i}", f"stages.{i}")
        found[f"stages.{i}.norm.scale"] = theirs[f"enc/cnn{i}norm/scale"]
    return found


def image_decoder(theirs, config):
    found = {"from_deter.weight": theirs["dec/sp0/kernel"][None]}
    found["from_deter.bias"] = theirs["dec/sp0/bias"].reshape(1, config.blocks, 1, -1)
    found |= block(theirs, "dec/sp1", "stoch_in") | linear(theirs, "dec/sp2", "from_stoch")
    found["norm.scale"] = theirs["dec/spnorm/scale"]
    for i, name in enumerate(f"dec/conv{j}" for j in reversed(range(STAGES - 1))):
        found |= convolution(theirs, name, f"doublings.{i}")
        found[f"norms.{i}.scale"] = theirs[f"{name}norm/scale"]
    return found | convolution(theirs, "dec/imgout", f"doublings.{STAGES - 1}")


def convolution(theirs, name, ours):
    """[height, width, in, out] -> [out, in, height, width]."""
    kernel = theirs[f"{name}/kernel"].transpose(3, 2, 0, 1)
    return {f"{ours}.weight": kernel, f"{ours}.bias": theirs[f"{name}/bias"]}


def mlp(theirs, name, layers):
    found = {}
    for i in range(layers):
        found |= linear(theirs, f"{name}/linear{i}", f"mlp.blocks.{i}.linear")
        found[f"mlp.blocks.{i}.norm.scale"] = theirs[f"{name}/norm{i}/scale"]
    return found


def block(theirs, name, ours):
    found = linear(theirs, name, f"{ours}.linear")
    return found | {f"{ours}.norm.scale": theirs[f"{name}norm/scale"]}


def linear(theirs, name, ours):
    return {f"{ours}.weight": theirs[f"{name}/kernel"].T, f"{ours}.bias": theirs[f"{name}/bias"]}


def joined(theirs, names):
    return {
        "out.weight": np.concatenate([theirs[f"{name}/kernel"].T for name in names]),
        "out.bias": np.concatenate([theirs[f"{name}/bias"] for name in names]),
    }


def under(prefix, arrays):
    return {f"{prefix}.{name}": array for name, array in arrays.items()}
