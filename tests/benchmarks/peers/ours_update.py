"""Our own `Learning.update` on the same work; run as a module from the repository."""

from __future__ import annotations

import argparse
import dataclasses
from types import SimpleNamespace

import torch

from learner.update import Learning
from tests.benchmarks.peers import turns
from tests.benchmarks.update import WALKER, preset, random_batch


def main():
    options, answers = arguments(), turns.stdout_for_answers()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    asked = {"size": "1m", "batch_size": options.batch_size, "gradient": "reinforce"}
    config = preset(SimpleNamespace(**asked, precision=options.precision))
    learner = dataclasses.replace(
        config.learner, batch_length=options.batch_length, precision=options.precision
    )
    config = dataclasses.replace(config, learner=learner)
    learning = Learning(learner, config.model, WALKER, torch.device("cpu"))
    batch = random_batch(config, torch.device("cpu"))
    trained = sum(p.numel() for p in learning.parameters() if p.requires_grad)
    facts = {"torch": torch.__version__, "dreams": learner.imagined_steps, "parameters": trained}
    turns.take(answers, lambda: learning.update(batch), facts)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--batch-length", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
