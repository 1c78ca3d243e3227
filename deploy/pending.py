"""Why wanted members of a fleet are not there, and what of it is worth telling."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.fleet import Fleet
from deploy.reconcile import Member, Observed, Phase, Rules, Wanted, backoff_s

PENDING_AFTER_S = 5.0


class Pending:
    """Remembers the reasons told, so that each is told once.

    The loop that uses it::

        for member, reason in pending.news(wanted, observed, clock.now()).items():
            tell(member, reason)
    """

    def __init__(self, fleet: Fleet, rules: Rules) -> None:
        self._fleet, self._rules = fleet, rules
        self._reasons: dict[Member, str] = {}

    def news(
        self, wanted: Wanted, observed: Mapping[Member, Observed], now_s: float
    ) -> dict[Member, str]:
        """Reasons that are new, of members that are awaited for long."""
        before, self._reasons = self._reasons, {}
        for member in wanted.members:
            seen = observed.get(member, Observed())
            if seen.seen_s is None or seen.phase is Phase.FAILED:
                self._reasons[member] = self._reason(member, seen, now_s)
        return {
            member: reason
            for member, reason in self._reasons.items()
            if reason != before.get(member)
            and "starting" not in reason
            and _is_long_awaited(observed.get(member, Observed()), now_s)
        }

    def _reason(self, member: Member, seen: Observed, now_s: float) -> str:
        if seen.phase is Phase.FAILED:
            rest_s = seen.since_s + backoff_s(seen.failures, self._rules) - now_s
            return f"restarts in {max(rest_s, 0):.0f} s: {seen.reason}"
        if now_s - seen.since_s < PENDING_AFTER_S:
            return "starting"
        return self._fleet.why_pending(member)


def _is_long_awaited(seen: Observed, now_s: float) -> bool:
    """That it failed was told; its countdown is not."""
    return seen.phase is not Phase.FAILED and now_s - seen.since_s >= PENDING_AFTER_S
