"""Three machines of a real Ray cluster, one of them cut off for 30 s: nothing is lost or doubled.

One command: `.venv/bin/python -m pytest -m slow tests/integration/test_cluster.py`
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from deploy.cli import main
from deploy.redis_server import find_server
from system.keys import Keys
from system.redis_client import as_bytes, as_list, connect
from system.types import EntryId
from tests.fleet_for_tests import ROOT, TINY, Fleet, Witness
from tests.integration.machines import groups, namespaces, why_no_namespaces
from tests.servers_for_tests import free_port, serving

ACTORS, LOST_AFTER_S, CUT_S = 4, 12, 30
PROGRAMS = Path(sys.executable).parent
RAY_PORT = 6380


class ClusterFleet(Fleet):
    """A run on a cluster, seen from a machine that is not part of it."""

    def __init__(self, where, nodes, redis, witness):
        super().__init__(where)
        self.nodes, self.redis, self._witness_url = nodes, redis, witness

    @property
    def url(self):
        """With every right: tests look at everything."""
        return self._witness_url

    def train(self):
        head = self.nodes[0]
        answer = head.run(
            [str(PROGRAMS / "python"), "-m", "deploy.cli", "train", "--run", self.name, "--detach",
             *TINY, f"fleet.lost_after_s={LOST_AFTER_S}", "fleet.start_after_s=60",
             "--actors", str(ACTORS), "--redis", self.redis,
             "--secrets", str(self.where / "secrets")],
            cwd=self.where,
            env={"PYTHONPATH": str(ROOT), "RAY_ADDRESS": f"{head.address}:{RAY_PORT}",
                 "RAY_AUTH_MODE": "token"},
        )  # fmt: skip
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return self

    def actors(self):
        """Slot -> process id of every living actor."""
        with self.control() as control:
            leases = [one for one in control.leases() if one.role == "actor"]
        return {one.slot: int(one.who.split(":")[1]) for one in leases}

    def all_live(self, *, outside=frozenset()):
        """Every slot's actor, if all live and none of these processes is one of them."""
        actors = self.actors()
        return actors if len(actors) == ACTORS and not outside & set(actors.values()) else None

    def waiting(self):
        """What waits in Redis for the next learner: a stop takes in no more than is due."""
        keys, found = Keys(self.folder.record().run_id), set()
        with contextlib.closing(connect(self.url)) as connection:
            for slot in range(ACTORS):
                for row in as_list(connection.call("XRANGE", keys.log(slot), "-", "+")):
                    found.add((slot, EntryId.parse(as_bytes(as_list(row)[0]).decode())))
        return found


@pytest.fixture(params=["namespaces", "processes"])
def network(request, tmp_path):
    if request.param == "namespaces" and (reason := why_no_namespaces()):
        pytest.skip(reason)
    with {"namespaces": namespaces, "processes": groups}[request.param](3, tmp_path) as made:
        yield made


@pytest.fixture
def fleet(tmp_path, network):
    nodes, address = network
    assert main(["secrets", str(tmp_path / "secrets")]) == 0
    with (tmp_path / "secrets/users.acl").open("a") as users:
        users.write("user witness on nopass ~* +@all\n")
    redis = f"redis://{address}:{free_port()}"
    port = redis.rpartition(":")[2]
    witness = redis.replace("//", "//witness:any@")
    words = [str(tmp_path / "secrets/redis.conf"), "--bind", address, "--port", port]
    with (
        serving(find_server(), tmp_path / "redis", *words, url=witness),
        tempfile.TemporaryDirectory(prefix="df-", ignore_cleanup_errors=True) as short,
    ):
        start_ray(nodes, Path(short))
        made = ClusterFleet(tmp_path, nodes, redis, witness)
        yield made
        made.end()


def start_ray(nodes, short):
    """The very lines of `ray up`; folders of their own, since these machines share a disk."""
    cluster = yaml.safe_load((ROOT / "deploy/ray/cluster.yaml").read_text())
    token = secrets.token_hex(32)
    for number, node in enumerate(nodes):
        path = node.home / ".ray/auth_token"
        path.parent.mkdir()
        path.touch(0o600)
        path.write_text(token)
        (node.home / "dreamfleet/.venv").mkdir(parents=True)
        (node.home / "dreamfleet/.venv/bin").symlink_to(PROGRAMS)
        line = cluster[f"{'worker' if number else 'head'}_start_ray_commands"][-1]
        line = line.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "")
        line += (
            f" --node-ip-address={node.address} --num-cpus=1 --temp-dir={short / node.name}"
            f" --object-store-memory=100000000 --dashboard-agent-listen-port={52400 + number}"
        )
        answer = node.run(
            ["bash", "-c", line], env={"RAY_HEAD_IP": nodes[0].address, "PYTHONPATH": str(ROOT)}
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_that_is_cut_off_and_comes_back_costs_nothing(fleet, capsys):
    fleet.train()
    first = fleet.until(fleet.all_live, "saw every actor", 180)
    homes = {node: set(first.values()) & node.pids for node in fleet.nodes}
    cut = max(fleet.nodes[1:], key=lambda node: len(homes[node]))
    lost = homes[cut]
    assert lost, "no actor landed on another machine"
    fleet.train_on("trained on the whole cluster")

    with Witness(fleet) as witness:
        since_s = time.monotonic()
        cut.cut()
        during_s = fleet.train_on("trained on without a machine", CUT_S)
        time.sleep(max(0.0, CUT_S - (time.monotonic() - since_s)))
        cut.mend()
        now = fleet.until(lambda: fleet.all_live(outside=lost), "saw an actor in every slot", 180)
        again_s = time.monotonic() - since_s
        moved = len(set(now.values()) - cut.pids) - (ACTORS - len(lost))
        fleet.until(lambda: not lost & cut.pids, "ended the actors that were cut off", 180)
        ended_s = time.monotonic() - since_s
        fleet.train_on("trained on with all machines")
        fleet.stop()
    assert witness.seen
    assert moved > 0, "nobody found another machine"
    assert witness.lost() == set()
    fleet.check_ledger()
    assert "Traceback" not in fleet.words()
    with capsys.disabled():
        print(
            f"\ncut off: {len(lost)} of {ACTORS} actors for {CUT_S} s; next update after "
            f"{during_s:.1f} s; every slot has an actor again after {again_s:.0f} s, {moved} of "
            f"them on other machines; the old ones are gone after {ended_s:.0f} s; acknowledged "
            f"{len(witness.seen)}, lost 0, doubled 0 (left in Redis: {len(fleet.waiting())})"
        )
