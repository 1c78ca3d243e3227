"""Broadcasts of weights that take their time to come from the device."""

from __future__ import annotations

import pytest
import torch

from learner.copies import DeviceCopies, HostCopies
from learner.publisher import Publisher, Standing
from system.channel.memory import MemoryChannel
from system.clock import ManualClock
from system.errors import NotFinite
from system.models.weights import load_bytes
from tests.learner.test_graphed import batch_on, learning_on
from tests.learning_for_tests import make_spec


class LateCopies(HostCopies):
    """Copies that are on their way until somebody says that they are there."""

    ready = False


class Bench:
    def __init__(self, copies_of=HostCopies):
        self.learning, self.clock, self.channel = learning_on("cpu"), ManualClock(), MemoryChannel()
        self.copies, self.events, self.update = copies_of(self.learning), [], 0
        self.publisher = Publisher(
            self.channel, self.copies, self.clock, model_digest="m", publish_s=2.0,
            on_event=lambda *event: self.events.append(event),
        )  # fmt: skip

    def train(self, *, now=False):
        """Another update, and what the loop says after it."""
        self.update += 1
        self.learning.optimizer.flat.fill_(self.update)
        standing = Standing(epoch=1, update=self.update, agent_steps=0, elapsed_s=0.0)
        self.publisher.publish(standing, now=now)

    def heard(self):
        """Updates of the newest snapshot: as it says, and as its weights say."""
        snapshot = self.channel.newer_than(0, 0)
        if snapshot is None:
            return None
        other = learning_on("cpu")
        load_bytes(other.acting_modules(), snapshot.weights)
        return snapshot.update, next(other.behavior.policy.parameters()).flatten()[0].item()


def test_copies_on_the_host_are_broadcast_at_once_when_it_is_time():
    bench = Bench()
    bench.train()
    assert bench.heard() == (1, 1.0)
    bench.train()
    assert bench.heard() == (1, 1.0)
    bench.clock.sleep(2.0)
    bench.train()
    assert bench.heard() == (3, 3.0)
    assert bench.publisher.version == 2


def test_a_late_copy_is_that_of_when_it_was_time_and_updates_go_on():
    bench = Bench(LateCopies)
    for _ in range(3):
        bench.train()
        bench.clock.sleep(3.0)
    assert bench.heard() is None
    assert bench.publisher.version == 0
    bench.copies.ready = True
    bench.train()
    assert bench.heard() == (1, 1.0)  # not a mixture, and not called the fourth
    assert bench.channel.newer_than(0, 0).time_s == bench.clock.wall() - 9.0


def test_now_waits_for_the_newest():
    bench = Bench(LateCopies)
    bench.train()
    bench.train(now=True)
    assert bench.heard() == (2, 2.0)
    bench.copies.ready = True
    bench.train()
    assert bench.heard() == (2, 2.0)  # the first copy is forgotten


def test_weights_that_are_not_finite_take_no_number():
    bench = Bench()
    bench.train()
    bench.clock.sleep(2.0)
    bench.update = float("nan")
    with pytest.raises(NotFinite, match="last good version stays"):
        bench.train()
    assert bench.publisher.version == 1
    assert [kind for kind, _ in bench.events] == ["not_finite"]


@pytest.mark.gpu
def test_copies_from_a_device_are_those_of_their_moment():
    learning = learning_on("cuda")
    copies, batch = DeviceCopies(learning, torch.device("cuda")), batch_on("cuda", make_spec(), 0)
    for _ in range(3):
        wanted = HostCopies(learning)
        wanted.start()
        copies.start()
        for _ in range(5):  # goes on at once
            learning.update(batch)
        assert copies.take() == wanted.take()
    with torch.no_grad():
        learning.optimizer.flat[3] = float("inf")
    copies.start()
    assert not copies.take().finite
