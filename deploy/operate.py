"""`status`, `scale`, `stop`: commands for a run that another terminal drives."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

from deploy.run_folder import ControlFile, RunFolder
from deploy.status import MetricsTail, Status, status_of
from deploy.terminal import number, percent
from system.clock import SystemClock
from system.control.protocol import Control
from system.control.redis import RedisControl
from system.errors import RunError, Unavailable

WAIT_S = 180.0
LOOK_S = 0.2
REPLY_TIMEOUT_S = 3.0


def status(options: argparse.Namespace) -> None:
    """`dreamfleet status`: works while the run goes on and after."""
    folder = RunFolder.open(Path.cwd(), options.run)
    now = _status(folder)
    if options.json:
        sys.stdout.write(json.dumps(now.to_json()) + "\n")
        return
    sys.stdout.write(_for_people(now))


def scale(options: argparse.Namespace) -> None:
    """`dreamfleet scale N`: stores the wish; `--wait` returns when it is fulfilled.

    Raises:
      RunError: the run is not running, has no actors of its own, or did not get there in time.
    """
    folder = RunFolder.open(Path.cwd(), options.run)
    control = _control_of_running(folder, "scale")
    desired = control.change_desired(actors=options.actors)
    clock = SystemClock()
    deadline_s = clock.now() + WAIT_S
    while True:
        now = _status(folder, control)
        there = now.actors.running == options.actors
        if there or not options.wait or clock.now() > deadline_s:
            break
        clock.sleep(LOOK_S)
    actors = now.actors
    sys.stdout.write(
        f"actors of {folder.name}: desired {desired.actors}, running {actors.running}, pending "
        f"{actors.pending} (generation {desired.generation})\n"
    )
    for slot, reason in actors.reasons.items():
        sys.stdout.write(f"  actor {slot}: {reason}\n")
    if options.wait and not there:
        raise RunError(f"{actors.running} of {options.actors} actors run after {WAIT_S:.0f} s")


def stop(options: argparse.Namespace) -> None:
    """`dreamfleet stop`: returns when the run has drained and saved.

    Raises:
      RunError: it runs on another machine, or did not end in time.
    """
    folder = RunFolder.open(Path.cwd(), options.run)
    if not folder.in_use():
        sys.stdout.write(f"run {folder.name} is not running\n")
        return
    file = _control_file(folder)
    if file.runner == "ray":
        try:
            _control_of_running(folder, "stop").change_desired(stopping=True)
        except Unavailable:
            _interrupt(folder, file)
    else:
        _interrupt(folder, file)
    clock = SystemClock()
    deadline_s = clock.now() + WAIT_S
    while folder.in_use():
        if clock.now() > deadline_s:
            raise RunError(
                f"run {folder.name!r} did not end within {WAIT_S:.0f} s; it is process {file.pid} "
                f"on {file.host}"
            )
        clock.sleep(LOOK_S)
    sys.stdout.write(
        f"run {folder.name} is stopped; go on with: dreamfleet resume --run {folder.name}\n"
    )


def _status(folder: RunFolder, control: Control | None = None) -> Status:
    record, alive = folder.record(), folder.in_use()
    file = folder.control()
    values = MetricsTail(folder.metrics_path).read()
    if control is None and alive and file is not None and file.runner == "ray":
        control = RedisControl(file.redis, record.run_id, timeout_s=REPLY_TIMEOUT_S)
    with contextlib.suppress(Unavailable):
        return status_of(record, values, control, alive=alive)
    return status_of(record, values, None, alive=alive)


def _control_file(folder: RunFolder) -> ControlFile:
    file = folder.control()
    if file is None:
        raise RunError(f"run {folder.name!r} is just starting; try again in some seconds")
    return file


def _control_of_running(folder: RunFolder, command: str) -> Control:
    if not folder.in_use():
        raise RunError(
            f"run {folder.name!r} is not running, so there is nothing to {command}; start it with: "
            f"dreamfleet resume --run {folder.name}"
        )
    file = _control_file(folder)
    if file.runner != "ray":
        raise RunError(
            f"run {folder.name!r} is one process (--runner local) and cannot {command}; only runs "
            "with --runner ray can"
        )
    if file.redis.startswith("unix://") and file.host != socket.gethostname():
        raise RunError(f"run {folder.name!r} is controlled on {file.host}; run {command} there")
    return RedisControl(file.redis, folder.record().run_id, timeout_s=REPLY_TIMEOUT_S)


def _interrupt(folder: RunFolder, file: ControlFile) -> None:
    """The lock is held, so the process that wrote the file lives."""
    if file.host != socket.gethostname():
        raise RunError(f"run {folder.name!r} is driven on {file.host}; stop it there")
    os.kill(file.pid, signal.SIGTERM)


def _for_people(now: Status) -> str:
    actors, replay = now.actors, now.replay
    limit = f" of {now.frames_limit:,}" if now.frames_limit else ""
    rows = [
        ("run", f"{now.run} ({'running' if now.alive else 'not running'})"),
        ("frames", f"{now.frames:,}{limit}"),
        ("updates", f"{now.updates:,} ({number(now.updates_per_s, '.1f')}/s)"),
        ("return", f"{number(now.return_mean, '.1f')} (acting "
                   f"{number(now.acting_return_mean, '.1f')})"),
        ("policy", f"version {number(now.policy_version, 'd')}, "
                   f"{number(now.policy_age_s, '.1f')} s old"),
        ("replay", f"{number(replay['steps'], ',.0f')} steps, {percent(replay['fill'])} full, "
                   f"ratio {number(replay['ratio'], '.1f')} of "
                   f"{number(replay['ratio_target'], '.0f')}"),
        ("actors", f"desired {actors.desired}, running {actors.running}, pending "
                   f"{actors.pending}"),
    ]  # fmt: skip
    lines = [f"{label:<8} {text}" for label, text in rows]
    lines += [f"  actor {slot} pending: {reason}" for slot, reason in actors.reasons.items()]
    return "\n".join(lines) + "\n"
