"""Each role on a real server with the ACL file: it can do its work, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.acl import ROLES
from deploy.cli import main
from deploy.dashboard.remote import RemoteRuns
from deploy.dashboard.server import PageServer
from deploy.parts import build_actor, build_evaluator, build_learner
from deploy.place import RedisUrls, redis_place
from deploy.registry import Registry
from deploy.run_entry import RunEntry
from deploy.run_folder import RunFolder
from deploy.secrets import role_urls
from system.clock import ManualClock, SystemClock
from system.control.protocol import Event, Lease, Point, ProcessMetrics
from system.dream_codec import encode_dream
from system.errors import UserError
from system.keys import RUNS, Keys
from system.redis_client import ReplyError, connect
from system.types import EntryId, Snapshot
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.page_for_tests import Page
from tests.deploy.remote_for_tests import Remote
from tests.dreams_for_tests import dream_report
from tests.integration.listeners import listeners
from tests.log_for_tests import ModelLearner, make_writer, small_chunk
from tests.servers_for_tests import free_port, programs, serving
from tests.waiting import DEADLINE_S

KEYS = Keys("r-1")


@pytest.fixture(scope="module", params=programs(), ids=lambda path: Path(path).name)
def program(request):
    return request.param


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roles") / "secrets"
    assert main(["secrets", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def urls(program, secrets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    socket = folder / "redis.sock"
    plain = RedisUrls(control=f"unix://{socket}")
    arguments = (str(secrets / "redis.conf"), "--port", "0", "--unixsocket", str(socket))
    with serving(program, folder, *arguments, url=role_urls(plain, "actor", secrets).control):
        yield plain


@pytest.fixture
def place(urls, secrets):
    """role -> what its processes use."""
    return lambda role: redis_place(role_urls(urls, role, secrets), KEYS.run)


@pytest.fixture
def as_role(urls, secrets):
    return lambda role: connect(role_urls(urls, role, secrets).control)


def test_chunks_go_round_with_the_rights_of_actor_and_learner(place):
    actor, learner = place("actor"), place("learner")
    clock = ManualClock()
    model = ModelLearner(learner.log.reader())
    model.turn()
    writer = make_writer(actor.log.slot_log(0), clock)
    assert writer.try_claim() == 1
    for sequence in (1, 2, 3):
        clock.sleep(2)
        model.turn()
        writer.offer(small_chunk(EntryId(1, sequence)))
        for _ in range(3):
            clock.sleep(2)
            writer.tick()
    model.turn()
    model.trim()
    assert learner.log.reader().num_bytes() > 0
    clock.sleep(2)
    writer.tick()
    assert writer.settled
    assert [entry_id for entry_id, _ in model.durable.ledger[0]] == [
        EntryId(1, n) for n in (1, 2, 3)
    ]


def test_a_run_needs_nothing_more(program, secrets, tmp_path, urls):
    """Actor, learner and evaluator as they are, over a control and a data server."""
    folder = RunFolder.create(tmp_path, small(frames=100), SPEC)
    record = folder.record()
    socket = tmp_path / "data.sock"
    conf = (str(secrets / "redis.conf"), "--port", "0", "--unixsocket", str(socket))
    two = RedisUrls(control=urls.control, data=f"unix://{socket}")
    actor_urls, learner_urls = (role_urls(two, role, secrets) for role in ("actor", "learner"))
    with serving(program, tmp_path / "data", *conf, url=actor_urls.data):
        meeting = redis_place(learner_urls, record.run_id)
        learner = build_learner(record, folder.path, meeting)
        actor = build_actor(record, 0, redis_place(actor_urls, record.run_id))
        evaluator = build_evaluator(record, folder.path, meeting)
        deadline_s = time.monotonic() + DEADLINE_S
        while not learner.finished:
            assert time.monotonic() < deadline_s
            for part in (learner, actor, evaluator):
                part.tick()
        actor.close()
        learner.close()
        evaluator.finish()
        evaluator.close()
        assert meeting.log.reader().num_bytes() > 0
    assert learner.updates > 3
    assert any("eval/return_mean" in line for line in folder.metrics())


def test_policies_go_from_learner_to_actor(place):
    actor, learner = place("actor"), place("learner")
    for version in range(1, 6):
        sent = snapshot(version)
        learner.channel.publish(sent)
    assert actor.channel.newer_than(0, 0) == sent
    learner.safe.publish(sent, after=(0, 0))
    assert actor.safe.newer_than(0, 0) == sent


def test_control_works_for_everybody_who_needs_it(place):
    actor, learner, exporter = place("actor").control, place("learner").control, place("exporter")
    assert learner.change_desired(actors=3).actors == actor.desired().actors == 3
    assert learner.ask_slot(1, "drain").held == actor.desired().held == [1]
    with pytest.raises(UserError, match="refuses"):
        actor.ask_slot(1, "start")
    for role, control in (("actor", actor), ("learner", learner)):
        lease = Lease(role=role, slot=0, incarnation=1, who="h", doing="d", time_s=1.0)
        assert control.take(lease, ttl_s=60)
        assert not control.take(replace(lease, who="another"), ttl_s=60)
        control.renew(lease, ttl_s=60)
        control.put_metrics(ProcessMetrics(role=role, slot=0, time_s=1.0), ttl_s=60)
        control.record(Event(time_s=1.0, role=role, slot=0, kind="k", text="t"))
        assert lease in control.leases()
    assert [one.role for one in exporter.control.metrics()] == ["actor", "learner"]
    assert len(exporter.control.events()) == len(learner.events()) == 2
    assert exporter.control.desired().actors == 3
    actor.release("actor", 0)
    learner.release("learner", 0)
    assert exporter.control.leases() == []


def test_dreams_and_curves_go_from_the_learner_to_whoever_may_look(place):
    learner, exporter = place("learner").control, place("exporter").control
    learner.put_blob("dream", b"a dream", ttl_s=60)
    learner.remember(Point(time_s=1.0, values={"frames": 4.0}))
    for looking in (learner, exporter, place("admin").control):
        assert looking.blob("dream") == b"a dream"
        assert [one.point.values for one in looking.history()] == [{"frames": 4.0}]


def test_the_registry_is_written_by_the_learner_and_cleared_by_the_admin(urls, secrets, place):
    learner, admin, actor = (
        Registry(role_urls(urls, role, secrets).control) for role in ("learner", "admin", "actor")
    )
    entry = RunEntry(
        run_id=KEYS.run, name="r", created_s=1.0, host="h", folder="/r", config={}, spec={}
    )
    place("learner").channel.publish(snapshot(7))
    place("learner").control.put_blob("dream", b"d", ttl_s=60)
    place("learner").control.remember(Point(time_s=1.0))
    learner.put(entry)
    learner.end(KEYS.run, "finished")
    assert [found.run_id for found in actor.entries()] == [KEYS.run]
    assert learner.size(KEYS.run) > 0
    with pytest.raises(UserError, match="refuses"):
        learner.remove(KEYS.run)
    assert admin.remove(KEYS.run) > 0
    assert admin.entries() == []
    assert place("learner").control.blob("dream") is None
    assert place("learner").control.history() == []


NOBODY = (
    "EVAL return(1) 0", "EVAL_RO return(1) 0", "EVALSHA 0 0", "SCRIPT FLUSH", "FUNCTION LIST",
    "FUNCTION FLUSH", "FCALL f 0", "CONFIG GET requirepass", "CONFIG SET maxmemory 1", "FLUSHALL",
    "FLUSHDB", "SWAPDB 0 1", "DUMP {learner}", "RESTORE {learner} 0 x", "MIGRATE h 1 k 0 1",
    "DEBUG SLEEP 0", "MODULE LIST", "KEYS *", "SHUTDOWN NOSAVE", "SAVE", "BGREWRITEAOF",
    "REPLICAOF h 1", "MONITOR", "ACL LIST", "ACL GETUSER admin", "ACL SETUSER actor on",
    "CLIENT LIST", "CLIENT KILL TYPE normal", "SUBSCRIBE x", "PUBLISH x y", "COMMAND COUNT",
    "RENAME {learner} {policy}", "COPY {learner} {policy}", "GET other:key", "SET other:key 1",
    "SORT {slots}", "OBJECT ENCODING {learner}", "RANDOMKEY", "DBSIZE", "SLOWLOG GET",
    "LATENCY RESET",
)  # fmt: skip
REFUSED = {
    "actor": (
        "XADD {learner} 9-9 d x", "XADD {policy} 9-9 d x", "XADD {safe} 9-9 d x",
        "SET {piece} x", "UNLINK {piece}", "PERSIST {piece}", "SET {desired} x", "DEL {desired}",
        "XTRIM {log} MAXLEN 0", "XDEL {log} 1-1", "DEL {log}", "XREAD STREAMS {log} 0",
        "XREVRANGE {log} + -", "XRANGE {log} - +", "SREM {slots} 1", "SMEMBERS {slots}",
        "SET other:key x", "DEL {learner_lease}", "SET {learner_lease} x",
        "SET {learner_metrics} x", "XTRIM {events} MAXLEN 0", "XREVRANGE {events} + -",
        "HSET {runs} r x", "HDEL {runs} r", "MEMORY USAGE {log}", "INFO", "MULTI",
        "SET {actor_lease} x GET", "SET {totals} x", "GET {totals}", "SET {blob} x",
        "GETRANGE {blob} 0 9", "XADD {history} * d x", "XRANGE {history} - +",
    ),
    "learner": (
        "XADD {log} 9-9 d x", "DEL {log}", "UNLINK {log}", "SADD {slots} 9", "DEL {learner}",
        "HDEL {runs} r", "DEL {runs}", "UNLINK {events}", "INFO", "UNLINK {blob}",
        "XTRIM {history} MAXLEN 0",
    ),
    "exporter": (
        "XADD {learner} 9-9 d x", "XADD {log} 9-9 d x", "XADD {policy} 9-9 d x",
        "XADD {events} * d x", "SET {desired} x", "SET {actor_lease} x", "SET {actor_metrics} x",
        "DEL {actor_lease}", "GETRANGE {piece} 0 9", "XREVRANGE {policy} + -",
        "XREVRANGE {log} + -", "XREVRANGE {learner} + -", "XINFO STREAM {log}",
        "HSET {runs} r x", "DEL {totals}", "SET other:key x", "SET {blob} x",
        "XADD {history} * d x",
    ),
    "admin": (
        "XADD {learner} 9-9 d x", "XADD {log} 9-9 d x", "XADD {policy} 9-9 d x", "SET {desired} x",
        "SET {piece} x", "SADD {slots} 9", "HSET {runs} r x", "DEL other:key", "UNLINK other:key",
    ),
}  # fmt: skip
NAMES = {
    "learner": KEYS.learner, "policy": KEYS.policy(), "safe": KEYS.policy("policy:safe"),
    "piece": KEYS.policy_piece("policy", 1, 1, 0), "desired": KEYS.desired, "log": KEYS.log(3),
    "slots": KEYS.slots, "events": KEYS.events, "runs": RUNS,
    "learner_lease": KEYS.lease("learner", 0), "learner_metrics": KEYS.metrics("learner", 0),
    "totals": KEYS.totals, "blob": KEYS.blob("dream"), "history": KEYS.history,
    "actor_lease": KEYS.lease("actor", 0), "actor_metrics": KEYS.metrics("actor", 0),
}  # fmt: skip


REFUSAL = re.compile("permission|DEBUG command not allowed|MODULE command not allowed|unknown")
"""NOPERM, or a command that this server does not have at all."""


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_refused_everything_else(as_role, role):
    connection = as_role(role)
    answers = {line: answer(connection, line) for line in NOBODY + REFUSED[role]}
    assert {line: said for line, said in answers.items() if not REFUSAL.search(said)} == {}


def answer(connection, line):
    try:
        return f"allowed: {connection.call(*(word.format(**NAMES) for word in line.split()))}"
    except (UserError, ReplyError) as error:
        return str(error)


def test_what_is_refused_does_exist(as_role):
    """Else the test above would also pass with misspelt keys."""
    assert as_role("learner").call("XADD", NAMES["learner"], "9-8", "d", "x") == b"9-8"
    assert as_role("learner").call("SET", NAMES["piece"], "x") == b"OK"
    assert as_role("actor").call("XADD", NAMES["log"], "9-8", "d", "x") == b"9-8"
    assert as_role("actor").call("SET", NAMES["actor_lease"], "x", "PX", 9) == b"OK"


def test_nobody_comes_in_without_a_password(urls, secrets):
    wrong = f"unix://actor:wrong@{urls.control.removeprefix('unix://')}"
    for url in (urls.control, wrong, f"unix://default:x@{urls.control.removeprefix('unix://')}"):
        with pytest.raises(UserError, match="put user and password"):
            connect(url).call("PING")


def test_the_generated_server_listens_on_loopback_alone(program, secrets, tmp_path):
    port = free_port()
    url = role_urls(RedisUrls(control=f"redis://127.0.0.1:{port}"), "actor", secrets).control
    with serving(
        program, tmp_path, str(secrets / "redis.conf"), "--port", str(port), url=url
    ) as pid:
        found = listeners(pid)
        assert {(one.kind, one.port) for one in found} == {("tcp", port)}
        assert all(one.private for one in found)


def test_tls_round_trip(program, tmp_path):
    if not shutil.which("openssl") or not _speaks_tls(program):
        pytest.skip("openssl or a server with TLS is missing")
    cert, key = _certificate(tmp_path)
    folder = tmp_path / "secrets"
    words = ["--tls-cert", cert, "--tls-key", key, "--tls-ca", cert]
    assert main(["secrets", str(folder), *words]) == 0
    port = free_port()
    urls = RedisUrls(control=f"rediss://127.0.0.1:{port}")
    url = role_urls(urls, "learner", folder).control
    assert f"ssl_ca_certs={folder}/ca.crt" in url
    conf = str(folder / "redis.conf")
    with serving(program, tmp_path / "data", conf, "--tls-port", str(port), url=url):
        assert redis_place(RedisUrls(control=url), "r").control.desired().generation == 0
        with pytest.raises(Exception, match="Redis at"):
            connect(url.replace("rediss", "redis").partition("?")[0]).call("PING")


def _speaks_tls(program):
    said = subprocess.run([program, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/none"],
                          capture_output=True, text=True, timeout=180, check=False)  # fmt: skip
    return "TLS support" not in said.stdout and "Missing implement" not in said.stdout


def _certificate(folder):
    cert, key = str(folder / "server.crt"), str(folder / "server.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", cert], check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def snapshot(version):
    return Snapshot(
        epoch=1, version=version, update=1, agent_steps=1, elapsed_s=1.0, model_digest="m",
        time_s=1.0, weights=b"w" * 100,
    )  # fmt: skip


def test_the_page_needs_the_rights_of_a_learner(urls, secrets, tmp_path):
    learner = role_urls(urls, "learner", secrets)
    remote = Remote(tmp_path, learner.control).drive()
    remote.control.put_blob("dream", encode_dream(dream_report()), ttl_s=600)
    remote.control.remember(Point(time_s=1.0, values={"frames": 1.0, "eval/return_mean": 3.0}))
    with closing(PageServer(RemoteRuns(learner, SystemClock()), SystemClock(), port=0)) as server:
        page, run = Page(server.url), remote.run_id
        newest = page.ask("/api/now", run=run)
        assert [point["mean"] for point in newest["curve"]["points"]] == [3.0]
        assert newest["dream"]["update"] == 17
        assert page.post("/api/scale", run=run, delta=1) == (200, {"desired": 3})
        assert page.post("/api/slot", run=run, slot=0, action="drain") == (200, {})
        assert page.get("/download/policy.safetensors", run=run).status == 404  # none is broadcast
