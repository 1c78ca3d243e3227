"""Drives one run from this terminal, until its frame limit or until somebody stops it.

::

    drive
      |-- runner ray:    start_fleet, then Watch: it goes on if this terminal dies
      |-- runner local:  LocalRun.turn() again and again
      `-- at the end:    curve.png, the curve as text, the next commands
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console

from deploy.curve import points, save_png, text_plot
from deploy.local import LocalRun
from deploy.run_folder import End, RunFolder, RunRecord
from deploy.signals import Detached, Forced, Interrupts
from deploy.status import MetricsTail, status_of
from deploy.terminal import View, say
from deploy.watch import DRAINING, EVENTS_S, EventTail, Watch
from system.clock import Every, SystemClock
from system.errors import DreamfleetError, UserError


def drive(
    folder: RunFolder, console: Console, *, actors: int | None = None, detach: bool = False
) -> bool:
    """Trains until the frame limit, or until somebody stops it; returns whether it finished.

    Args:
      folder: the run.
      console: where the view is drawn.
      actors: desired actors from now on; None keeps what was wished last.
      detach: return as soon as the run goes on by itself.

    Raises:
      UserError: a mistake no restart can mend, in the words of whoever found it.
    """
    record = folder.record()
    say(console, f"run {folder.name} in {folder.path}")
    end: End | None
    try:
        if record.config.fleet.runner == "local":
            end = _local(folder, record, console)
        else:
            end = _ray(folder, record, console, actors=actors, detach=detach)
    except Detached:
        return False
    if end is None:
        _say_next(console, folder, ("status --watch", "see how it goes"), ("stop", "end it"))
        return False
    return _finished(folder, record, console, end)


def watch(folder: RunFolder, console: Console) -> bool:
    """Watches a run that another terminal started; see `drive`."""
    record = folder.record()
    say(console, f"run {folder.name} in {folder.path} goes on")
    try:
        end = Watch(folder, record, console).until_end()
    except Detached:
        return False
    return _finished(folder, record, console, end)


def _finished(folder: RunFolder, record: RunRecord, console: Console, end: End) -> bool:
    if end.how == "failed":
        raise UserError(end.text)
    _farewell(folder, record, console, finished=end.how == "finished")
    return end.how == "finished"


def _local(folder: RunFolder, record: RunRecord, console: Console) -> End:
    """All in this process."""
    clock = SystemClock()
    view, tail = View(console, clock), MetricsTail(folder.metrics_path)
    events, events_due = EventTail(since_s=clock.wall()), Every(EVENTS_S)
    with folder.locked(), _failure_told(folder), contextlib.ExitStack() as stack:
        folder.write_control("local", "", clock.wall())
        run = LocalRun(record, folder.path)
        control = run.place.control

        def tell() -> None:
            for event in events.new(control):
                view.tell(event)

        _serve(folder, record, run, console, stack)
        stack.callback(tell)
        try:
            with view, Interrupts(lambda: view.note(DRAINING)) as interrupts:
                while not (run.finished or interrupts.stopping):
                    run.turn()
                    if events_due(clock.now()):
                        tell()
                    if view.due:
                        view.show(status_of(record, tail.read(), control, alive=True))
                end = End(how="finished" if run.finished else "stopped")
                run.close()
        except Forced:
            say(console, "ended at once; what was learned since the last checkpoint is lost")
            end = End(how="stopped")
        folder.write_end(end)
    return end


@contextlib.contextmanager
def _failure_told(folder: RunFolder) -> Iterator[None]:
    """Leaves word in the folder of why a run ended."""
    try:
        yield
    except DreamfleetError as error:
        folder.write_end(End(how="failed", text=str(error)))
        raise


def _serve(
    folder: RunFolder, record: RunRecord, run: LocalRun, console: Console,
    stack: contextlib.ExitStack,
) -> None:  # fmt: skip
    """The page, from a thread of this process: it sees the log in memory."""
    if not record.config.fleet.dashboard:
        return
    from deploy.dashboard.beside import RunPage

    try:
        server = stack.enter_context(RunPage(folder).served(run.place.control))
    except UserError as error:
        say(console, f"no page: {error}")
    else:
        say(console, f"page: {server.url}")


def _ray(
    folder: RunFolder, record: RunRecord, console: Console, *, actors: int | None, detach: bool
) -> End | None:
    """Processes of their own, over Redis; None if it goes on without this terminal."""
    from deploy.start import start_fleet

    start_fleet(folder, record, actors=actors, say=lambda text: say(console, text))
    return None if detach else Watch(folder, record, console).until_end()


def _farewell(folder: RunFolder, record: RunRecord, console: Console, *, finished: bool) -> None:
    """The curve, and what to type next."""
    curve = points(folder.evaluations())
    if curve:
        save_png(folder.curve_path, curve, f"{record.config.env.name} ({folder.name})")
        say(console, "\n" + text_plot(curve))
        last = curve[-1]
        say(
            console,
            f"return {last.return_mean:.1f} +- {last.return_std:.1f} after {last.frames:,} frames, "
            f"{last.time_s / 60:.1f} min of training; picture: {folder.curve_path}",
        )
    commands = [("evaluate", "measure the policy again"), ("status", "")]
    if finished:
        commands.append(("resume --frames N", "train on to N frames"))
    else:
        commands.insert(0, ("resume", "go on where it stopped"))
    _say_next(console, folder, *commands)


def _say_next(console: Console, folder: RunFolder, *commands: tuple[str, str]) -> None:
    say(console, "\nnext:")
    for command, what in commands:
        verb, _, rest = command.partition(" ")
        line = f"dreamfleet {verb} --run {folder.name} {rest}".rstrip()
        say(console, f"  {line:<48}{what}".rstrip())
