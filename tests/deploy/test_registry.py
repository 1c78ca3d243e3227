"""The registry of runs, on real servers."""

from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import replace

import pytest

from deploy.config import FleetConfig
from deploy.place import RedisUrls, redis_place
from deploy.registry import Registry
from deploy.run_entry import RunEntry, decode, encode, public_url
from deploy.run_folder import RunFolder
from system.control.protocol import Event, Lease, ProcessMetrics
from system.errors import ConfigError, RunError
from system.keys import RUNS, Keys
from system.redis_client import as_int, as_list, connect
from tests.deploy.configs_for_tests import SPEC, small


@pytest.fixture
def entry(tmp_path):
    return RunEntry.of(RunFolder.create(tmp_path, small(), SPEC))


@pytest.fixture
def raw(redis_server):
    """A connection to a server without runs."""
    with closing(connect(redis_server.url)) as connection:
        connection.call("DEL", RUNS)
        yield connection


@pytest.fixture
def registry(redis_server, raw):
    with closing(Registry(redis_server.url)) as registry:
        yield registry


def fill(urls, run_id):
    """One key of every kind that outlives its writer, and a lease."""
    place = redis_place(urls, run_id)
    place.control.change_desired(actors=2)
    place.control.record(Event(time_s=0.0, role="actor", slot=0, kind="tested", text="x" * 1000))
    place.control.renew(
        Lease(role="actor", slot=0, incarnation=1, who="a", doing="acting", time_s=0.0), ttl_s=60
    )
    keys = Keys(run_id)
    with closing(connect(urls.data)) as data, closing(connect(urls.control)) as control:
        data.call("XADD", keys.log(0), "1-1", "d", bytes(50_000))
        data.call("SADD", keys.slots, 0)
        control.call("XADD", keys.learner, "1-1", "d", b"notice")
        control.call("SET", keys.desired + ":piece", bytes(20_000))


def num_keys(url, run_id):
    with closing(connect(url)) as connection:
        _, found = as_list(
            connection.call("SCAN", 0, "MATCH", Keys(run_id).pattern, "COUNT", 100_000)
        )
        return len(as_list(found))


def test_an_entry_comes_back_whole_and_builds_the_record(registry, entry, tmp_path):
    registry.put(entry)
    found = registry.find("small")
    assert found == entry
    assert found.record() == RunFolder.open(tmp_path, "small").record()
    assert registry.find(entry.run_id) == entry


def test_passwords_are_left_out(tmp_path, registry):
    fleet = FleetConfig(
        redis="rediss://me:s3cret@host:1/2?ssl_check_hostname=no", redis_data="redis://:s3cret@b:2"
    )
    folder = RunFolder.create(tmp_path, small(fleet=fleet), SPEC)
    entry = RunEntry.of(folder, redis_data="redis://:s3cret@b:2")
    registry.put(entry)
    assert b"s3cret" not in encode(registry.find("small"))
    assert entry.redis_data == "redis://b:2"
    assert entry.record().config.fleet.redis == "rediss://host:1/2?ssl_check_hostname=no"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("unix:///a@b/redis.sock", "unix:///a@b/redis.sock"),
        ("unix:///a/s.sock?db=1&password=x", "unix:///a/s.sock?db=1"),
        ("unix:///a/s.sock?password=x&username=y&db=1", "unix:///a/s.sock?db=1"),
        ("unix://me:x@/a/redis.sock", "unix:///a/redis.sock"),
        ("redis://me:p@ss@host:1/0", "redis://host:1/0"),
        ("redis://host", "redis://host"),
        ("", ""),
    ],
)
def test_public_urls(url, public):
    assert public_url(url) == public


def test_the_newest_of_a_name_is_found(registry, entry):
    older = replace(entry, run_id="small-0", created_s=1.0)
    registry.put(entry)
    registry.put(older)
    assert registry.entries() == [older, entry]
    assert registry.find("small") == entry
    assert registry.find("small-0") == older


def test_a_run_that_is_not_there(registry, entry):
    with pytest.raises(RunError, match=r"no run 'smal' in unix:.*; there is none yet"):
        registry.find("smal")
    registry.put(entry)
    with pytest.raises(RunError, match=r"did you mean 'small'\?"):
        registry.find("smal")


def test_an_end_keeps_the_last_numbers_until_the_run_goes_on(registry, entry):
    registry.put(entry)
    with closing(registry.control(entry.run_id)) as control:
        for role, values in (
            ("learner", {"learner/frames": 300.0, "learner/updates": 20.0}),
            ("evaluator", {"eval/return_mean": 7.5}),
            ("actor", {"learner/frames": 1.0}),
        ):
            metrics = ProcessMetrics(role=role, slot=0, time_s=0.0, values=values)
            control.put_metrics(metrics, ttl_s=60)
    registry.end(entry.run_id, "failed", "out of luck")
    found = registry.find("small")
    assert (found.ended, found.text) == ("failed", "out of luck")
    assert found.numbers == {"frames": 300, "updates": 20, "eval/return_mean": 7.5}
    registry.put(found)
    assert (registry.find("small").ended, registry.find("small").text) == ("", "")
    registry.end("nobody", "stopped", "")
    assert registry.get("nobody") is None


