"""sheeprl's `dreamer_v3_5` (PyTorch, the 1M model): its own `train` and slow critic."""

from __future__ import annotations

import argparse

import turns

SHAPES = {"height": (1,), "orientations": (14,), "velocity": (9,)}
ACTION = 6
OVERRIDES = [
    "exp=dreamer_v3_5", "algo=dreamer_v3_5_1M", "env=gym", "algo.cnn_keys.encoder=[]",
    f"algo.mlp_keys.encoder=[{','.join(SHAPES)}]", "fabric.accelerator=cpu", "metric.log_level=0",
]  # fmt: skip


def main():
    options, answers = arguments(), turns.stdout_for_answers()
    import gymnasium
    import hydra
    import sheeprl
    import torch
    from sheeprl.algos.dreamer_v3_5 import dreamer_v3_5 as algorithm
    from sheeprl.utils.utils import dotdict

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = dotdict(composed(options))
    fabric = hydra.utils.instantiate({**config.fabric, "callbacks": []}, _convert_="all")
    box = gymnasium.spaces.Box
    space = gymnasium.spaces.Dict({k: box(-9, 9, shape) for k, shape in SHAPES.items()})
    world_model, actor, critic, slow, _ = algorithm.build_agent(
        fabric, (ACTION,), True, config, space
    )
    parameters = [p for part in (world_model, actor, critic) for p in part.parameters()]
    settings = config.algo.optimizer
    optimizer = hydra.utils.instantiate(settings, params=parameters, _convert_="all")
    optimizer = fabric.setup_optimizers(optimizer)
    percentile = config.algo.actor.moments.percentile
    moments = algorithm.Moments(
        config.algo.actor.moments.decay, config.algo.actor.moments.max, percentile.low,
        percentile.high,
    )  # fmt: skip
    batch = random_batch(options, config.algo.world_model)

    def update():
        algorithm.train(
            fabric, config, world_model, actor, critic, slow, optimizer, moments, dict(batch), None,
            (ACTION,),
        )  # fmt: skip
        algorithm.update_target_critic(critic, slow, config.algo.critic.tau)

    facts = {"torch": torch.__version__, "version": sheeprl.__version__}
    facts |= {"compiled": options.compile, "parameters": sum(p.numel() for p in parameters)}
    turns.take(answers, update, facts)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--batch-length", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def composed(options):
    """Its own configuration, by its own means."""
    import hydra

    precision = {"float32": "32-true", "bfloat16": "bf16-mixed"}[options.dtype]
    overrides = [*OVERRIDES, f"fabric.precision={precision}",
                 f"algo.compile.enabled={options.compile}"]  # fmt: skip
    with hydra.initialize_config_module("sheeprl.configs", version_base="1.3"):
        return hydra.compose("config", overrides=overrides)


def random_batch(options, model):
    """Time first, one context Step in front, as its replay gives it."""
    import torch

    T, B = options.batch_length + 1, options.batch_size
    none = torch.zeros(T, B, 1)
    return {
        **{name: torch.randn(T, B, *shape) for name, shape in SHAPES.items()},
        "actions": torch.rand(T, B, ACTION) * 2 - 1,
        "rewards": torch.randn(T, B, 1),
        "is_first": (torch.rand(T, B, 1) < 0.01).float(),
        "terminated": none,
        "truncated": none,
        "deter": (torch.randn(T, B, model.recurrent_model.recurrent_state_size) / 2).half(),
        "stoch": torch.randint(model.discrete_size, (T, B, model.stochastic_size)),
    }


if __name__ == "__main__":
    main()
