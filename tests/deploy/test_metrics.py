"""The catalogue: nobody names a metric that is not in it, and it goes by the book."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from actors.report import FAULT_KINDS
from system.metrics import CATALOGUE, COUNTED, EVENT_KINDS, MEASURED, METRICS, ROLES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
NAMING = [
    RULES, ROOT / "deploy/prometheus/tests.yml", *DASHBOARDS, ROOT / "README.md",
    ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")),
]  # fmt: skip
SERIES = {name for metric in CATALOGUE for name in metric.series}
NAME = re.compile(r"\bdreamfleet_[a-z0-9_]+")
SOURCES = [path for part in ("actors", "learner", "deploy") for path in (ROOT / part).rglob("*.py")]


def named(text):
    """Metrics, not the rules that `level:metric:operations` records."""
    return set(NAME.findall(re.sub(r"\b\w+:dreamfleet_\w+:\w+", "", text)))


@pytest.mark.parametrize("path", NAMING, ids=lambda path: path.name)
def test_nobody_names_a_metric_that_does_not_exist(path):
    assert named(path.read_text()) <= SERIES | set(METRICS)


def test_rules_and_panels_do_name_metrics():
    for path in (RULES, *DASHBOARDS):
        assert len(named(path.read_text())) > 10
    assert named("x:dreamfleet_a:sum / dreamfleet_b{c='d'} # dreamfleet_e") == {
        "dreamfleet_b", "dreamfleet_e",
    }  # fmt: skip


def test_every_recorded_rule_that_is_used_exists():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    for path in NAMING:
        assert set(re.findall(r"\brun:dreamfleet_\w+:\w+", path.read_text())) <= recorded


def test_names_are_by_the_book():
    assert len(METRICS) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert re.fullmatch(r"dreamfleet_[a-z][a-z0-9_]*[a-z0-9]", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_info") == (metric.kind == "info")
        assert not re.search(r"_(s|ms|bytes_total_bytes|percent|kb|mb)(_total)?$", metric.name)
        assert metric.help.endswith(".")
        assert not metric.resumes or metric.kind == "counter"
        for source in metric.sources:
            assert sorted(source.labels) == metric.labels
            assert source.role in ROLES
    keys = [source.key for metric in CATALOGUE for source in metric.sources]
    assert len(keys) == len(set(keys)) == len(COUNTED | MEASURED)


def test_what_is_counted_by_a_word_has_every_word():
    faults = METRICS["dreamfleet_environment_faults_total"]
    assert {source.labels["kind"] for source in faults.sources} == set(FAULT_KINDS)
    said = set()
    for path in SOURCES:
        said |= set(re.findall(r"event\(\s*\"([a-z_]+)\"", path.read_text()))
        said |= set(re.findall(r"_tell\(\s*REDIS, \"([a-z_]+)\"", path.read_text()))
        said |= set(re.findall(r"\.tell\(\s*\"([a-z_]+)\"", path.read_text()))
        said |= set(re.findall(r"kind=\"(actor_[a-z_]+)\"", path.read_text()))
    assert len(said) > 15
    assert said <= set(EVENT_KINDS)
    for role in ("actor", "learner", "evaluator"):
        assert {f"{role}_{what}" for what in ("died", "killed", "pending", "restarted")} <= set(
            EVENT_KINDS
        )
    assert {f"environment_{kind}" for kind in FAULT_KINDS} <= set(EVENT_KINDS)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_follow_grafanas_conventions(path):
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem
    assert board["version"] >= 1
    assert "id" not in board
    datasources = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    uids = {source["uid"] for source in datasources}
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["datasource"]["uid"] in uids
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        assert all(target["datasource"]["uid"] in uids for target in panel["targets"])
    _do_not_overlap(board["panels"])
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$([a-z]+)\b", json.dumps([panel["targets"] for panel in panels])))
    assert used == variables


def _do_not_overlap(panels):
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
