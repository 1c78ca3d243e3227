"""`dreamfleet actor`: an actor that needs no Ray, only the URL of the run's Redis.

::

    registry (which run, which environment) -> lease of slot 1000, 1001, ... -> what an earlier life
    left -> claim -> act, for ever; Chunks lie on disk until durable -> Ctrl-C: drain, say what is
    left

It never pauses for want of credit or of Redis (`sender.py`, `aside.py`). It waits, between
episodes, while the run is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

from actors.actor import Actor
from actors.report import LEASE_HEARTBEATS
from deploy.aside import Inquiry
from deploy.own_lease import OwnLease
from deploy.own_slot import OwnSlot, SpoolBudget, check_slot, take_slot
from deploy.parts import DiskSpool, build_actor
from deploy.place import Place, who
from deploy.signals import Forced, Interrupts
from deploy.site import Site, find_site
from deploy.terminal import clock_time, number
from system.clock import Clock, Every, SystemClock
from system.control.protocol import Event
from system.errors import Fenced, Unavailable
from system.tick import Progress, Wait

LINE_S = 5.0
LOOK_S = 1.0
"""How often to ask whether the run is stopped [s]."""
TURN_S = 0.1
DRAIN_S = 10.0
"""How long the end waits for the store to have everything [s]."""
SETTLE_S = 5.0
"""And then for the learner to make it durable [s]."""

ResultT = TypeVar("ResultT")


def act(options: argparse.Namespace) -> None:
    """`dreamfleet actor`.

    Raises:
      UserError: no such run, a slot that is held, another environment than the run's.
      Fenced: somebody newer took the slot; what this actor held is in its spool folder.
    """
    if options.slot is not None:
        check_slot(options.slot)
    console, clock = Console(), SystemClock()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    note = "stopping: sends what is there (Ctrl-C again ends at once)"
    with Interrupts(lambda: say(note)) as interrupts:
        try:
            _Session(options, clock, say, lambda: interrupts.stopping).run()
        except Forced:
            say("ended at once; the next `dreamfleet actor` of this slot sends what is left")
        except _Stopped:
            say("ended before it began; nothing was acted")


class _Stopped(Exception):
    """The user does not want to wait any longer."""


class _Session:
    """One life of one actor."""

    def __init__(
        self, options: argparse.Namespace, clock: Clock, say: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._options, self._clock, self._say, self._stopping = options, clock, say, stopping
        self._line, self._look = Every(LINE_S), Every(LOOK_S)
        self._began_s = clock.now()
        self._who = who()
        self._actor: Actor | None = None
        self._held = False

    def run(self) -> None:
        """From the registry to the last word."""
        site = self._patiently(lambda: find_site(self._options))
        ttl_s = LEASE_HEARTBEATS * site.record.config.actor.heartbeat_s
        lease = OwnLease(site.place.control, self._clock, who=self._who, ttl_s=ttl_s)
        own = self._patiently(lambda: self._take(site, lease))
        config = site.record.config
        torch.set_num_threads(config.actor.torch_threads)
        torch.manual_seed(config.seed + 1 + own.slot)
        self._say(
            f"run {site.entry.name}, slot {own.slot}, {config.actor.copies} copies of "
            f"{config.env.name}, follows {self._options.follow}; spool {own.shelf.folder}"
        )
        with contextlib.closing(own.shelf):
            disk = DiskSpool(shelf=own.shelf, who=self._who, thin=self._options.when_full == "thin")
            with lease.kept(own.slot):
                self._actor = build_actor(
                    site.record, own.slot, site.place, follow=self._options.follow, disk=disk
                )
            with self._ending(self._actor, own, site.place):
                self._act(self._actor, own, site)
                self._drain(self._actor)

    def _take(self, site: Site, lease: OwnLease) -> OwnSlot:
        budget = SpoolBudget(
            max_bytes=self._options.spool_bytes,
            memory_bytes=site.record.config.actor.retain_bytes,
        )
        folder = Path(self._options.spool).absolute() / site.entry.run_id
        return take_slot(self._options.slot, lease, folder, budget, self._tell)

    def _patiently(self, ask: Callable[[], ResultT]) -> ResultT:
        """Asks until Redis answers. Raises _Stopped."""
        while not self._stopping():
            try:
                return ask()
            except Unavailable as error:
                if self._line(self._clock.now()):
                    self._say(f"waiting: {error}")
            self._clock.sleep(LOOK_S)
        raise _Stopped

    def _act(self, actor: Actor, own: OwnSlot, site: Site) -> None:
        def ask() -> bool:
            entry = site.registry.get(site.entry.run_id)
            ended = entry is not None and entry.ended != ""
            return ended or site.place.control.desired().stopping

        is_over = Inquiry(ask)
        while not self._stopping():
            turn = actor.tick()
            now_s = self._clock.now()
            if self._look(now_s):
                self._hold_while(is_over, actor)
            if self._line(now_s):
                self._say(progress_line(actor, own, turn, now_s - self._began_s))
            if isinstance(turn, Wait):
                self._clock.sleep(min(turn.seconds, TURN_S))

    def _hold_while(self, is_over: Inquiry[bool], actor: Actor) -> None:
        with contextlib.suppress(Unavailable):
            stopped = is_over()
            if stopped is None:  # not answered yet
                return
            if stopped != self._held:
                self._say("the run has ended: waiting" if stopped else "the run goes on")
            self._held = stopped
            actor.hold(stopped)

    def _drain(self, actor: Actor) -> None:
        until_s = self._clock.now() + DRAIN_S
        while actor.drain() != Progress("drained") and self._clock.now() < until_s:
            self._clock.sleep(TURN_S / 10)
        until_s = min(until_s, self._clock.now()) + SETTLE_S
        while not actor.settled and self._clock.now() < until_s:
            actor.drain()
            self._clock.sleep(TURN_S / 10)

    @contextlib.contextmanager
    def _ending(self, actor: Actor, own: OwnSlot, place: Place) -> Iterator[None]:
        """However it ends: everything that was acted is on disk, and somebody is told."""
        try:
            yield
        except Fenced as error:
            actor.spill()
            own.shelf.keep_fenced(str(error))
            with contextlib.suppress(Unavailable):
                text = f"fenced: {error}; its chunks are in {own.shelf.folder}/fenced"
                place.control.record(
                    Event(time_s=self._clock.wall(), role="actor", slot=own.slot,
                          kind="actor_fenced", text=text)
                )  # fmt: skip
            raise
        finally:
            try:
                actor.spill()
            finally:
                actor.close()
                self._say(last_word(own))

    def _tell(self, kind: str, text: str) -> None:
        self._say(f"{kind}: {text}")
        if self._actor is not None:
            self._actor.event(kind, text)


def progress_line(actor: Actor, own: OwnSlot, turn: Progress | Wait, elapsed_s: float) -> str:
    """One line for people."""
    values = actor.numbers()
    doing = f"waiting: {turn.reason}" if isinstance(turn, Wait) else "acting"
    parts = [
        clock_time(elapsed_s),
        f"slot {own.slot}",
        doing,
        f"steps {values.get('actor/agent_steps', 0):,.0f}",
        f"episodes {values.get('actor/episodes', 0):,.0f}",
        f"return {number(values.get('actor/return_mean'), '.1f')}",
        f"policy {values.get('actor/policy_version', 0):.0f}",
        f"age {number(values.get('actor/policy_age_s'), '.1f')} s",
        f"received {values.get('actor/chunks_received', 0):,.0f}",
        f"spool {own.shelf.num_chunks:,} chunks, {own.shelf.fill:.0%} full",
    ]
    return " | ".join(parts)


def last_word(own: OwnSlot) -> str:
    """What is left, and what becomes of it."""
    left = own.shelf.num_chunks
    if not left:
        return f"slot {own.slot}: nothing is left to send"
    return (
        f"slot {own.slot}: {left} chunks ({own.shelf.num_bytes:,} bytes) that are not durable are "
        f"left in {own.shelf.folder}; the next `dreamfleet actor` here sends them first"
    )
