"""Which policies robots may run: the rule, and the promoter that follows it.

::

    candidate's returns, incumbent's on the same seeds -> judge -> publish on `policy:safe`, event

A promotion's number is the second it was made in, or one more than the last: so it grows even when
the store was wiped and has forgotten the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from safetensors import SafetensorError

from system.channel.protocol import PolicyChannel
from system.clock import Clock, Every
from system.errors import Fenced, RejectedChunk, Unavailable
from system.types import Snapshot

LEAST_PAIRS = 2
TEND_S = 5.0
T_95 = (
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771,
    1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706,
    1.703, 1.701, 1.699, 1.697,
)  # fmt: skip
"""One-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; the last serves on."""

Play = Callable[[Snapshot], Sequence[float]]
"""Returns of a policy on the seeds the candidate was measured on, in the same order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the comparison came to."""

    promote: bool
    text: str
    """The figures, in words."""


def judge(
    candidate: Sequence[float], incumbent: Sequence[float] | None, *, margin: float
) -> Verdict:
    """Whether the candidate may take the incumbent's place.

    With d_i = candidate_i - incumbent_i over n pairs of equal seeds, mean m and standard error
    s = std(d) / sqrt(n), it may if `m - t s >= -margin`, t being the one-sided 95 % quantile of
    Student's t with n - 1 degrees of freedom: with 95 % confidence it is worse by no more than the
    margin. The first candidate needs only be finite.

    Args:
      candidate: undiscounted return of each episode.
      incumbent: the same of the policy that is safe now; None if there is none.
      margin: how much worse on average is still acceptable [return].
    """
    if not np.isfinite(candidate).all():
        return Verdict(promote=False, text="a return of the candidate is not finite")
    mean = float(np.mean(candidate))
    if incumbent is None:
        return Verdict(promote=True, text=f"the first one, return {mean:.1f}")
    difference = np.subtract(candidate, incumbent)
    n = len(difference)
    if n < LEAST_PAIRS:
        return Verdict(promote=False, text=f"{n} pair of episodes says nothing; compare more")
    error = float(np.std(difference, ddof=1)) / math.sqrt(n)
    bound = float(np.mean(difference)) - T_95[min(n - 1, len(T_95)) - 1] * error
    figures = (
        f"return {mean:.1f}, the safe one's {float(np.mean(incumbent)):.1f}; difference "
        f"{float(np.mean(difference)):+.1f} +- {error:.1f} over {n} pairs, at least {bound:+.1f} "
        f"with 95 % confidence, margin {margin:g}"
    )
    return Verdict(promote=bound >= -margin, text=figures)


def unfit(snapshot: Snapshot, model_digest: str) -> str | None:
    """Why no robot may run this policy, whatever it scores; None if it may.

    Args:
      snapshot: the policy.
      model_digest: of the run's model and environment.
    """
    import safetensors.torch  # here: who asks for a policy that is gone need not wait for torch

    if snapshot.model_digest != model_digest:
        return f"it is for model {snapshot.model_digest}, this run's is {model_digest}"
    try:
        tensors = safetensors.torch.load(snapshot.weights)
    except SafetensorError as error:
        return f"its weights are not safetensors: {error}"
    for name, tensor in sorted(tensors.items()):
        if not bool(tensor.isfinite().all()):
            return f"{name!r} is not finite"
    return None


def put_safe(
    safe: PolicyChannel, snapshot: Snapshot, *, after: tuple[int, int], now_s: float
) -> Snapshot:
    """Publishes a policy as the safe one; returns it as published.

    Args:
      safe: the channel `policy:safe`.
      snapshot: of either channel; its version stays.
      after: the promotion it takes the place of; (0, 0) if there was none.
      now_s: wall-clock time [s].

    Raises:
      Fenced: something else has been promoted since `after`.
      Unavailable: try again.
    """
    promoted = replace(snapshot, epoch=max(after[0] + 1, int(now_s)))
    safe.publish(promoted, after=after)
    return promoted


class Promoter:
    """The evaluator's half: promotes what it has measured, and keeps the safe policy published.

    The loop that uses it::

        promoter.tend()                                        # now and then
        promoter.consider(snapshot, result.returns, play)      # after each measurement
    """

    def __init__(
        self, safe: PolicyChannel, clock: Clock, *,
        model_digest: str, margin: float, on_event: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        """`on_event` is told (kind, text): promoted, not_promoted, safe_restored."""
        self._safe, self._clock, self._on_event = safe, clock, on_event
        self._model_digest, self._margin = model_digest, margin
        self._due = Every(TEND_S)
        self._held: Snapshot | None = None

    def consider(self, candidate: Snapshot, returns: Sequence[float], play: Play) -> None:
        """Promotes the candidate if the rule says so; an event tells which, and why."""
        try:
            verdict = self._consider(candidate, returns, play)
        except (Fenced, Unavailable, RejectedChunk) as error:
            verdict = Verdict(promote=False, text=str(error))
        kind = "promoted" if verdict.promote else "not_promoted"
        self._on_event(kind, f"policy {candidate.version}: {verdict.text}")

    def tend(self) -> None:
        """Remembers the safe policy; publishes it again if a wiped store has forgotten it."""
        if not self._due(self._clock.now()):
            return
        try:
            newest = self._safe.newest_version()
            held = self._held
            if held is None or newest not in ((0, 0), (held.epoch, held.version)):
                self._held = self._safe.get(*newest)
            elif newest == (0, 0):
                now_s = max(held.epoch + 1, self._clock.wall())
                self._held = put_safe(self._safe, held, after=newest, now_s=now_s)
                self._on_event("safe_restored", f"policy {held.version}, which the store forgot")
        except (Fenced, Unavailable, RejectedChunk):
            return

    def _consider(self, candidate: Snapshot, returns: Sequence[float], play: Play) -> Verdict:
        objection = unfit(candidate, self._model_digest)
        if objection is not None:
            return Verdict(promote=False, text=objection)
        newest = self._safe.newest_version()
        incumbent = self._safe.get(*newest)
        if newest == (0, 0) and self._held is not None:
            return Verdict(promote=False, text="the store has just forgotten the safe one")
        if incumbent is not None and incumbent.version == candidate.version:
            return Verdict(promote=False, text="it is the safe one already")
        if newest != (0, 0) and incumbent is None:
            return Verdict(promote=False, text="the safe one's weights are gone")
        objection = None if incumbent is None else unfit(incumbent, self._model_digest)
        if objection is not None:
            return Verdict(promote=False, text=f"the safe one cannot be played: {objection}")
        theirs = None if incumbent is None else play(incumbent)
        verdict = judge(returns, theirs, margin=self._margin)
        if verdict.promote:
            now_s = self._clock.wall()
            self._held = put_safe(self._safe, candidate, after=newest, now_s=now_s)
        return verdict
