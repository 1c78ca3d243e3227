"""The page beside a run: as long as the run, in a process of its own or in that of the run."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from deploy.dashboard import beside
from deploy.dashboard.beside import RunPage, serve_while_it_runs
from deploy.operated import FolderRun
from deploy.run_folder import End, RunFolder
from system.errors import RunError
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.page_for_tests import Page
from tests.fleet_for_tests import ENVIRONMENT
from tests.integration.listeners import listeners
from tests.waiting import DEADLINE_S, wait_until


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, small(), SPEC)


def test_a_process_of_its_own_on_loopback_behind_a_token(folder):
    page = RunPage(folder)
    assert page.url == ""
    with folder.locked():
        page.start()
        url = page.wait_for_url(DEADLINE_S)
        path = folder.path / "dashboard.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        now = Page(url).ask("/api/now")["now"]
        assert (now["run"]["name"], now["run"]["phase"]) == ("small", "running")
        assert FolderRun(folder).status().page == url
        (pid,) = [page._process.pid]
        assert pid != os.getpid()
        assert os.getpriority(os.PRIO_PROCESS, pid) >= beside.NICENESS
        listening = listeners(pid)
        assert listening
        assert all(one.private for one in listening)
        with pytest.raises(RunError, match="served already"), page.served():
            pass
        page.stop()
        assert (page.url, path.exists()) == ("", False)
    assert (folder.log_path / "dashboard.log").read_text() == ""


def test_another_start_replaces_a_page_that_lingers(folder):
    first, second = RunPage(folder), RunPage(folder)
    with folder.locked():
        first.start()
        before = first.wait_for_url(DEADLINE_S)
        second.start()
        after = wait_until(lambda: second.url not in ("", before) and second.url)
        assert first._process.wait(DEADLINE_S) == 0
        assert Page(after).get("/").status == 200
        second.stop()


@pytest.mark.parametrize("told", [True, False])
def test_it_ends_with_the_run(folder, monkeypatch, told):
    monkeypatch.setattr(beside, "LOOK_S", 0.01)
    for name, patience_s in (("LINGER_S", 0.1), ("GONE_S", 0.3), ("UNUSED_S", 0.3)):
        monkeypatch.setattr(beside, name, patience_s)
    if told:
        folder.write_end(End(how="finished"))
        monkeypatch.setattr(beside, "GONE_S", 1e9)
        monkeypatch.setattr(beside, "UNUSED_S", 1e9)
    handlers = [(one, signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGINT)]
    try:
        serve_while_it_runs(folder)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    assert RunPage(folder).url == ""


def test_a_run_of_one_process_serves_it_too(tmp_path):
    """Fleet, dream and events come from memory; it cannot be scaled."""
    settings = ["learner.metrics_s=0.2", "learner.batch_size=4", "learner.batch_length=8",
                "learner.dream_starts=8",
                "replay.min_steps=64", "replay.ratio=8", "replay.chunk_length=8"]  # fmt: skip
    log = tmp_path / "said"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "train", "--env", "CartPole-v1", "--run", "one",
             "--runner", "local", "--frames", "0", "--set", *settings],
            cwd=tmp_path, env=ENVIRONMENT, stdout=said, stderr=said,
        )  # fmt: skip
    try:
        folder = RunFolder(tmp_path / "runs" / "one")
        wait_until(lambda: RunPage(folder).url or process.poll() is not None)
        url = RunPage(folder).url
        assert url, log.read_text()
        wait_until(lambda: f"page: {url}" in log.read_text(), "told")
        page = Page(url)
        with page.stream() as stream:
            stream.until(lambda: (stream.newest("now") or {}).get("progress", {}).get("updates"))
            stream.until(lambda: stream.newest("now")["fleet"]["running"])
            now = stream.newest("now")
            assert (now["fleet"]["desired"], now["fleet"]["running"]) == (1, 1)
            assert {row["role"] for row in now["fleet"]["rows"]} >= {"actor", "learner"}
            assert not any(row["restartable"] for row in now["fleet"]["rows"])
            stream.until(lambda: stream.newest("events"))
            status, answer = page.post("/api/scale", run=now["run"]["id"], delta=1)
            assert (status, "one process" in answer["error"]) == (409, True)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0, log.read_text()
        assert RunPage(folder).url == ""
    finally:
        process.kill()
        process.wait()


def test_a_page_that_cannot_be_served_stops_nothing(folder, monkeypatch):
    """`wait_for_url` gives up, and says so by an empty URL."""
    monkeypatch.setattr(beside.sys, "executable", "/bin/false")
    page, since_s = RunPage(folder), time.monotonic()
    page.start()
    assert page.wait_for_url(0.3) == ""
    assert time.monotonic() - since_s < DEADLINE_S
    page.stop()
