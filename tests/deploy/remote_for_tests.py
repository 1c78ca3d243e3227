"""A run as it looks from a machine that has nothing but the URL of its Redis."""

from __future__ import annotations

from deploy.cli import main
from deploy.place import RedisUrls, redis_place
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from deploy.run_folder import RunFolder
from system.control.protocol import Lease, ProcessMetrics
from tests.deploy.configs_for_tests import SPEC, small

LEARNER = {
    "learner/frames": 120.0, "learner/updates": 30.0, "learner/elapsed_s": 9.0,
    "learner/updates_per_s": 3.5, "learner/policy_version": 4.0, "replay/steps": 120.0,
}  # fmt: skip


class Remote:
    """A run in a folder elsewhere, as its processes show it in Redis."""

    def __init__(self, where, url, name="small"):
        self.folder = RunFolder.create(where, small(run=name), SPEC)
        self.entry = RunEntry.of(self.folder)
        self.run_id = self.entry.run_id
        self.registry = Registry(url)
        self.registry.put(self.entry)
        self.place = redis_place(RedisUrls(control=url), self.run_id)
        self.control = self.place.control
        self.control.change_desired(actors=2)

    def lease(self, role, slot=0, doing="acting"):
        self.control.renew(
            Lease(role=role, slot=slot, incarnation=1, who="h:1", doing=doing, time_s=0.0),
            ttl_s=600,
        )

    def drive(self):
        self.lease("supervisor")
        self.lease("actor", 0)
        metrics = ProcessMetrics(role="learner", slot=0, time_s=0.0, values=LEARNER)
        self.control.put_metrics(metrics, ttl_s=600)
        metrics = ProcessMetrics(
            role="evaluator", slot=0, time_s=0.0, values={"eval/return_mean": 6.5}
        )
        self.control.put_metrics(metrics, ttl_s=600)
        return self

    def end(self, how="stopped", text=""):
        self.registry.end(self.run_id, how, text)
        for lease in self.control.leases():
            self.control.release(lease.role, lease.slot)


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def complaint(capsys, *words):
    code, _, err = run(capsys, *words)
    assert (code, err.count("\n")) == (2, 1), err
    return err.removeprefix("dreamfleet: ").strip()
