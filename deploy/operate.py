"""`status`, `scale`, `slot`, `stop`: commands for a run that goes on by itself, wherever it is."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from rich.console import Console

from deploy.actors_status import ActorsStatus, actors_of
from deploy.operated import FolderRun, Target
from deploy.status import Status
from deploy.target import find_target
from deploy.terminal import View, number, pending_lines, percent
from system.clock import SystemClock
from system.control.protocol import Control, Desired
from system.errors import ConfigError, RunError, Unavailable

STOP_WAIT_S = 180.0
LOOK_S = 0.2
DRAW_S = 1.0


def status(options: argparse.Namespace) -> None:
    """`dreamfleet status`: works while the run goes on and after."""
    if options.watch and options.json:
        raise ConfigError("--watch draws for people and --json prints once; give one of them")
    target = find_target(options, Path.cwd())
    if options.watch:
        _watch(target)
        return
    now = target.status()
    if options.json:
        sys.stdout.write(json.dumps(now.to_json()) + "\n")
        return
    sys.stdout.write(_for_people(now))


def scale(options: argparse.Namespace) -> None:
    """`dreamfleet scale N`: stores the wish; `--wait` returns when it is fulfilled.

    Raises:
      RunError: the run is not running, has no actors of its own, or did not get there in time.
    """
    target = find_target(options, Path.cwd())
    control = target.control("scale")
    wish = options.actors
    desired = control.change_desired(actors=wish.actors, delta=wish.delta)
    try:
        if options.wait:
            _wait_for(control, desired, options.timeout)
    finally:
        with contextlib.suppress(Unavailable):
            sys.stdout.write(_fleet_for_people(target.name, control, desired))


def slot(options: argparse.Namespace) -> None:
    """`dreamfleet slot N drain|restart|start`: stores the wish; the supervisor fulfils it.

    Raises:
      ConfigError: the slot is not one of the fleet.
      RunError: the run is not running, or has no actors of its own.
    """
    target = find_target(options, Path.cwd())
    control = target.control("slot")
    desired = control.ask_slot(options.slot, options.action)
    with contextlib.suppress(Unavailable):
        sys.stdout.write(_fleet_for_people(target.name, control, desired))


def stop(options: argparse.Namespace) -> None:
    """`dreamfleet stop`: returns when the run has drained and saved.

    Raises:
      RunError: it runs on another machine, or did not end in time.
    """
    target = find_target(options, Path.cwd())
    if not target.alive():
        sys.stdout.write(f"run {target.name} is not running\n")
        return
    target.stop()
    clock = SystemClock()
    deadline_s = clock.now() + STOP_WAIT_S
    while _goes_on(target):
        if clock.now() > deadline_s:
            raise RunError(
                f"run {target.name!r} did not end within {STOP_WAIT_S:.0f} s; it is {target.where}"
            )
        clock.sleep(LOOK_S)
    place = "" if isinstance(target, FolderRun) else f"    (in {target.where})"
    sys.stdout.write(
        f"run {target.name} is stopped; go on with: dreamfleet resume --run {target.name}{place}\n"
    )


def _goes_on(target: Target) -> bool:
    try:
        return target.alive()
    except Unavailable:  # it is asked already; its end is waited for
        return True


def _wait_for(control: Control, desired: Desired, timeout_s: float) -> None:
    """Returns when the fleet is as `desired`; Redis may be away meanwhile."""
    clock = SystemClock()
    deadline_s = clock.now() + timeout_s
    actors = ActorsStatus()
    while clock.now() <= deadline_s:
        with contextlib.suppress(Unavailable):
            now = control.desired()
            if now.generation > desired.generation:
                raise RunError(
                    f"somebody else changed the wish meanwhile: {now.actors} actors"
                    + (", and to stop" if now.stopping else "")
                )
            actors = actors_of(control, control.leases())
            if actors.settled:
                return
        clock.sleep(LOOK_S)
    raise RunError(f"{actors.running} of {desired.actors} actors run after {timeout_s:g} s")


def _watch(target: Target) -> None:
    """Draws until Ctrl-C or the end; the last picture stays while Redis is away."""
    clock, now = SystemClock(), target.status()
    with View(Console(), clock, draw_s=DRAW_S) as view, contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                now, trouble = target.status(), ""
            except Unavailable as error:
                trouble = str(error)
            view.note(trouble or ("" if now.alive else now.phase))
            if view.due or not now.alive:
                view.show(now)
            if not now.alive:
                return
            clock.sleep(DRAW_S)


def _fleet_for_people(name: str, control: Control, desired: Desired) -> str:
    actors = actors_of(control, control.leases())
    lines = [f"actors of {name}: {actors} (generation {desired.generation})"]
    lines += [f"  {line}" for line in pending_lines(actors)]
    return "\n".join(lines) + "\n"


def _for_people(now: Status) -> str:
    replay = now.replay
    limit = f" of {now.frames_limit:,}" if now.frames_limit else ""
    rows = [
        ("run", f"{now.run} ({now.phase})"),
        ("frames", f"{now.frames:,}{limit}"),
        ("updates", f"{now.updates:,} ({number(now.updates_per_s, '.1f')}/s)"),
        ("return", f"{number(now.return_mean, '.1f')} (acting "
                   f"{number(now.acting_return_mean, '.1f')})"),
        ("policy", f"version {number(now.policy_version, 'd')}, "
                   f"{number(now.policy_age_s, '.1f')} s old"),
        ("replay", f"{number(replay['steps'], ',.0f')} steps, {percent(replay['fill'])} full, "
                   f"ratio {number(replay['ratio'], '.1f')} of "
                   f"{number(replay['ratio_target'], '.0f')}"),
    ]  # fmt: skip
    if now.alive:  # of a run at rest the wish is kept, but not here
        rows.append(("actors", str(now.actors)))
        rows.append(("learner", now.doing.get("learner", "starting")))
    if now.page:
        rows.append(("page", now.page))
    lines = [f"{label:<8} {text}" for label, text in rows]
    lines += [f"  {line}" for line in pending_lines(now.actors)]
    return "\n".join(lines) + "\n"
