"""The doctor's look at the Redis servers of a run to be: do they answer, and whom else.

::

    role_urls -> ping as the learner -> is a password needed at all? -> does it travel in the clear?
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from deploy.findings import Finding, missing
from deploy.place import RedisUrls
from deploy.secrets import has_credential, role_urls
from system.errors import DreamfleetError
from system.redis_client import connect, ping, without_password


def check_named_redis(urls: RedisUrls, secrets: str | None) -> list[Finding]:
    """The servers of a run to be, with the rights of its learner."""
    try:
        named = role_urls(urls, "learner", secrets)
    except DreamfleetError as error:
        return [missing("redis roles", str(error), "dreamfleet secrets DIR")]
    findings = [_server("redis control", named.control)]
    if named.data != named.control:
        findings.append(_server("redis data", named.data))
    return findings


def _server(name: str, url: str) -> Finding:
    shown = without_password(url)
    try:
        ping(url)
    except DreamfleetError as error:
        return missing(name, str(error), "see above")
    if urlsplit(url).scheme == "unix":
        return Finding(name=name, verdict="ok", found=f"{shown} answers")
    if not has_credential(url) or _answers_anybody(url):
        return Finding(
            name=name, verdict="note", found=f"{shown} answers anybody who reaches it",
            fix="dreamfleet secrets DIR, start it with DIR/redis.conf, then --secrets DIR",
        )  # fmt: skip
    if urlsplit(url).scheme != "rediss" and not _on_this_machine(url):
        return Finding(
            name=name, verdict="note", found=f"{shown} answers; password and data travel in clear",
            fix="TLS: dreamfleet secrets DIR --tls-cert ..., then rediss://; or a private network",
        )  # fmt: skip
    return Finding(name=name, verdict="ok", found=f"{shown} answers, and asks for a password")


def _answers_anybody(url: str) -> bool:
    """Whether a password is only a courtesy: the server does not need it."""
    parts = urlsplit(url)
    query = "&".join(
        part for part in parts.query.split("&") if not part.startswith(("username=", "password="))
    )
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query).geturl()
    connection = connect(bare)
    try:
        connection.call("PING")
    except DreamfleetError:
        return False
    finally:
        connection.close()
    return True


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
