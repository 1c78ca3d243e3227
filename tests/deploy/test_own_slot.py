"""Which slot an actor started by hand takes."""

from __future__ import annotations

import pytest

from deploy.own_lease import OwnLease
from deploy.own_slot import SpoolBudget, take_slot
from system.clock import SystemClock
from system.control.memory import MemoryControl
from system.control.protocol import Lease
from system.errors import ConfigError, RunError
from system.log.messages import encode_claim
from system.log.protocol import Claim
from system.log.spool import Item
from system.types import EntryId
from tests.waiting import wait_until

BUDGET = SpoolBudget(max_bytes=1 << 20, memory_bytes=1 << 20)


@pytest.fixture
def take(tmp_path):
    shelves = []

    def taken(slot=None, *leases, control=None, spool="spool"):
        control = control or MemoryControl()
        for one in leases:
            control.renew(one, ttl_s=60)
        ours = OwnLease(control, SystemClock(), who="here:2:ef", ttl_s=60)
        own = take_slot(slot, ours, tmp_path / spool, BUDGET, lambda kind, text: None)
        shelves.append(own.shelf)
        return own

    yield taken
    for shelf in shelves:
        shelf.close()


def lease(slot, who="there:7:ab"):
    return Lease(role="actor", slot=slot, incarnation=3, who=who, doing="acting", time_s=0.0)


def leave(own, who):
    """What an actor leaves that dies with one Chunk unsent."""
    claim = Claim(who=who, spec_digest="", num_copies=1)
    own.shelf.put(Item(entry_id=EntryId(3, 0), payload=encode_claim(claim)))
    own.shelf.put(Item(entry_id=EntryId(3, 1), payload=b"chunk"))
    own.shelf.close()


def test_the_first_free_one_from_1000_on(take):
    assert take().slot == 1000
    assert take().slot == 1001, "1000 is in use on this machine"
    assert take(None, lease(1002), lease(7)).slot == 1003


def test_robots_that_start_together_take_different_slots(take):
    control = MemoryControl()
    assert take(control=control).slot == 1000
    found = control.leases()
    assert [(one.slot, one.who, one.doing) for one in found] == [(1000, "here:2:ef", "starting")]
    control.renew(lease(1000), ttl_s=60)
    assert take(control=control, spool="of another machine").slot == 1001


def test_what_people_keep_beside_the_slots_is_theirs(take, tmp_path):
    for name in ("1000-old", "3", "9" * 30):
        (tmp_path / "spool" / name).mkdir(parents=True)
        (tmp_path / "spool" / name / "1-1").write_bytes(b"chunk")
    assert take().slot == 1000


def test_a_lease_is_kept_while_it_builds_and_given_back_if_it_cannot():
    class Counting(MemoryControl):
        renewals = 0

        def renew(self, lease, *, ttl_s):
            assert ttl_s == 0.3
            super().renew(lease, ttl_s=60)  # renewed in time or not is the machine's business
            self.renewals += 1

    control = Counting()
    ours = OwnLease(control, SystemClock(), who="here:2:ef", ttl_s=0.3)
    assert ours.take(1000, earlier="") == ""

    def build():
        with ours.kept(1000):
            wait_until(lambda: control.renewals > 3, "renewed again and again")
            assert [one.who for one in control.leases()] == ["here:2:ef"]
            raise ConfigError("no such environment")

    with pytest.raises(ConfigError):
        build()
    assert control.leases() == []


def test_slots_of_the_fleet_are_refused(take):
    with pytest.raises(ConfigError, match="--slot 12 belongs to the supervised fleet"):
        take(12)


def test_a_held_slot_is_refused_by_name(take):
    with pytest.raises(RunError, match=r"slot 1005 is held by there:7:ab \(acting\)"):
        take(1005, lease(1005))
    take(1005)
    with pytest.raises(RunError, match="in use by another process"):
        take(1005)


def test_one_that_holds_something_unsent_comes_first(take):
    leave(take(1004), "here:1:cd")
    assert take().slot == 1004


def test_the_lease_of_our_own_earlier_life_does_not_hold_the_slot(take):
    leave(take(1000), "here:1:cd")
    assert take(1000, lease(1000, who="here:1:cd")).slot == 1000


def test_a_slot_that_somebody_took_over_stays_theirs(take):
    leave(take(1000), "here:1:cd")
    with pytest.raises(RunError, match="held by there"):
        take(1000, lease(1000))
    assert take(None, lease(1000)).slot == 1001


def test_a_spool_that_is_no_folder_is_named(take, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"spool folder .*file.* name another with --spool DIR"):
        take(spool="file")
