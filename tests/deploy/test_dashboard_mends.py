"""A page that meets odd lines, a name used twice, a tab that never comes, a process that stays."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from starlette.requests import Request

from deploy.dashboard import beside, tabs
from deploy.dashboard.beside import RunPage
from deploy.dashboard.folders import FolderRuns
from deploy.dashboard.hub import Hub, Listed
from deploy.dashboard.stream import newest_json, to_text
from deploy.run_folder import RunFolder
from system.clock import SystemClock


def begun(where, run_id, line=""):
    path = where / "runs" / "one"
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"run_id": run_id, "config": {}}))
    folder = RunFolder(path)
    folder.metrics_path.write_text(line)
    return folder


def test_a_figure_that_is_no_number_stops_no_list(tmp_path):
    line = '{"frames": NaN, "eval/return_mean": Infinity, "time_s": 1.0, "updates": 1}\n'
    begun(tmp_path, "one-1", line)
    cards = tuple(FolderRuns(tmp_path).cards())
    assert (cards[0].frames, cards[0].return_mean) == (None, None)
    to_text(newest_json(Listed(version=1, cards=cards), None))


def test_another_run_of_the_same_name_is_another(tmp_path):
    runs = FolderRuns(tmp_path)
    begun(tmp_path, "one-1")
    assert [card.run_id for card in runs.cards()] == ["one-1"]
    begun(tmp_path, "one-2")
    assert [card.run_id for card in runs.cards()] == ["one-2"]
    assert runs.open("one-1") is None


def request(method="GET"):
    return Request({"type": "http", "method": method, "query_string": b"", "headers": []})


def test_a_tab_counts_from_its_admission_until_it_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(tabs, "MOST_TABS", 1)
    hub = Hub(FolderRuns(tmp_path), SystemClock())
    hub.start()
    hub.close()
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    async def visits():
        every = tabs.Tabs(hub)
        assert (await every.open(request("HEAD"))).status_code == 405
        first = await every.open(request())
        assert (await every.open(request())).status_code == 503
        await first({"type": "http", "asgi": {}}, receive, send)
        assert (await every.open(request())).status_code == 200

    asyncio.run(visits())
    assert sent


def test_a_page_that_does_not_go_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "STOP_S", 0.2)
    page = RunPage(begun(tmp_path, "one-1"))
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        page._process = process
        page.stop()
        assert process.returncode == -9
