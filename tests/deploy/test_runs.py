"""`dreamfleet runs` and `runs rm`: on a real server and on folders."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from deploy.registry import Registry
from deploy.run_entry import RunEntry
from deploy.run_folder import End, RunFolder
from deploy.runs import RunLine, table
from system.keys import RUNS, Keys
from system.redis_client import connect
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.remote_for_tests import Remote, complaint, run


def test_runs_of_a_server(capsys, tmp_path, url, remote):
    Remote(tmp_path / "home", url, name="lost")
    Remote(tmp_path / "home", url, name="ended").drive().end("finished")
    remote.drive()
    with closing(connect(url)) as connection:
        connection.call("HSET", RUNS, "bad\x1b[2J", b"\x00")
    code, out, err = run(capsys, "runs", "--redis", url, "--json")
    lines = {line["name"]: line for line in json.loads(out)["runs"]}
    assert (code, err) == (0, "")
    assert {name: line["phase"] for name, line in lines.items()} == {
        "small": "running", "lost": "lost", "ended": "finished", "?": "unreadable"
    }  # fmt: skip
    small_run, ended = lines["small"], lines["ended"]
    assert (small_run["running"], small_run["desired"], small_run["frames"]) == (1, 2, 120)
    assert (small_run["return_mean"], ended["frames"], ended["return_mean"]) == (6.5, 120, 6.5)
    assert small_run["redis_bytes"] > 100
    assert 0 <= small_run["age_s"] < 600
    out = run(capsys, "runs", "--redis", url)[1]
    assert len(out.splitlines()) == 5
    assert "\x1b" not in out


def test_runs_with_forged_keys_are_listed_as_unreadable(capsys, url, remote):
    remote.drive()
    with closing(connect(url)) as connection:
        connection.call("SET", Keys(remote.run_id).desired, b"\x01nonsense")
        connection.call("LPUSH", Keys(remote.run_id).metrics("x", 0), b"no string")
    (line,) = json.loads(run(capsys, "runs", "--redis", url, "--json")[1])["runs"]
    assert (line["name"], line["phase"]) == ("small", "unreadable")
    assert line["redis_bytes"] > 100


def test_runs_of_this_folder(capsys, away, url):
    assert run(capsys, "runs")[1].split() == [
        "name", "id", "state", "actors", "frames", "return", "age", "redis", "folder"
    ]  # fmt: skip
    RunFolder.create(away, small(run="rests"), SPEC)
    goes = Remote(away, url, name="goes").drive()
    (away / "runs/broken").mkdir()
    (away / "runs/broken/config.json").write_text("{}")
    with goes.folder.locked():
        goes.folder.write_control("ray", url, 0.0)
        lines = json.loads(run(capsys, "runs", "--json")[1])["runs"]
    assert [(line["name"], line["phase"]) for line in lines] == [
        ("broken", "unreadable"), ("goes", "running"), ("rests", "not running")
    ]  # fmt: skip
    assert (lines[1]["running"], lines[1]["desired"]) == (1, 2)
    assert lines[1]["redis_bytes"] > 100
    assert lines[2]["redis_bytes"] is None
    assert lines[2]["folder_bytes"] > 100


def test_the_table_lines_up_and_obeys_nobody():
    line = RunLine(
        name="a", run_id="x\x1b[2J\n", phase="running", running=1, desired=16,
        frames=1_234_567, return_mean=-3.25, age_s=3725, redis_bytes=12_345_678,
    )  # fmt: skip
    first, second = table([line]).splitlines()
    assert first == "name  id      state    actors  frames     return  age      redis    folder"
    assert second == "a     x?[2J?  running  1/16    1,234,567  -3.2    1:02:05  12.3 MB  -"


def test_rm_refuses_a_run_with_living_processes(capsys, url, remote):
    remote.drive()
    words = ("runs", "rm", "small", "--redis", url, "--yes")
    said = complaint(capsys, *words)
    assert "still has living processes: actor 0 (h:1), supervisor 0 (h:1)" in said
    remote.end()
    remote.lease("actor", 1000)
    assert "actor 1000 (h:1)" in complaint(capsys, *words)
    assert remote.control.desired().actors == 2


def answering(monkeypatch, act):
    """A person at the prompt; something happens before they say yes."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def readline(self):
            act()
            return "y\n"

    monkeypatch.setattr("sys.stdin", Terminal())


def test_rm_looks_again_after_it_has_asked(capsys, url, remote, monkeypatch):
    remote.drive().end("finished")
    words = ("runs", "rm", "small", "--redis", url)
    answering(monkeypatch, lambda: remote.lease("supervisor", 0))
    assert "still has living processes: supervisor 0" in complaint(capsys, *words)
    assert remote.control.desired().actors == 2
    remote.control.release("supervisor", 0)
    answering(monkeypatch, lambda: None)
    assert run(capsys, *words)[0] == 0
    assert remote.registry.size(remote.run_id) == 0


