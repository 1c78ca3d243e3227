"""`python -m deploy.health`: one exit code and at most one line, for the engine."""

from __future__ import annotations

import socket

import pytest

from deploy.health import main
from deploy.run_folder import RunFolder
from system.control.protocol import Lease
from tests.deploy.configs_for_tests import SPEC, small
from tests.deploy.remote_for_tests import Remote


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def said(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == code
        return err

    return said


def test_a_folder_is_healthy_while_one_of_its_runs_is_driven(said, tmp_path):
    assert "is driven" in said()
    folder = RunFolder.create(tmp_path, small(), SPEC)
    assert "is driven" in said()
    with folder.locked():
        assert said() == ""


def test_a_process_is_healthy_while_one_on_this_machine_renews_its_lease(
    said, tmp_path, redis_server, run_name
):
    remote = Remote(tmp_path, redis_server.url, run_name)
    words = ["actor", "--redis", redis_server.url, "--run", run_name]
    assert "no actor of" in said(*words)
    for who, healthy in (("elsewhere:7:00", False), (f"{socket.gethostname()}:7:00", True)):
        remote.control.renew(
            Lease(role="actor", slot=1000, incarnation=1, who=who, doing="acting", time_s=0.0),
            ttl_s=60,
        )
        assert (said(*words) == "") is healthy
    assert "no learner of" in said("learner", *words[1:])


def test_what_does_not_answer_is_not_healthy(said, tmp_path):
    assert "Redis at" in said("actor", "--redis", f"unix://{tmp_path}/none.sock")
    assert "no password of role 'actor'" in said(
        "actor", "--redis", "redis://127.0.0.1:1", "--secrets", tmp_path
    )
