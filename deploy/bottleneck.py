"""Who holds the others up, and what one more actor would bring. Pure.

Let a run insert 1 Step in a unit of time, with N actors that wait (for credit) a share `a` of it
and a learner that waits (for Steps) a share `w` of it. Without waiting

    actors could give   C = 1 / (1 - a)        N + 1 of them  C (N + 1) / N
    the learner takes   L = 1 / (1 - w)

and the slower of the two decides, so one more actor makes min(C, L) = 1 into min(C (N + 1) / N, L):

    gain = min(C (N + 1) / N, L) / min(C, L) - 1

With actors that never wait that is min(1 / N, w / (1 - w)); with a learner that never waits, 0. It
supposes that the new actor finds a core of its own, and a simulator as fast as the others'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from system.control.protocol import ProcessMetrics

Bottleneck = Literal["actors", "network", "redis", "learner", "unknown"]

FULL = 0.97
"""Redis refuses writes soon [ratio]."""
LEAST_WAIT = 0.02
"""Who waits less does not wait [ratio]."""
NEVER = 1.0 - 1e-3
"""Who waits more is taken to work so little of the time [ratio]."""
WORDS = {
    "insert": "reading and storing Steps", "sample": "sampling", "world_model": "the world model",
    "dream": "dreaming", "behavior": "the behavior", "backward": "gradients",
    "optimizer": "the optimizer", "publish": "publishing", "checkpoint": "checkpoints",
    "report": "reports", "env": "the environment", "policy": "the policy", "write": "sending",
    "other": "other things", "starting": "starting",
}  # fmt: skip
"""Activities, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How busy everybody is. Shares of time, 0 to 1."""

    actors: int = 0
    """That act, those that wait among them."""
    acting: dict[str, float]
    """Activity -> mean share over the actors; empty: nobody tells."""
    learning: dict[str, float]
    """Activity -> share; empty: the learner does not tell."""
    redis_up: bool = True
    redis_fill: float = 0.0
    """Memory used of what it may use [ratio]; 0 without a limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Who is the limit."""

    bottleneck: Bottleneck
    text: str
    """One sentence."""
    gain_ratio: float | None
    """More frames per second with one more actor, relative to now; None: not known."""


def load_of(
    metrics: Sequence[ProcessMetrics], *, redis_up: bool = True, redis_fill: float = 0.0
) -> Load:
    """What the snapshots of a run's processes say."""
    acting = [_shares(one.values, "actor") for one in metrics if one.role == "actor"]
    acting = [shares for shares in acting if shares.get("starting", 0.0) < NEVER]
    learning = [_shares(one.values, "learner") for one in metrics if one.role == "learner"]
    names = {name for shares in acting for name in shares}
    return Load(
        actors=len(acting),
        acting={
            name: sum(shares.get(name, 0.0) for shares in acting) / len(acting) for name in names
        },
        learning=learning[0] if learning else {},
        redis_up=redis_up,
        redis_fill=redis_fill,
    )


def diagnose(load: Load) -> Diagnosis:
    """Who is the limit, in words, and the gain of one more actor."""
    if not load.redis_up:
        return Diagnosis(
            bottleneck="redis",
            text="Redis does not answer; everybody waits for it.",
            gain_ratio=0.0,
        )
    if load.redis_fill >= FULL:
        text = f"Redis is {load.redis_fill:.0%} full and takes no more Steps."
        return Diagnosis(bottleneck="redis", text=text, gain_ratio=0.0)
    if not load.actors or not load.learning:
        text = "Not enough is known yet." if load.learning else "No learner tells how busy it is."
        return Diagnosis(bottleneck="unknown", text=text, gain_ratio=None)
    a, w = _wait(load.acting), _wait(load.learning)
    gain = gain_of(load.actors, actors_wait=a, learner_wait=w)
    if w <= a:
        text = f"The learner is the limit: it works {1 - w:.0%} of the time, mostly on "
        text += f"{_most(load.learning)}, and actors wait {a:.0%} of theirs; {_more(gain)}."
        return Diagnosis(bottleneck="learner", text=text, gain_ratio=gain)
    waits = f"the learner waits for Steps {w:.0%} of the time"
    sending = load.acting.get("write", 0.0)
    if sending > load.acting.get("env", 0.0) + load.acting.get("policy", 0.0):
        text = f"The network is the limit: actors spend {sending:.0%} of their time sending, and "
        return Diagnosis(bottleneck="network", text=f"{text}{waits}.", gain_ratio=None)
    text = f"Actors are the limit: {waits}, and they work mostly on {_most(load.acting)}; "
    return Diagnosis(bottleneck="actors", text=f"{text}{_more(gain)}.", gain_ratio=gain)


def gain_of(actors: int, *, actors_wait: float, learner_wait: float) -> float:
    """Relative gain in Steps per second with one actor more; see above.

    Args:
      actors: N, at least 1.
      actors_wait: a, mean share of their time [0 to 1].
      learner_wait: w, share of its time [0 to 1].
    """
    could_give = 1.0 / (1.0 - min(actors_wait, NEVER))
    could_take = 1.0 / (1.0 - min(learner_wait, NEVER))
    now = min(could_give, could_take)
    return min(could_give * (actors + 1) / actors, could_take) / now - 1.0


def _wait(shares: Mapping[str, float]) -> float:
    wait = shares.get("wait", 0.0)
    return wait if wait >= LEAST_WAIT else 0.0


def _most(shares: Mapping[str, float]) -> str:
    busy = {name: share for name, share in shares.items() if name != "wait"}
    most = max(sorted(busy), key=lambda name: busy[name], default="other")
    return WORDS.get(most, WORDS["other"])


def _more(gain: float) -> str:
    if gain < LEAST_WAIT:
        return "one more actor would gain nothing"
    return f"one more actor would bring about {gain:.0%} more frames per second"


def _shares(values: Mapping[str, float], role: str) -> dict[str, float]:
    head = f"{role}/share_"
    return {
        name.removeprefix(head): share for name, share in values.items() if name.startswith(head)
    }