@pytest.mark.parametrize("embedded", [True, False])
def test_rm_here_keeps_out_whoever_starts_it_meanwhile(capsys, away, url, monkeypatch, embedded):
    config = small() if embedded else small(fleet=replace(small().fleet, redis=url))
    folder = RunFolder.create(away, config, SPEC)
    folder.redis_path.mkdir()
    folder.write_end(End(how="finished"))
    words = ("runs", "rm", "small", "--folder")
    with ExitStack() as other:
        answering(monkeypatch, lambda: other.enter_context(folder.starting()))
        assert "is in use" in complaint(capsys, *words)
    assert folder.redis_path.exists()
    with ExitStack() as other:
        answering(monkeypatch, lambda: other.enter_context(folder.locked()))
        assert "is in use" in complaint(capsys, *words)
    folder.write_end(End(how="finished"))
    answering(monkeypatch, lambda: None)
    assert run(capsys, "runs", "rm", "small")[0] == 0
    assert folder.end() == End(how="finished")
    answering(monkeypatch, lambda: None)
    assert run(capsys, *words)[0] == 0
    assert not folder.path.exists()


def test_rm_frees_it_and_keeps_the_folder(capsys, url, remote, tmp_path):
    other = Remote(tmp_path / "home", url, name="other")
    remote.drive().end()
    assert "say --yes" in complaint(capsys, "runs", "rm", "small", "--redis", url)
    size = remote.registry.size(remote.run_id)
    code, out, err = run(capsys, "runs", "rm", "small", "--redis", url, "--yes")
    assert (code, err) == (0, "")
    assert out == f"run small ({remote.run_id}): freed {size:,} bytes in {url}\n"
    assert size > 100
    assert remote.registry.size(remote.run_id) == 0
    assert [entry.name for entry in remote.registry.entries()] == ["other"]
    assert other.control.desired().actors == 2
    assert remote.folder.record().run_id == remote.run_id


def test_rm_says_how_to_reach_a_data_server(capsys, url, remote, data_server):
    remote.registry.put(replace(remote.entry, redis_data="redis://127.0.0.1:1"))
    words = ("runs", "rm", "small", "--redis", url, "--yes")
    said = complaint(capsys, *words)
    assert "keeps its Chunks elsewhere" in said
    assert said.endswith("with --redis-data URL")
    assert remote.control.desired().actors == 2
    with closing(connect(data_server.url)) as connection:
        connection.call("XADD", Keys(remote.run_id).log(0), "1-1", "d", bytes(9_000))
    _, out, err = run(capsys, *words, "--redis-data", data_server.url)
    assert err == ""
    assert int(out.split("freed ")[1].split(" bytes")[0].replace(",", "")) > 9_000
    assert remote.registry.entries() == []


def test_rm_deletes_the_folder_only_if_it_is_that_runs(capsys, url, remote, away):
    words = ("runs", "rm", "small", "--redis", url, "--yes", "--folder")
    (away / "precious").mkdir()
    for forged in (
        replace(remote.entry, folder=str(away / "precious")),
        replace(remote.entry, host="another"),
    ):
        remote.registry.put(forged)
        assert "delete it there, or leave out --folder" in complaint(capsys, *words)
    assert (away / "precious").exists()
    remote.registry.put(remote.entry)
    with remote.folder.locked():
        assert "is running" in complaint(capsys, *words)
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert f"deleted {remote.folder.path}" in out
    assert not remote.folder.path.exists()


def test_rm_of_an_unreadable_entry(capsys, url, remote):
    with closing(connect(url)) as connection:
        connection.call("HSET", RUNS, remote.run_id, b"{}")
    words = ("runs", "rm", remote.run_id, "--redis", url, "--yes")
    assert "is not known" in complaint(capsys, *words, "--folder")
    assert run(capsys, *words)[0] == 0
    assert remote.registry.size(remote.run_id) == 0
    assert remote.registry.listing().unreadable == []


def test_rm_here_with_an_embedded_server(capsys, away):
    folder = RunFolder.create(away, small(), SPEC)
    folder.redis_path.mkdir()
    (folder.redis_path / "appendonly.aof").write_bytes(bytes(5000))
    code, out, _ = run(capsys, "runs", "rm", "small", "--yes")
    assert (code, folder.redis_path.exists(), folder.path.exists()) == (0, False, True)
    assert "freed 5,000 bytes" in out
    assert run(capsys, "runs", "rm", "small", "--yes", "--folder")[0] == 0
    assert not folder.path.exists()


def test_rm_here_with_a_server_of_its_own(capsys, away, url):
    config = small(run="small", fleet=replace(small().fleet, redis=url))
    folder = RunFolder.create(away, config, SPEC)
    registry = Registry(url)
    registry.put(RunEntry.of(folder))
    code, out, _ = run(capsys, "runs", "rm", "small", "--yes")
    assert (code, registry.entries()) == (0, [])
    assert f"bytes in {url}" in out
