"""Several seeds of one run: NAME-s0, NAME-s1, ..., each a run of its own, reported together.

::

    check what exists -> SeedRuns: N at a time, each `dreamfleet resume` -> runs/NAME/README.md, PNG

The same command again goes on: finished seeds are skipped, stopped ones resumed. With more
`--frames` all of them train on.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from deploy.commands import has_finished
from deploy.config import RunConfig, check_config
from deploy.results.command import collect, write_results
from deploy.results.tables import LeftOut, seeds_text
from deploy.run_folder import RUNS, RunFolder
from deploy.same_settings import refuse_other_seed
from deploy.signals import Forced, Interrupts
from deploy.status import MetricsTail
from deploy.terminal import LINE_S, number, say
from system.clock import Every, SystemClock
from system.errors import ConfigError, RunError, UserError

TURN_S = 0.2
FORCE_S = 20.0
"""Time for a run that is ended at once before it is killed [s]."""
STOPPING = "stopping: each seed drains and saves (Ctrl-C again ends at once)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one seed."""

    name: str
    how: Literal["finished", "stopped", "failed"]
    text: str = ""
    """Why it failed."""


@dataclass(kw_only=True, slots=True)
class _Running:
    folder: RunFolder
    process: subprocess.Popen[bytes]
    tail: MetricsTail


def train_seeds(
    config: RunConfig, options: argparse.Namespace, where: Path, make: Callable[[RunConfig], object]
) -> None:
    """`dreamfleet train --seeds`.

    Args:
      config: of the group; `run` is its name.
      options: of `train`.
      where: the folder that holds `runs/`.
      make: makes the folder of one run.

    Raises:
      ConfigError: options that do not fit together, or a run that exists with other settings.
      RunError: seeds failed; they are named, the others have gone on.
    """
    if options.detach:
        raise ConfigError("--detach and --seeds do not fit: this terminal starts seed after seed; "
                          "leave it out, and use nohup to log out meanwhile")  # fmt: skip
    wanted = {seed: _of_seed(config, seed) for seed in options.seeds}
    for one in wanted.values():
        _check_existing(one, where)
    console, group = Console(), where / RUNS / config.run
    runs = SeedRuns(list(wanted.values()), where, console, make, parallel=options.parallel or 1)
    outcomes = runs.until_end()
    _report(outcomes, group, console)
    if failed := [one for one in outcomes if one.how == "failed"]:
        raise RunError("; ".join(f"{one.name} failed: {one.text}" for one in failed))


def _of_seed(config: RunConfig, seed: int) -> RunConfig:
    one = replace(config, run=f"{config.run}-s{seed}", seed=seed)
    check_config(one)
    return one


def _check_existing(config: RunConfig, where: Path) -> None:
    """A run that exists must be of the same group: its seeds are compared."""
    folder = RunFolder(where / RUNS / config.run)
    if not folder.exists():
        return
    refuse_other_seed(folder, config)
    if folder.in_use():
        raise RunError(f"run {folder.name!r} is running; look with: dreamfleet status --run "
                       f"{folder.name}")  # fmt: skip


