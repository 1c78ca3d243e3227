"""The files of `dreamfleet secrets`, and the URLs made with them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from deploy.acl import BARE, ROLES, RULES
from deploy.cli import main
from deploy.place import RedisUrls, redis_place
from deploy.secrets import role_urls
from system.errors import ConfigError

ROOT = Path(__file__).parents[2]
PLAIN = RedisUrls(control="redis://host:1/2", data="rediss://host:3?x=y")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("DREAMFLEET_SECRETS", raising=False)


@pytest.fixture
def folder(tmp_path):
    assert main(["secrets", str(tmp_path / "s")]) == 0
    return tmp_path / "s"


def complaint(capsys, *words):
    capsys.readouterr()
    assert main(["secrets", *map(str, words)]) == 2
    return capsys.readouterr().err


def passwords(folder):
    return {role: (folder / f"{role}.password").read_text().strip() for role in ROLES}


def test_only_this_user_can_read_them(folder):
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes.pop("data") == 0o700
    assert modes == dict.fromkeys(
        ["users.acl", "redis.conf", *(f"{role}.password" for role in ROLES)], 0o600
    )


def test_the_acl_file_holds_hashes_of_four_long_passwords(folder):
    text = (folder / "users.acl").read_text()
    assert text.startswith("user default reset off\n")
    assert len(set(passwords(folder).values())) == len(ROLES)
    for role, password in passwords(folder).items():
        assert len(password) >= 43  # 256 bits, 6 a letter
        assert password not in text
        assert f"user {role} reset on #{hashlib.sha256(password.encode()).hexdigest()} " in text


def test_every_command_we_send_is_somebodys_right():
    sent = set()
    for path in [*(ROOT / "system").rglob("*.py"), ROOT / "deploy" / "registry.py"]:
        sent |= set(re.findall(r'\bcall\(\s*"([A-Z]+)"', path.read_text()))
    rights = [rule.commands for rules in RULES.values() for rule in rules] + list(BARE.values())
    known = {command.partition("|")[0].upper() for text in rights for command in text.split()}
    assert {"XADD", "HSET", "MGET"} <= sent <= known


def test_old_secrets_are_replaced_only_by_force(folder, capsys):
    before = passwords(folder)
    assert "--force" in complaint(capsys, folder)
    assert passwords(folder) == before
    assert main(["secrets", str(folder), "--force"]) == 0
    assert not set(passwords(folder).values()) & set(before.values())


def test_no_password_is_printed(tmp_path, capsys):
    main(["secrets", str(tmp_path / "t")])
    said = capsys.readouterr().out
    assert not [password for password in passwords(tmp_path / "t").values() if password in said]


def test_another_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    mode = tmp_path.stat().st_mode
    assert "is not empty" in complaint(capsys, tmp_path, "--force")
    assert tmp_path.stat().st_mode == mode


def test_tls_is_whole_or_not_at_all(tmp_path, capsys):
    pem = tmp_path / "a.pem"
    pem.write_text("x")
    assert "--tls-key, --tls-ca" in complaint(capsys, tmp_path / "s", "--tls-cert", pem)
    words = ("--tls-cert", pem, "--tls-key", pem, "--tls-ca", tmp_path / "none.pem")
    assert "none.pem cannot be read" in complaint(capsys, tmp_path / "s", *words)
    assert not (tmp_path / "s").exists()


def test_urls_get_user_and_password(folder):
    password = passwords(folder)["actor"]
    assert role_urls(PLAIN, "actor", folder) == RedisUrls(
        control=f"redis://actor:{password}@host:1/2", data=f"rediss://actor:{password}@host:3?x=y"
    )


def test_the_authority_goes_along(folder):
    (folder / "ca.crt").write_text("x")
    urls = role_urls(PLAIN, "learner", folder)
    assert urls.data.endswith(f"@host:3?x=y&ssl_ca_certs={folder}/ca.crt")
    assert "ssl_ca_certs" not in urls.control


@pytest.mark.parametrize("url", ["redis://me@h:1", "redis://:p@h:1", "redis://h:1?password=p"])
def test_a_url_with_its_own_credential_stays(folder, url):
    assert role_urls(RedisUrls(control=url), "actor", folder).control == url


def test_a_place_shows_no_password(folder):
    urls = role_urls(PLAIN, "learner", folder)
    shown = f"{urls} {redis_place(urls, 'r')}"
    assert "redis://***@host:1/2" in shown
    assert passwords(folder)["learner"] not in shown


def test_one_server_stays_one(folder):
    urls = role_urls(RedisUrls(control="redis://h:1"), "actor", folder)
    assert urls.control == urls.data


def test_the_environment_names_the_folder_but_not_for_embedded_servers(folder, monkeypatch):
    urls = RedisUrls(control="redis://h:1", data="unix:///x/redis.sock")
    assert role_urls(urls, "actor", None) == role_urls(urls, "actor", "") == urls
    monkeypatch.setenv("DREAMFLEET_SECRETS", str(folder))
    password = passwords(folder)["actor"]
    assert role_urls(urls, "actor", "") == RedisUrls(
        control=f"redis://actor:{password}@h:1", data=urls.data
    )
    assert role_urls(urls, "actor", folder).data == f"unix://actor:{password}@/x/redis.sock"


def test_a_missing_password_names_the_fix(folder, tmp_path):
    with pytest.raises(ConfigError, match=f"dreamfleet secrets {tmp_path / 'none'}"):
        role_urls(PLAIN, "learner", tmp_path / "none")
    (folder / "learner.password").write_text("\n")
    with pytest.raises(ConfigError, match=f"dreamfleet secrets {folder} --force"):
        role_urls(PLAIN, "learner", folder)


def test_the_folder_of_a_robot_is_named_as_such(folder, tmp_path):
    robot = tmp_path / "robot"
    robot.mkdir()
    (folder / "actor.password").rename(robot / "actor.password")
    with pytest.raises(ConfigError, match=r"holds actor\.password alone; .* learner\.password"):
        role_urls(PLAIN, "learner", robot)
