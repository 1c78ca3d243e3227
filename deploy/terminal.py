"""The live view of a run: a panel on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.actors_status import ActorsStatus
from deploy.status import Status
from system.clock import Clock, Every
from system.control.protocol import Event

DRAW_S = 0.5
LINE_S = 10.0
RATE_WINDOW_S = 60.0
MOST_SLOTS = 8
"""So many slots are named in a line."""


class Eta:
    """Remaining time from the frames of the last minute. Pure."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, now_s: float, frames: int, limit: int) -> float | None:
        """Seconds until `limit` frames [s]; None without a limit or before anything moved."""
        self._seen.append((now_s, frames))
        while now_s - self._seen[0][0] > RATE_WINDOW_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        if not limit or frames <= before:
            return None
        return max(0.0, limit - frames) * (now_s - then_s) / (frames - before)


class View:
    """Shows a run while it goes on.

    The loop that uses it::

        with View(console, clock) as view:
            while running:
                view.show(status)
    """

    def __init__(self, console: Console, clock: Clock, *, draw_s: float = DRAW_S) -> None:
        """`draw_s`: time between two panels on a terminal [s]."""
        self._console, self._clock = console, clock
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._due = Every(draw_s if self._live else LINE_S)
        self._eta = Eta()
        self._note = ""

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    @property
    def due(self) -> bool:
        """Whether to show a status now; asking starts the next interval."""
        return self._due(self._clock.now())

    def show(self, status: Status) -> None:
        """Draws the panel, or prints a line."""
        eta_s = self._eta(self._clock.now(), status.frames, status.frames_limit)
        if self._live:
            self._live.update(panel(status, eta_s, self._note), refresh=True)
        else:
            self.say(plain_line(status, eta_s))

    def tell(self, event: Event) -> None:
        """Prints what happened, in a line; the rest is in the events."""
        first, *rest = f"{event.kind}: {event.text}".splitlines()
        # Whoever may write events could otherwise move the cursor of those who read them.
        shown = "".join(letter if letter.isprintable() else "?" for letter in first)
        self.say(shown + (" ..." if rest else ""))

    def note(self, text: str) -> None:
        """A line that stays under the panel; an empty one takes it away."""
        if text and text != self._note and not self._live:
            self.say(text)
        self._note = text

    def say(self, text: str) -> None:
        """Prints one line, above the panel if there is one."""
        say(self._console, text)


def say(console: Console, text: str) -> None:
    """Prints one line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def plain_line(status: Status, eta_s: float | None) -> str:
    """One line for logs."""
    actors = status.actors
    parts = [
        f"{clock_time(status.elapsed_s)}",
        f"frames {status.frames:,}" + (f"/{status.frames_limit:,}" if status.frames_limit else ""),
        f"updates {status.updates:,} ({number(status.updates_per_s, '.1f')}/s)",
        f"return {number(status.return_mean, '.1f')}",
        f"acting {number(status.acting_return_mean, '.1f')}",
        f"replay {percent(status.replay.get('fill'))}",
        f"ratio {number(status.replay.get('ratio'), '.1f')}",
        f"policy {number(status.policy_version, 'd')}",
        f"age {number(status.policy_age_s, '.1f')} s",
        f"actors {actors.running}/{actors.desired}",
    ]
    for role in ("learner", "evaluator"):  # what takes long
        doing = status.doing.get(role, "")
        if doing.startswith(("restoring", "evaluating")):
            parts.append(doing)
    if eta_s is not None:
        parts.append(f"ETA {clock_time(eta_s)}")
    return " | ".join(parts)


def panel(status: Status, eta_s: float | None, note: str) -> Panel:
    """The whole view."""
    table = Table.grid(padding=(0, 3))
    for label, value, label_2, value_2 in _rows(status, eta_s):
        table.add_row(
            Text(label, style="dim"), Text(value), Text(label_2, style="dim"), Text(value_2)
        )
    limit = status.frames_limit or None
    # In a table: a bare bar would not end its line.
    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=limit, completed=status.frames, pulse=limit is None))
    below = [Text(line, style="yellow") for line in pending_lines(status.actors)]
    if note:
        below.append(Text(note, style="bold yellow"))
    title = f"dreamfleet · {status.run}" + ("" if status.alive else f" ({status.phase})")
    return Panel(Group(bar, table, *below), title=Text(title), title_align="left")


def pending_lines(actors: ActorsStatus) -> list[str]:
    """Why slots are pending, one line for each reason: of many slots it is mostly one."""
    slots: dict[str, list[str]] = {}
    for slot, reason in actors.reasons.items():
        slots.setdefault(reason, []).append(slot)
    lines = []
    for reason, those in slots.items():
        some = ", ".join(those[:MOST_SLOTS]) + (", ..." if len(those) > MOST_SLOTS else "")
        one = len(those) == 1
        lines.append(f"actor {some} pending: {reason}" if one
                     else f"{len(those)} actors ({some}) pending: {reason}")  # fmt: skip
    return lines


def _rows(status: Status, eta_s: float | None) -> list[tuple[str, str, str, str]]:
    actors, replay = status.actors, status.replay
    frames = f"{status.frames:,}" + (f" of {status.frames_limit:,}" if status.frames_limit else "")
    ratio = f"{number(replay.get('ratio'), '.1f')} of {number(replay.get('ratio_target'), '.0f')}"
    fleet = f"{actors.running} running of {actors.desired}"
    for number_of, word in ((actors.starting, "starting"), (actors.pending, "pending"),
                            (actors.own, "own")):  # fmt: skip
        fleet += f", {number_of} {word}" if number_of else ""
    policy = f"{number(status.policy_version, 'd')}, {number(status.policy_age_s, '.1f')} s old"
    return [
        ("frames", frames, "return (evaluated)", number(status.return_mean, ".1f")),
        ("updates", f"{status.updates:,}", "return (acting)",
         number(status.acting_return_mean, ".1f")),
        ("updates/s", number(status.updates_per_s, ".1f"), "policy version", policy),
        ("replay", f"{number(replay.get('steps'), ',.0f')} steps, {percent(replay.get('fill'))}",
         "replay ratio", ratio),
        ("actors", fleet, "learner", status.doing.get("learner", "-")),
        ("evaluator", status.doing.get("evaluator", "-"), "supervisor",
         status.doing.get("supervisor", "-")),
        ("time", clock_time(status.elapsed_s), "ETA",
         "-" if eta_s is None else clock_time(eta_s)),
    ]  # fmt: skip


def clock_time(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: float | None, form: str) -> str:
    """A number, or `-` while it is not known."""
    return "-" if value is None else format(value, form)


def percent(value: float | None) -> str:
    """A share as percent, or `-` while it is not known."""
    return "-" if value is None else f"{100 * value:.1f}%"
