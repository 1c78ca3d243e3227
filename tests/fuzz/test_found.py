"""What the fuzzer found, each as one small message."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from torch import nn

from actors.config import EnvConfig
from deploy.exporter import saved
from deploy.files import read_lines
from deploy.presets import laptop
from deploy.redis_server import EmbeddedRedis
from deploy.run_folder import RunFolder
from system.channel.manifest import decode_manifest
from system.chunk_check import check_chunk
from system.codec import decode_chunk, encode_chunk, pack, unpack
from system.config import from_json, to_json
from system.control.protocol import Desired, Event, Lease, ProcessMetrics
from system.control.records import read, write
from system.control.redis import RedisControl
from system.errors import ConfigError, RejectedChunk, RunError
from system.keys import Keys
from system.log.messages import decode_claim, decode_notice
from system.models.weights import load_bytes, to_bytes
from system.redis_client import connect
from system.specs import EnvSpec
from system.types import EntryId
from tests.chunks_for_tests import SPEC, make_chunk
from tests.fuzz.chunk_targets import IngestTarget, seal
from tests.fuzz.trees import Deep, Pairs, to_msgpack, tree_of


def header(**changes: object) -> Pairs:
    data = encode_chunk(make_chunk())
    length = struct.unpack_from("<BII", data)[1]
    return tree_of(msgpack.unpackb(data[9 : 9 + length]) | changes)


def columns() -> bytes:
    data = encode_chunk(make_chunk())
    end = 9 + struct.unpack_from("<BII", data)[1]
    return data[end + -end % 8 :]


def refused(data: bytes) -> str:
    with pytest.raises(RejectedChunk) as caught:
        decode_chunk(data)
    return caught.value.reason


@pytest.mark.parametrize("place", range(4))
def test_a_table_row_nested_deeply_is_refused_not_shown(place: int) -> None:
    row: list[object] = ["fields", "x", "uint8", [1]]
    row[place] = [Deep(900)]
    assert refused(seal(to_msgpack(header(table=[row])), b"\0")) in ("header", "dtype", "shape")


def test_a_small_header_that_becomes_large_is_refused_unread() -> None:
    assert refused(seal(b"\x81\xa1a\xdd\x00\x10\x00\x00" + b"\x90" * 0x100000, b"")) == "oversize"


def test_a_key_named_twice_is_refused() -> None:
    twice = Pairs([*header(), ["slot", 7]])
    assert refused(seal(to_msgpack(twice), columns())) == "header"
    flags = Pairs([[b"partial", True]])
    assert refused(seal(to_msgpack(header(flags=flags)), columns())) == "header"
    with pytest.raises(RejectedChunk):
        unpack(b"\x01\x82\xa1a\x01\xa1a\x02")


def test_padding_is_zeros_and_versions_are_in_order() -> None:
    packed = to_msgpack(header())
    padding = b"\1" * (-(9 + len(packed)) % 8)
    assert padding
    assert refused(seal(packed, columns(), padding=padding)) == "header"
    assert refused(seal(to_msgpack(header(policy_version_min=3)), columns())) == "header"


def test_a_latent_column_does_not_hide_a_field_of_its_name() -> None:
    chunk = make_chunk(fields={"reward": np.full(4, np.nan, np.float32)})
    with pytest.raises(RejectedChunk, match="nan: reward"):
        check_chunk(replace(chunk, latent={"reward": np.zeros(4, np.float32)}), SPEC)


def test_a_refusal_is_short_whatever_it_quotes() -> None:
    with pytest.raises(RejectedChunk) as caught:
        decode_chunk(seal(to_msgpack(header(spec_digest="x" * 200_000)), columns()), spec=SPEC)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("change", [{"copy": 2}, {"copy": 2**62}, {"length": 7}])
def test_the_learner_takes_no_copy_that_was_not_claimed_and_no_longer_chunk(
    tmp_path: Path, change: dict[str, int]
) -> None:
    target = IngestTarget(tmp_path)  # claimed two copies, replay.chunk_length=6
    chunk = make_chunk(length=change.get("length", 6))
    with pytest.raises(RejectedChunk):
        target.feed(encode_chunk(replace(chunk, copy=change.get("copy", 1))))
    target.feed(encode_chunk(replace(make_chunk(length=6), copy=1, sequence=2)))


@pytest.mark.parametrize(
    "message",
    [
        {"who": "x" * 300, "spec_digest": "x", "num_copies": 1},
        {"who": "x", "spec_digest": "x" * 300, "num_copies": 1},
        {"who": "x", "spec_digest": "x", "num_copies": 1, "more": 1},
        {"who": "x" * 5000, "spec_digest": "x", "num_copies": 1},
    ],
)
def test_claims_are_short_and_say_nothing_else(message: dict[str, object]) -> None:
    with pytest.raises(RejectedChunk):
        decode_claim(b"\x01" + msgpack.packb(message))


@pytest.mark.parametrize(
    "message",
    [
        {"slots": [[0, 1, 1, 1, 1, ""], [0, 1, 2, 1, 2, ""]]},
        {"slots": [[2**32, 1, 1, 1, 1, ""]]},
        {"slots": [[0, 1, 1, 1, 2**63, ""]]},
        {"slots": [[0, 1, 1, 1, 1, "x" * 300]]},
        {"slots": [], "more": 1},
    ],
)
def test_notices_name_a_slot_once_with_numbers_that_can_be(message: dict[str, object]) -> None:
    with pytest.raises(RejectedChunk):
        decode_notice(EntryId(1, 1), b"\x01" + msgpack.packb(message))


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_pieces", 2**31), ("num_bytes", 2**63), ("update", -1), ("time_s", np.inf)],
)
def test_a_manifest_names_no_more_pieces_than_can_be_spelled_out(key: str, value: float) -> None:
    facts = {"update": 1, "agent_steps": 1, "elapsed_s": 1.0, "model_digest": "x", "time_s": 1.0}
    message: dict[str, object] = {"num_pieces": 1, "num_bytes": 2**32, "sha256": "0" * 64}
    message |= {"facts": facts}
    assert decode_manifest(b"\x01" + msgpack.packb(message)).num_pieces == 1
    (facts if key in facts else message)[key] = value
    with pytest.raises(RejectedChunk):
        decode_manifest(b"\x01" + msgpack.packb(message))


def test_records_of_the_control_plane_hold_what_can_be() -> None:
    lease = Lease(role="actor", slot=1, incarnation=1, who="x", doing="x", time_s=1.0)
    for bad in (
        replace(lease, slot=-1),
        replace(lease, time_s=float("nan")),
        replace(lease, incarnation=2**63),
    ):
        with pytest.raises(RejectedChunk):
            read(Lease, write(bad))
    with pytest.raises(RejectedChunk):
        read(Desired, write(Desired(actors=-3)))


def test_a_wish_of_an_older_release_holds_no_slots() -> None:
    older = pack({"generation": 3, "actors": 2, "stopping": False})
    assert read(Desired, older) == Desired(generation=3, actors=2)
    with pytest.raises(RejectedChunk):
        read(Desired, pack({"actors": 2, "stopping": False}))


def test_an_event_may_quote_anything() -> None:
    text = "half a character \udce9, and long " + "x" * 100_000
    event = Event(time_s=1.0, role="actor", slot=0, kind="gap", text=text)
    found = read(Event, write(event)).text
    assert found.startswith("half a character ?, and")
    assert len(found) < 20_000


def test_one_broken_record_hides_no_other(redis_server: EmbeddedRedis, run_name: str) -> None:
    control, keys = RedisControl(redis_server.url, run_name), Keys(run_name)
    lease = Lease(role="actor", slot=1, incarnation=1, who="x", doing="x", time_s=1.0)
    metrics = ProcessMetrics(role="actor", slot=1, time_s=1.0, values={"a": 1.0})
    event = Event(time_s=1.0, role="actor", slot=1, kind="gap", text="")
    control.renew(lease, ttl_s=60)
    control.put_metrics(metrics, ttl_s=60)
    control.record(event)
    raw = connect(redis_server.url)
    raw.call("SET", keys.lease("actor", 2), b"\x01\x80", "EX", 60)
    raw.call("SET", keys.metrics("actor", 2), b"nonsense", "EX", 60)
    raw.call("XADD", keys.events, "*", "d", b"")
    assert control.leases() == [lease]
    assert control.metrics() == [metrics]
    assert control.events() == [event]
    raw.close()
    control.close()


def test_weights_that_are_not_finite_change_nothing() -> None:
    modules = {"policy": nn.Linear(2, 2)}
    before = to_bytes(modules)
    broken = {"policy": nn.Linear(2, 2)}
    with torch.no_grad():
        broken["policy"].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"'policy.weight' holds a weight that is not finite"):
        load_bytes(modules, to_bytes(broken))
    assert to_bytes(modules) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("env.args", [1]), ("env.args", {"a": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}),
        ("seed", 10**400),
        ("learner.clip", 10**400), ("learner.clip", float("nan")), ("learner.gradient", [[["x"]]]),
        ("learner", [1]),
    ],
)  # fmt: skip
def test_a_config_names_the_setting_that_cannot_be(path: str, value: object) -> None:
    data = to_json(laptop(EnvConfig(name="x"), run="x"))
    *sections, last = path.split(".")
    section = data
    for name in sections:
        section = section[name]
    section[last] = value
    with pytest.raises(ConfigError, match=path):
        from_json(type(laptop(EnvConfig(name="x"), run="x")), data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("observation", {"x": {"shape": [0], "dtype": "float32"}}), ("observation", {"x": 3}),
        ("observation", {"x": {"shape": "3", "dtype": "float32"}}), ("observation", {}),
        ("observation", {"x": {"shape": [3], "dtype": "object"}}), ("action_repeat", 0),
        ("action", {"kind": "discrete", "size": 0}), ("action", {"kind": "other", "size": 1}),
        ("name", 5), ("env_args", []),
    ],
)  # fmt: skip
def test_a_spec_from_a_file_is_checked(key: str, value: object) -> None:
    assert EnvSpec.from_json(SPEC.to_json()) == SPEC
    with pytest.raises(ConfigError):
        EnvSpec.from_json(SPEC.to_json() | {key: value})


@pytest.mark.parametrize("text", [b"\xff", b"[" * 100_000, b"9" * 5000, b"{"])
def test_run_files_that_cannot_be_read_are_errors_of_the_user(tmp_path: Path, text: bytes) -> None:
    folder = RunFolder(tmp_path)
    for name in ("config.json", "control.json"):
        (tmp_path / name).write_bytes(text)
    for look in (folder.record, folder.control):
        with pytest.raises(RunError):
            look()


def test_a_control_file_with_other_fields_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "control.json").write_text('{"pid": "x"}')
    with pytest.raises(ConfigError, match="pid"):
        RunFolder(tmp_path).control()


def test_metric_lines_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b"[" * 100_000, b"9" * 5000, b"\xff\xfe", json.dumps({"a": 2}).encode()]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert list(read_lines(tmp_path / "metrics.jsonl")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("lives", [["1.5", "1.50"], ["0.0", "-0.0"], ["1_0.0"]])
def test_totals_of_one_life_do_not_hide_those_of_another(lives: list[str]) -> None:
    row = {"starts": 2, "base": {}, "lives": {life: {} for life in lives}}
    message = {"events": {}, "cursor": "", "processes": {"actor:0": row}}
    with pytest.raises(RejectedChunk):
        saved.decode(pack(message))
    for name in ("actor:00", "actor:+1", "actor:-1", "actor:", "robot:0"):
        with pytest.raises(RejectedChunk):
            saved.decode(pack({**message, "processes": {name: {**row, "lives": {}}}}))
    for cursor in ("01-2", "1", f"{2**64}-0"):
        with pytest.raises(RejectedChunk):
            saved.decode(pack({"events": {}, "cursor": cursor, "processes": {}}))
