"""Who may look and press: decisions alone."""

from __future__ import annotations

import pytest

from deploy.dashboard.access import HEADERS, Access, Asked

TOKEN = "a-secret-of-many-letters"
HOST = "127.0.0.1:8700"


def access(host="127.0.0.1", **more):
    return Access(TOKEN, host=host, **more)


def asked(rules, method="GET", host=HOST, cookie=None, **headers):
    cookies = {rules.cookie_name: rules.cookie_value if cookie is None else cookie}
    told = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(method=method, headers=told, cookies=cookies)


def status(rules, **how):
    refusal = rules.refusal(asked(rules, **how))
    return None if refusal is None else refusal.status


def test_the_cookie_opens_and_the_token_is_not_in_it():
    rules = access()
    assert status(rules) is None
    assert rules.is_token(TOKEN)
    for other in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä"):
        assert not rules.is_token(other)
        assert status(rules, cookie=other) == 401
    assert status(rules, cookie=TOKEN) == 401
    assert TOKEN not in rules.cookie_name + rules.cookie_value
    assert access().cookie_value == rules.cookie_value
    other = Access("another-secret-of-many", host="127.0.0.1")
    assert other.cookie_name != rules.cookie_name  # two pages of one machine share a cookie jar


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:9000", "LOCALHOST", "[::1]:8700", "[::1]"]
)
def test_names_of_this_machine(host):
    assert status(access(), host=host) is None


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example:8700", "10.1.2.3", "localhost.",
             "evil.example:127.0.0.1", "x@localhost"],
)  # fmt: skip
def test_other_names_are_refused_before_anything_else(host):
    rules = access()
    assert status(rules, host=host) == 403
    assert status(rules, host=host, cookie="") == 403


def test_a_public_server_has_its_names_and_any_address():
    rules = access("0.0.0.0", names=frozenset({"Rig7", "rig7.example"}))
    for host in ("10.1.2.3:8700", "[fe80::1]:8700", "rig7:8700", "rig7.example", "localhost:8700"):
        assert status(rules, host=host) is None, host
    # A name can be pointed anywhere by its owner, an address cannot.
    assert status(rules, host="evil.example:8700") == 403
    assert status(access("fe80::1"), host="[fe80::1]:8700") is None


def test_a_post_comes_from_the_page_itself():
    rules, json = access(), "application/json; charset=utf-8"
    ours = {"method": "POST", "content_type": json, "origin": f"http://{HOST}"}
    assert status(rules, **ours) is None
    assert status(rules, **ours, sec_fetch_site="same-origin") is None
    assert status(rules, **{**ours, "origin": "https://127.0.0.1:8700"}) is None  # behind TLS
    for origin in ("", "null", "http://evil.example", "http://127.0.0.1:8701", "http://127.0.0.1",
                   f"http://{HOST}.evil.example", f"file://{HOST}", f"//{HOST}"):  # fmt: skip
        assert status(rules, **{**ours, "origin": origin}) == 403, origin
    assert status(rules, **ours, sec_fetch_site="cross-site") == 403
    assert status(rules, **ours, sec_fetch_site="same-site") == 403
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "text/json"):
        assert status(rules, **{**ours, "content_type": kind}) == 415
    assert status(rules, **ours, cookie="wrong") == 401


def test_the_policy_allows_nothing_but_this_server():
    policy = dict(part.strip().split(" ", 1) for part in
                  HEADERS["Content-Security-Policy"].split(";"))  # fmt: skip
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy)
