"""What each role may do in Redis: named commands on named keys, nothing else. Pure.

::

    actor      appends Chunks and events, renews its lease and metrics; reads notice, policy, runs
    learner    everything of a run but its Chunks' contents: driver, supervisor, evaluator, commands
    exporter   reads leases, metrics, wishes, events, curves, dreams, runs; writes its totals
    admin      looks at everything and removes it: `dreamfleet runs rm`

Each `Rule` becomes one selector of an ACL file (Redis >= 7, Valkey). Scripts, functions, KEYS,
DUMP, RESTORE, FLUSHALL, CONFIG, MODULE, DEBUG, ACL and SHUTDOWN are nobody's: whoever owns the
server changes its files and sends it signals. Actors share one user and trust each other so far:
XINFO shows the first and last Chunk of any slot, and XADD can shorten a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from system.keys import RUNS, Keys

Role: TypeAlias = Literal["actor", "learner", "exporter", "admin"]
ROLES: list[Role] = list(get_args(Role))
_KEYS = Keys("*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Commands that are allowed on some keys."""

    commands: str
    """As an ACL names them, `parent|child` for one subcommand; separated by spaces."""
    keys: list[str]
    """Patterns."""
    access: Literal["R", "W", "RW"]


def _slots(key_of_slot_0: str) -> str:
    return key_of_slot_0.removesuffix("0") + "[0-9]*"


_RUN = f"{_KEYS.events.removesuffix('events')}*"
"""Every key of every run, not the list of runs."""
LOGS = _slots(_KEYS.log(0))
POLICIES = [_KEYS.policy(), _KEYS.policy("policy:*")]
"""Manifests; the second also matches every piece."""
LEASES = _slots(_KEYS.lease("*", 0))
METRICS = _slots(_KEYS.metrics("*", 0))
BLOBS = _KEYS.blob("*")

BARE: dict[Role, str] = {
    "actor": "ping select scan",
    "learner": "ping select scan multi exec discard unwatch",
    "exporter": "ping select scan info",
    "admin": "ping select scan info",
}
"""Commands without keys."""

RULES: dict[Role, list[Rule]] = {
    "actor": [
        Rule(commands="xadd", keys=[LOGS, _KEYS.events], access="W"),
        Rule(commands="sadd", keys=[_KEYS.slots], access="W"),
        Rule(
            commands="set del",
            keys=[_slots(_KEYS.lease("actor", 0)), _slots(_KEYS.metrics("actor", 0))],
            access="W",
        ),
        Rule(commands="xinfo|stream", keys=[LOGS], access="R"),
        Rule(commands="xrevrange getrange", keys=[_KEYS.learner, *POLICIES], access="R"),
        Rule(commands="get mget", keys=[_KEYS.desired, LEASES], access="R"),
        Rule(commands="hget hgetall", keys=[RUNS], access="R"),
    ],
    "learner": [
        Rule(
            commands="xadd xtrim xrevrange xinfo|stream watch set getrange persist unlink",
            keys=[_KEYS.learner, *POLICIES],
            access="RW",
        ),
        Rule(commands="xread xtrim xinfo|stream", keys=[LOGS], access="RW"),
        Rule(commands="smembers", keys=[_KEYS.slots], access="R"),
        Rule(commands="get mget set del watch", keys=[_KEYS.desired, LEASES, METRICS], access="RW"),
        Rule(commands="xadd xrevrange", keys=[_KEYS.events], access="RW"),
        Rule(commands="set getrange", keys=[BLOBS], access="RW"),
        Rule(commands="xadd xrange", keys=[_KEYS.history], access="RW"),
        Rule(commands="hget hgetall hset", keys=[RUNS], access="RW"),
        Rule(commands="memory|usage", keys=[_RUN], access="R"),
    ],
    "exporter": [
        Rule(commands="get mget", keys=[_KEYS.desired, LEASES, METRICS], access="R"),
        Rule(commands="xrevrange", keys=[_KEYS.events], access="R"),
        Rule(commands="getrange", keys=[BLOBS], access="R"),
        Rule(commands="xrange", keys=[_KEYS.history], access="R"),
        Rule(commands="get set", keys=[_KEYS.totals], access="RW"),
        Rule(commands="hget hgetall", keys=[RUNS], access="R"),
    ],
    "admin": [
        Rule(
            commands="get mget getrange xrange xrevrange xinfo|stream memory|usage unlink",
            keys=[_RUN],
            access="RW",
        ),
        Rule(commands="hget hgetall hdel", keys=[RUNS], access="RW"),
    ],
}


def acl_line(role: Role, password_sha256: str) -> str:
    """The role's line of an ACL file.

    Args:
      role: becomes the user's name.
      password_sha256: of its password, in hexadecimal.
    """
    selectors = " ".join(map(_selector, RULES[role]))
    return f"user {role} reset on #{password_sha256} {_allow(BARE[role])} {selectors}"


def _selector(rule: Rule) -> str:
    sign = "~" if rule.access == "RW" else f"%{rule.access}~"
    return f"({_allow(rule.commands)} {' '.join(sign + key for key in rule.keys)})"


def _allow(commands: str) -> str:
    return " ".join(f"+{command}" for command in commands.split())
