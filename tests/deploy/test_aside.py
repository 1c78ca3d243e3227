"""Telling and asking without waiting."""

from __future__ import annotations

import threading
import time

import pytest

from deploy.aside import Inquiry, control_aside
from system.control.memory import MemoryControl
from system.control.protocol import Event
from system.errors import Unavailable
from tests.waiting import DEADLINE_S, wait_until


class Far(MemoryControl):
    """Every call takes its time; the first ones are lost."""

    def __init__(self, *, takes_s: float, lost: int = 0) -> None:
        super().__init__()
        self.takes_s, self.lost = takes_s, lost

    def record(self, event: Event) -> None:
        time.sleep(self.takes_s)
        self.lost -= 1
        if self.lost >= 0:
            raise Unavailable("the connection is lost")
        super().record(event)


def event(number: int) -> Event:
    return Event(time_s=0.0, role="actor", slot=1000, kind="tested", text=f"{number}")


@pytest.mark.parametrize("takes_s", [0.0, 0.2])
@pytest.mark.parametrize("lost", [0, 3])
def test_events_told_aside_arrive_once_and_in_order(takes_s: float, lost: int) -> None:
    far = Far(takes_s=takes_s, lost=lost)
    aside = control_aside(far)
    untold = [event(number) for number in range(4)]
    deadline_s = time.monotonic() + DEADLINE_S
    while untold or len(far.events()) < 4:
        try:  # as a Reporter does with every heartbeat; the last one is told again at once
            aside.record(untold[0] if untold else event(-1))
            untold = untold[1:]
        except Unavailable:
            time.sleep(0.01)
        assert time.monotonic() < deadline_s
    assert [one.text for one in far.events()][:4] == ["0", "1", "2", "3"]


def test_an_inquiry_is_answered_later_and_never_waits() -> None:
    may_answer, numbers = threading.Event(), iter(range(9))

    def ask() -> int:
        may_answer.wait(DEADLINE_S)
        return next(numbers)

    inquiry = Inquiry(ask)
    assert [inquiry(), inquiry(), inquiry()] == [None, None, None]
    may_answer.set()
    answers: list[int | None] = []
    while len(answers) < 2:
        answer = inquiry()
        answers += [] if answer is None else [answer]
        time.sleep(0.01)
    assert answers == [0, 1], "asked once at a time"


def test_what_the_question_raises_is_raised_and_it_is_asked_again() -> None:
    answers = iter([Unavailable("away"), 5])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    inquiry = Inquiry(ask)
    assert inquiry() is None
    with pytest.raises(Unavailable):
        wait_until(inquiry, "answered")
    assert wait_until(inquiry, "answered") == 5
