"""`dreamfleet secrets`: a password for each role, and the server's files that go with them.

::

    DIR/users.acl          what each role may do (`deploy/acl.py`); passwords as hashes
    DIR/redis.conf         for `valkey-server DIR/redis.conf`: loopback, this ACL file, TLS if given
    DIR/<role>.password    one for each of actor, learner, exporter, admin
    DIR/ca.crt             with TLS: whom clients trust

A robot gets `actor.password` (and `ca.crt`) in a folder of its own, and no more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

from deploy.acl import ROLES, Role, acl_line
from deploy.place import RedisUrls
from deploy.redis_server import private_folder
from system.errors import ConfigError
from system.files import write_whole
from system.redis_client import without_password

ENVIRONMENT = "DREAMFLEET_SECRETS"
PASSWORD_BYTES = 32
"""Of randomness [bytes]."""
_ACL, _CONF, _CA, _DATA = "users.acl", "redis.conf", "ca.crt", "data"
_TLS = ("tls_cert", "tls_key", "tls_ca")


def write_secrets(options: argparse.Namespace) -> None:
    """`dreamfleet secrets DIR`: new passwords, the server's files, and what to do with them.

    Raises:
      ConfigError: the folder holds something else, or older secrets and no `--force`; or TLS
        files that are incomplete or cannot be read.
    """
    folder = Path(options.folder).absolute()
    tls = _tls_files(options)
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _ACL).exists():
            raise ConfigError(f"{folder} is not empty; name a new folder for the secrets")
        if not options.force:
            raise ConfigError(f"{folder} holds secrets; replace them all with --force")
    private_folder(folder)
    private_folder(folder / _DATA)
    lines = ["user default reset off"]
    for role in ROLES:
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        write_whole(_password_path(folder, role), f"{password}\n".encode())
        lines.append(acl_line(role, hashlib.sha256(password.encode()).hexdigest()))
    write_whole(folder / _ACL, ("\n".join(lines) + "\n").encode())
    if tls:
        write_whole(folder / _CA, tls["tls_ca"].read_bytes())
    else:
        (folder / _CA).unlink(missing_ok=True)
    write_whole(folder / _CONF, _server_conf(folder, tls).encode())
    sys.stdout.write(_next_steps(folder, scheme="rediss" if tls else "redis"))


def role_urls(urls: RedisUrls, role: Role, folder: str | Path | None) -> RedisUrls:
    """The URLs with the role's name and password in them.

    Args:
      urls: one with a user or password of its own stays as it is.
      role: as whom to speak.
      folder: that `dreamfleet secrets` wrote; None or "" takes DREAMFLEET_SECRETS, if set, but
        not for unix sockets: there the socket's folder is the credential.

    Raises:
      ConfigError: the folder has no password of this role; the message names the fix.
    """
    if folder:
        place, sockets_too = Path(folder), True
    elif os.environ.get(ENVIRONMENT):
        place, sockets_too = Path(os.environ[ENVIRONMENT]), False
    else:
        return urls

    def merged(url: str) -> str:
        if has_credential(url) or (urlsplit(url).scheme == "unix" and not sockets_too):
            return url
        return _with_credential(url, role, place)

    return RedisUrls(control=merged(urls.control), data=merged(urls.data))


def has_credential(url: str) -> bool:
    """Whether the URL names a user or a password."""
    return without_password(url) != url or "username=" in urlsplit(url).query


def _with_credential(url: str, role: Role, folder: Path) -> str:
    parts = urlsplit(url)
    user = f"{role}:{quote(_password(folder, role), safe='')}@"
    query = parts.query
    if parts.scheme == "rediss" and "ssl_ca_certs=" not in query and (folder / _CA).exists():
        query = "&".join(filter(None, (query, f"ssl_ca_certs={quote(str(folder / _CA))}")))
    # Spelled out: urlunsplit drops the empty host of unix:///path.
    tail = f"?{query}" if query else ""
    return f"{parts.scheme}://{user}{parts.netloc}{parts.path}{tail}"


def _password(folder: Path, role: Role) -> str:
    path = _password_path(folder, role)
    try:
        password = path.read_text().strip()
    except OSError as error:
        raise ConfigError(_no_password(folder, role, str(error.strerror))) from error
    if not password:
        raise ConfigError(f"{path} is empty; write new ones: dreamfleet secrets {folder} --force")
    return password


def _no_password(folder: Path, role: Role, why: str) -> str:
    held = ", ".join(sorted(path.name for path in folder.glob("*.password")))
    if held:
        return (
            f"--secrets {folder} holds {held} alone; this needs {role}.password, from the folder "
            "that `dreamfleet secrets` wrote"
        )
    return (
        f"no password of role {role!r} in {folder}: {why}; write new ones with: dreamfleet secrets "
        f"{folder}, or name their folder with --secrets DIR ({ENVIRONMENT})"
    )


def _password_path(folder: Path, role: Role) -> Path:
    return folder / f"{role}.password"


def _tls_files(options: argparse.Namespace) -> dict[str, Path]:
    named = {name: getattr(options, name) for name in _TLS}
    given = {name: Path(path).absolute() for name, path in named.items() if path}
    if given and len(given) < len(_TLS):
        missing = ", ".join(f"--{name.replace('_', '-')}" for name in _TLS if name not in given)
        raise ConfigError(f"TLS needs certificate, key and authority; missing: {missing}")
    for name, path in given.items():
        if not os.access(path, os.R_OK) or not path.is_file():
            raise ConfigError(f"--{name.replace('_', '-')} {path} cannot be read; name a PEM file")
    return given


def _server_conf(folder: Path, tls: dict[str, Path]) -> str:
    lines = [
        "# Loopback alone; to let other machines in, add this machine's address, and use TLS.",
        "bind 127.0.0.1 -::1",
        "protected-mode yes",
        f'aclfile "{folder / _ACL}"',
        "# A full server refuses Chunks, and forgets none.",
        "maxmemory-policy noeviction",
        "# maxmemory 8gb",
        "appendonly yes",
        "appendfsync everysec",
    ]
    if tls:
        lines += [
            "port 0",
            "tls-port 6379",
            f'tls-cert-file "{tls["tls_cert"]}"',
            f'tls-key-file "{tls["tls_key"]}"',
            f'tls-ca-cert-file "{tls["tls_ca"]}"',
            "# Clients show a password, not a certificate.",
            "tls-auth-clients no",
        ]
    return "\n".join(lines) + "\n"


def _next_steps(folder: Path, *, scheme: str) -> str:
    return (
        f"secrets of {', '.join(ROLES)} are in {folder} (this user alone can read them)\n"
        f"  server:   valkey-server {folder / _CONF} --dir {folder / _DATA}\n"
        "            (or redis-server >= 7; restart it to load new secrets)\n"
        f"  here:     dreamfleet train --redis {scheme}://HOST:6379 --secrets {folder} ...\n"
        f"  a robot:  copy actor.password{' and ' + _CA if scheme == 'rediss' else ''} into a "
        f"folder of its own; {ENVIRONMENT}=FOLDER\n"
    )
