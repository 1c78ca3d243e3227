"""`promote`, `rollback`: a person decides which policy robots run.

Both work while the run trains, and with `--redis URL` after it too.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.operated import FolderRun
from deploy.place import Place, RedisUrls, redis_place
from deploy.promote import put_safe, unfit
from deploy.run_folder import RunRecord
from deploy.target import find_target, server_urls
from system.control.protocol import Event
from system.errors import Fenced, RunError, Unavailable
from system.types import Snapshot

ROLE = "operator"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    name: str
    record: RunRecord
    place: Place


def promote(options: argparse.Namespace) -> None:
    """`dreamfleet promote`: the newest policy, or one still kept, becomes the safe one.

    Raises:
      RunError: there is no such policy, it cannot be run, or somebody else was faster.
    """
    with _found(options, "promote") as run:
        snapshot = _wanted(run, options.policy_version)
        before = run.place.safe.newest_version()
        if before[1] == snapshot.version:
            sys.stdout.write(f"policy {snapshot.version} of run {run.name} is safe already\n")
            return
        _move(run, snapshot, before, "promoted")


def rollback(options: argparse.Namespace) -> None:
    """`dreamfleet rollback`: the policy that was safe before becomes safe again.

    Raises:
      RunError: there was none before, or somebody else was faster.
    """
    with _found(options, "rollback") as run:
        safe = run.place.safe
        kept = safe.kept()
        if not kept:
            raise RunError(
                f"no policy of run {run.name!r} is safe yet; make one: dreamfleet promote"
            )
        earlier = the_one_before(kept)
        if earlier is None:
            raise RunError(
                f"nothing was safe before policy {kept[0][1]} of run {run.name!r}, or it is not "
                f"kept any more; safe policies kept: {_listed(kept)}"
            )
        snapshot = safe.get(*earlier)
        if snapshot is None:
            raise RunError(f"the weights of policy {earlier[1]} of run {run.name!r} are gone")
        _move(run, snapshot, kept[0], "rolled_back")


def the_one_before(kept: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """What was safe before the policy that is safe now; None if it is not kept. Pure.

    A promotion back to the policy before counts as taking one back: so a second rollback goes
    further, not forth again.

    Args:
      kept: (promotion, version), newest first.
    """
    history: list[tuple[int, int]] = []
    for promotion in reversed(kept):
        if len(history) > 1 and history[-2][1] == promotion[1]:
            history.pop()
        else:
            history.append(promotion)
    return history[-2] if len(history) > 1 else None


@contextlib.contextmanager
def _found(options: argparse.Namespace, verb: str) -> Iterator[_Run]:
    target = find_target(options, Path.cwd())
    if isinstance(target, FolderRun):
        target.control(verb)  # refuses a run that nobody drives: its server is gone
        file = target.folder.control()
        assert file is not None
        urls = RedisUrls(control=file.redis)
    else:
        urls = server_urls(options, "learner")
    place = redis_place(urls, target.record.run_id)
    try:
        yield _Run(name=target.name, record=target.record, place=place)
    finally:
        for part in (place.channel, place.safe, place.control):
            part.close()


def _wanted(run: _Run, version: int | None) -> Snapshot:
    """The policy of this version, or the newest one."""
    channel, safe = run.place.channel, run.place.safe
    kept, promoted = channel.kept(), safe.kept()
    if not kept and not promoted:
        raise RunError(f"run {run.name!r} has not broadcast a policy yet")
    wanted = version if version is not None or not kept else kept[0][1]
    for source, ids in ((channel, kept), (safe, promoted)):
        for each in ids:
            snapshot = source.get(*each) if each[1] == wanted else None
            if snapshot is not None:
                return snapshot
    raise RunError(
        f"policy {wanted} of run {run.name!r} is not kept any more; kept are {_listed(kept)} and, "
        f"of the safe ones, {_listed(promoted)}"
    )


def _move(run: _Run, snapshot: Snapshot, before: tuple[int, int], kind: str) -> None:
    from system.models.agent import model_digest

    objection = unfit(snapshot, model_digest(run.record.config.model, run.record.spec))
    if objection is not None:
        raise RunError(f"policy {snapshot.version} of run {run.name!r} stays unsafe: {objection}")
    now_s = run.place.clock.wall()
    try:
        put_safe(run.place.safe, snapshot, after=before, now_s=now_s)
    except Fenced as error:
        raise RunError(
            f"another policy became safe meanwhile, nothing was changed ({error}); try again"
        ) from error
    was = f"was {before[1]}" if before[1] else "the first one"
    text = f"policy {snapshot.version} is safe now ({was})"
    with contextlib.suppress(Unavailable):
        run.place.control.record(
            Event(time_s=now_s, role=ROLE, slot=0, kind=kind, text=f"{text}, by hand")
        )
    sys.stdout.write(f"{text}; robots of run {run.name} adopt it before their next episode\n")


def _listed(kept: Sequence[tuple[int, int]]) -> str:
    return ", ".join(str(version) for version in sorted({each[1] for each in kept})) or "none"
