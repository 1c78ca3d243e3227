"""Whoever waits for episodes is told how far they are."""

from __future__ import annotations

from actors.envs.registry import make_env
from actors.evaluate import evaluate
from deploy.attended import told
from deploy.parts import new_agent
from system.clock import ManualClock
from tests.deploy.configs_for_tests import SPEC, small


class Slow(ManualClock):
    """Every look at it takes two seconds."""

    def now(self):
        self.sleep(2.0)
        return super().now()


def test_an_evaluation_says_how_far_it_is(capsys):
    config = small()
    env = make_env(config.env, num_copies=2, seed=0)
    playing = told(env, Slow(), episodes=6)
    result = evaluate(new_agent(config)(SPEC), playing, episodes=6, seed=0)
    env.close()
    said = capsys.readouterr().err.splitlines()
    assert result.episodes == 6 <= playing.ended
    assert said[0].startswith("evaluating for ")
    assert said[0].endswith(" (0 of 6 episodes)")
    assert any(" s left (" in line for line in said)