class SeedRuns:
    """Starts one process for each seed, so many at a time, and waits for all.

    The calls that use it::

        for outcome in SeedRuns(configs, where, console, make, parallel=2).until_end():
            print(outcome.name, outcome.how)
    """

    def __init__(
        self, configs: list[RunConfig], where: Path, console: Console,
        make: Callable[[RunConfig], object], *, parallel: int,
    ) -> None:  # fmt: skip
        self._waiting, self._where, self._console = list(configs), where, console
        self._make, self._parallel = make, parallel
        self._running: list[_Running] = []
        self._outcomes: list[Outcome] = []
        self._clock, self._due = SystemClock(), Every(LINE_S)

    def until_end(self) -> list[Outcome]:
        """Returns what became of each seed, in the order in which they ended."""
        try:
            with Interrupts(self._stop) as interrupts:
                while self._running or (self._waiting and not interrupts.stopping):
                    if not interrupts.stopping:
                        self._start()
                    self._collect()
                    if self._due(self._clock.now()):
                        self._tell()
                    self._clock.sleep(TURN_S)
        except Forced:
            say(self._console, "ended at once; what was learned since the last checkpoint is lost")
            self._force()
        except BaseException:
            self._force()
            raise
        self._outcomes += [Outcome(name=one.run, how="stopped") for one in self._waiting]
        return self._outcomes

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._parallel:
            config = self._waiting.pop(0)
            folder = RunFolder(self._where / RUNS / config.run)
            if not folder.exists():
                try:
                    self._make(config)
                except UserError as error:  # the others go on
                    say(self._console, f"{folder.name}: failed {error}")
                    failed = Outcome(name=folder.name, how="failed", text=str(error))
                    self._outcomes.append(failed)
                    continue
            elif has_finished(folder, config.frames):
                say(self._console, f"{folder.name}: has finished its frames")
                self._outcomes.append(Outcome(name=folder.name, how="finished"))
                continue
            say(self._console, f"{folder.name}: starts; log: {_log(folder)}")
            with _log(folder).open("ab") as log, _heard(signal.SIGINT):
                # A session of its own: Ctrl-C reaches it once, through us.
                process = subprocess.Popen(
                    [sys.executable, "-m", "deploy.cli", "resume", "--run", folder.name,
                     "--frames", str(config.frames)],
                    cwd=self._where, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            tail = MetricsTail(folder.metrics_path)
            self._running.append(_Running(folder=folder, process=process, tail=tail))

    def _collect(self) -> None:
        for one in list(self._running):
            code = one.process.poll()
            if code is not None:
                self._running.remove(one)
                outcome = _outcome(one.folder, code)
                self._outcomes.append(outcome)
                say(self._console, f"{outcome.name}: {outcome.how} {outcome.text}".rstrip())

    def _tell(self) -> None:
        for one in self._running:
            values = one.tail.read()
            say(
                self._console,
                f"{one.folder.name}: frames {values.get('frames', 0):,} | "
                f"updates {values.get('updates', 0):,} | "
                f"return {number(values.get('eval/return_mean'), '.1f')}",
            )

    def _stop(self) -> None:
        say(self._console, STOPPING)
        self._signal(self._running)

    def _force(self) -> None:
        self._signal(self._running)
        for one in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(FORCE_S)
            one.process.kill()
            one.process.wait()
            self._outcomes.append(Outcome(name=one.folder.name, how="stopped"))
        self._running.clear()

    def _signal(self, running: Iterable[_Running]) -> None:
        for one in running:
            one.process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def _heard(number: signal.Signals) -> Iterator[None]:
    """A child hears it even if we were told to ignore it (a script's `&`): only we send it."""
    before = signal.getsignal(number)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


def _outcome(folder: RunFolder, code: int) -> Outcome:
    if has_finished(folder, folder.record().config.frames):
        return Outcome(name=folder.name, how="finished")
    if code in (0, -signal.SIGINT, 128 + signal.SIGINT):
        return Outcome(name=folder.name, how="stopped")
    words = _log(folder).read_text(errors="replace").splitlines()
    last = words[-1] if words else f"exit code {code}"
    return Outcome(name=folder.name, how="failed", text=f"{last} ({_log(folder)})")


def _log(folder: RunFolder) -> Path:
    return folder.log_path / "train.log"


def _report(outcomes: list[Outcome], group: Path, console: Console) -> None:
    """Those that finished, together; and how to go on with the others."""
    finished = [group.parent / one.name for one in outcomes if one.how == "finished"]
    if finished:
        missing = [LeftOut(name=one.name, reason=f"{one.how} {one.text}".rstrip())
                   for one in outcomes if one.how != "finished"]  # fmt: skip
        found = collect(finished)
        found = replace(found, left_out=[*found.left_out, *missing])
        write_results(found, group)
        for one in found.summaries:
            measured = zip(one.group.runs, one.evaluated.values, strict=True)
            for run, value in measured:
                say(console, f"  {run.name:<32}{value:>10.1f}")
            low, high = one.evaluated.low, one.evaluated.high
            between = "" if low is None else f" [{low:.1f}, {number(high, '.1f')}] 95 %"
            say(
                console,
                f"return after {one.frames:,} frames, {seeds_text(len(one.group.runs))}: "
                f"IQM {one.evaluated.iqm:.1f}{between}; report: {group / 'README.md'}",
            )
    if len(finished) < len(outcomes):
        say(console, f"{len(finished)} of {len(outcomes)} seeds have finished; go on: the same "
            f"command, with --run {group.name}")  # fmt: skip
