"""Lines of a run: two writers, crashes, and a table of other columns."""

from __future__ import annotations

import csv
import json
import os
import threading

import pytest

from system.run_log import COLUMNS, RunLog


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def kept(folder):
    return sorted(path.read_text() for path in folder.glob("metrics.*.csv"))


def test_a_line_is_a_row_of_fixed_columns(tmp_path):
    log = RunLog(tmp_path)
    log.append({"time_s": 1.5, "frames": 100, "updates": 4, "loss/value": 0.25, "other": 7.0})
    RunLog(tmp_path).append({"time_s": 2.0, "frames": 200, "updates": 8, "eval/return_mean": 1e-9})
    first, second = rows(tmp_path)
    assert tuple(first) == tuple(second) == COLUMNS
    assert {key: text for key, text in first.items() if text} == {
        "time_s": "1.5", "frames": "100", "updates": "4", "loss/value": "0.25"
    }  # fmt: skip
    assert float(second["eval/return_mean"]) == 1e-9
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines[0]["other"] == 7.0
    assert len(lines) == 2


def test_writers_that_begin_at_once_name_the_columns_once(tmp_path):
    together = threading.Barrier(6)

    def write(number):
        log = RunLog(tmp_path)
        together.wait()
        for index in range(30):
            log.append({"time_s": index, "frames": number, "updates": index})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = rows(tmp_path)
    assert sorted((row["frames"], row["updates"]) for row in found) == sorted(
        (str(number), str(index)) for number in range(6) for index in range(30)
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("cut", [b'{"time_s": 1.0, "fra', b"1.0,1"])
def test_after_a_crash_the_next_line_begins_anew(tmp_path, cut):
    log = RunLog(tmp_path)
    log.append({"time_s": 1.0, "frames": 1, "updates": 1})
    for name in ("metrics.jsonl", "metrics.csv"):
        with (tmp_path / name).open("ab") as file:
            file.write(cut)
    log.append({"time_s": 2.0, "frames": 2, "updates": 2})
    assert rows(tmp_path)[-1]["frames"] == "2"
    assert json.loads(log.path.read_text().splitlines()[-1])["frames"] == 2


def test_a_table_with_other_columns_is_kept_under_another_name(tmp_path):
    (tmp_path / "metrics.csv").write_text("time_s,frames\n1.0,2\n")
    RunLog(tmp_path).append({"time_s": 3.0, "frames": 4, "updates": 1})
    assert [row["frames"] for row in rows(tmp_path)] == ["4"]
    assert kept(tmp_path) == ["time_s,frames\n1.0,2\n"]


def test_two_writers_that_find_an_old_table_keep_it(tmp_path, monkeypatch):
    """The second one has read the old columns when the first one begins the new table."""
    (tmp_path / "metrics.csv").write_text("time_s,frames\n1.0,2\n")
    link = os.link

    def overtaken(source, target):
        monkeypatch.setattr(os, "link", link)
        RunLog(tmp_path).append({"time_s": 3.0, "frames": 4, "updates": 1})
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    RunLog(tmp_path).append({"time_s": 4.0, "frames": 5, "updates": 2})
    assert [row["frames"] for row in rows(tmp_path)] == ["4", "5"]
    assert kept(tmp_path) == ["time_s,frames\n1.0,2\n"]


def test_two_tables_with_the_same_old_columns_are_both_kept(tmp_path):
    for frames in (2, 3):
        old = tmp_path / "older.csv"
        old.write_text(f"time_s,frames\n1.0,{frames}\n")
        old.replace(tmp_path / "metrics.csv")
        RunLog(tmp_path).append({"time_s": 3.0, "frames": 4, "updates": 1})
    assert kept(tmp_path) == ["time_s,frames\n1.0,2\n", "time_s,frames\n1.0,3\n"]