def test_one_server_is_no_second_one(registry, redis_server, entry):
    registry.put(replace(entry, redis_data=redis_server.url))
    assert registry.find("small").redis_data == ""


def test_removing_a_run_frees_it_and_nothing_of_a_run_with_a_longer_id(
    registry, redis_server, raw, entry
):
    urls = RedisUrls(control=redis_server.url)
    ids = ["rm-1", "rm-12", "rm-1-1", "rm-*", "rm-?"]
    for run_id in ids:
        fill(urls, run_id)
    for run_id in ("rm-1", "rm-12"):
        registry.put(replace(entry, run_id=run_id))
    before = {run_id: num_keys(redis_server.url, run_id) for run_id in ids}
    assert set(before.values()) == {7}
    size = registry.size("rm-1")
    assert size > 70_000
    assert registry.remove("rm-1") == size
    after = {run_id: num_keys(redis_server.url, run_id) for run_id in ids}
    assert after == {**before, "rm-1": 0}
    assert [found.run_id for found in registry.entries()] == ["rm-12"]
    registry.remove("rm-*")
    assert num_keys(redis_server.url, "rm-12") == 7


def test_a_run_on_two_servers_is_freed_on_both(registry, redis_server, data_server, entry):
    urls = RedisUrls(control=redis_server.url, data=data_server.url)
    entry = replace(entry, run_id="two", redis_data=data_server.url)
    fill(urls, "two")
    registry.put(entry)
    assert (num_keys(urls.control, "two"), num_keys(urls.data, "two")) == (5, 2)
    with closing(connect(urls.data)) as data:
        chunks = as_int(data.call("MEMORY", "USAGE", Keys("two").log(0)))
    size = registry.size("two")
    assert size > chunks + 20_000
    assert registry.remove("two") == size
    assert (num_keys(urls.control, "two"), num_keys(urls.data, "two")) == (0, 0)


def hostile(entry):
    """Values that are no records, made from one that is."""
    good = json.loads(encode(entry))
    yield from (b"", b"\xff\xfe", b"null", b"[]", b"{}", b"[" * 100_000, b'"' + b"x" * 2**21)
    yield json.dumps({**good, "format": 2}).encode()
    yield json.dumps({**good, "more": 1}).encode()
    yield encode(replace(entry, run_id="another"))
    yield encode(replace(entry, name="\x1b[2J"))
    yield encode(replace(entry, ended="maybe"))
    yield encode(replace(entry, created_s=float("inf")))
    yield encode(entry).replace(json.dumps(entry.created_s).encode(), b"1e999")
    yield encode(replace(entry, frames=10**30))
    rng = random.Random(0)
    wrong = [None, True, 3, -1.5, "x", [], {}]
    for key in good:
        values = [value for value in wrong if type(value) is not type(good[key])]
        if key != "return_mean":
            yield json.dumps({**good, key: rng.choice(values)}).encode()
        yield json.dumps({name: value for name, value in good.items() if name != key}).encode()
    yield json.dumps({**good, "return_mean": "x"}).encode()


def test_hostile_records_are_unreadable_and_harm_nobody(registry, raw, entry):
    registry.put(replace(entry, run_id="good"))
    values = list(hostile(entry))
    assert len(values) > 35
    for value in values:
        raw.call("HSET", RUNS, entry.run_id, value)
        listing = registry.listing()
        assert listing.unreadable == [entry.run_id], value[:200]
        assert [found.run_id for found in listing.entries] == ["good"]
    with pytest.raises(RunError, match="is unreadable: damaged, or of a newer version"):
        registry.find(entry.run_id)


@pytest.mark.parametrize("data", [b"\x00", b"{" * 50_000, b'{"a": NaN}'])
def test_decode_never_raises(data):
    assert decode("x", data) is None


def test_a_config_of_another_version_is_named(registry, entry):
    registry.put(replace(entry, config={**entry.config, "sorcery": 1}))
    with pytest.raises(ConfigError, match=r"run 'small' \(.*\) was written by another version"):
        registry.find("small").record()
    registry.put(replace(entry, spec={}))
    with pytest.raises(ConfigError, match="was written by another version"):
        registry.find("small").record()


def test_an_id_that_would_match_another_runs_keys_frees_nothing(registry, raw, redis_server):
    fill(RedisUrls(control=redis_server.url), "victim")
    raw.call("HSET", RUNS, "victim:log", b"{}")
    assert registry.listing().unreadable == ["victim:log"]
    assert registry.size("victim:log") == 0
    assert registry.remove("victim:log") == 0
    assert registry.listing().unreadable == []
    assert num_keys(redis_server.url, "victim") == 7


def test_a_forged_lease_hides_no_other(registry, raw):
    raw.call("SET", Keys("forged").lease("supervisor", 0), b"\x01nonsense")
    lease = Lease(role="actor", slot=1, incarnation=1, who="h:1", doing="acting", time_s=0.0)
    with closing(registry.control("forged")) as control:
        control.renew(lease, ttl_s=60)
        assert control.leases() == [lease]
