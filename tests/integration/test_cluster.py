"""Three machines of a real Ray cluster, one of them cut off for 30 s: nothing is lost or doubled.

One command: `.venv/bin/python -m pytest -m slow tests/integration/test_cluster.py -s`
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
from tests.fleet_for_tests import ROOT, TINY, Fleet, Witness
from tests.integration.namespaces import PREFIX, machines, why_not
from tests.servers_for_tests import serving

ACTORS, LOST_AFTER_S, CUT_S = 4, 12, 30
PORT = 6379
PROGRAMS = Path(sys.executable).parent
SETTINGS = [
    "--actors", str(ACTORS), "--redis", f"redis://{PREFIX}.1:{PORT}", "--set",
    f"fleet.lost_after_s={LOST_AFTER_S}", "fleet.start_after_s=60",
]  # fmt: skip


class ClusterFleet(Fleet):
    """A run on a cluster, seen from a machine that is not part of it."""

    def __init__(self, where, nodes, secrets_folder, witness_url):
        super().__init__(where)
        self.nodes, self.secrets = nodes, secrets_folder
        self._witness_url = witness_url

    @property
    def url(self):
        """With every right: tests look at everything."""
        return self._witness_url

    def train(self):
        head = self.nodes[0]
        answer = head.run(
            [str(PROGRAMS / "python"), "-m", "deploy.cli", "train", "--run", self.name, "--detach",
             *TINY, *SETTINGS, "--secrets", str(self.secrets)],
            cwd=self.where,
            env={"PYTHONPATH": str(ROOT), "RAY_ADDRESS": f"{head.address}:6380",
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


@pytest.fixture
def short():
    """For unix sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="df-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def nodes(tmp_path, short):
    if reason := why_not():
        pytest.skip(reason)
    with machines(3, tmp_path) as made:
        yield made


@pytest.fixture
def fleet(tmp_path, nodes, short):
    folder = tmp_path / "secrets"
    assert main(["secrets", str(folder)]) == 0
    with (folder / "users.acl").open("a") as users:
        users.write("user witness on nopass ~* +@all\n")
    url = f"redis://witness:any@{PREFIX}.1:{PORT}"
    words = [str(folder / "redis.conf"), "--bind", f"{PREFIX}.1", "--port", str(PORT)]
    with serving(find_server(), tmp_path / "redis", *words, url=url):
        start_ray(nodes, short)
        made = ClusterFleet(tmp_path, nodes, folder, url)
        yield made
        made.end()


def start_ray(nodes, short):
    """The very lines of `ray up`; own folders, since these machines share a disk."""
    cluster = yaml.safe_load((ROOT / "deploy/ray/cluster.yaml").read_text())
    token = secrets.token_hex(32)
    for node in nodes:
        path = node.home / ".ray/auth_token"
        path.parent.mkdir()
        path.touch(0o600)
        path.write_text(token)
        (node.home / "dreamfleet/.venv").mkdir(parents=True)
        (node.home / "dreamfleet/.venv/bin").symlink_to(PROGRAMS)
        role = "head" if node is nodes[0] else "worker"
        line = cluster[f"{role}_start_ray_commands"][-1]
        line = line.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "")
        temporary = short / node.name
        line += (
            f" --node-ip-address={node.address} --num-cpus=1 --temp-dir={temporary}"
            " --object-store-memory=100000000"
        )
        answer = node.run(
            ["bash", "-c", line], env={"RAY_HEAD_IP": nodes[0].address, "PYTHONPATH": str(ROOT)}
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_machine_that_is_cut_off_and_comes_back_costs_nothing(fleet, nodes, capsys):
    fleet.train()
    first = fleet.until(fleet.all_live, "saw every actor", 180)
    where = {slot: node for slot, pid in first.items() for node in nodes if pid in node.pids}
    cut = max(nodes[1:], key=lambda node: list(where.values()).count(node))
    lost = {pid for slot, pid in first.items() if where[slot] is cut}
    assert lost, "no actor landed on another machine"
    fleet.train_on("trained on the whole cluster")

    with Witness(fleet) as witness:
        cut.cut()
        since_s = time.monotonic()
        during_s = fleet.train_on("trained on without a machine", CUT_S)
        time.sleep(max(0.0, CUT_S - (time.monotonic() - since_s)))
        cut.mend()
        fleet.until(lambda: fleet.all_live(outside=lost), "saw an actor in every slot again", 180)
        again_s = time.monotonic() - since_s
        fleet.until(lambda: not lost & cut.pids, "ended the actors that were cut off", 180)
        ended_s = time.monotonic() - since_s
        fleet.train_on("trained on with all machines")
        with contextlib.redirect_stdout(None):
            fleet.stop()
    assert witness.seen
    assert witness.lost() == set()
    fleet.check_ledger()
    assert "Traceback" not in fleet.words()
    with capsys.disabled():
        print(
            f"\ncut off: {len(lost)} of {ACTORS} actors for {CUT_S} s; next update after "
            f"{during_s:.1f} s; every slot has an actor again after {again_s:.0f} s, the old ones "
            f"are gone after {ended_s:.0f} s; acknowledged {len(witness.seen)}, lost 0, doubled 0"
        )
