"""One connection to Redis whose every loss is seen.

A client that reconnects by itself in the middle of an append hides exactly what the log must know:
that the server may have come back without its newest entries. So a `RedisConnection` never retries.
Each lost connection surfaces as Unavailable, once; the next call connects again.

::

    connection = connect("unix:///run/dreamfleet/redis.sock", timeout_s=5.0)
    connection.call("XADD", key, "3-17", "d", payload)     -> b"3-17"

Plain commands only, replies as Redis sends them (RESP2: bytes, int, None, lists of these), so the
same code speaks to Redis >= 7, to Valkey and to any redis-py >= 6.
"""

from __future__ import annotations

import re
import threading
from typing import Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from system.errors import DreamfleetError, Unavailable, UserError

Argument: TypeAlias = str | bytes | int
Reply: TypeAlias = "bytes | int | list[Reply] | None"

_RETRYABLE = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "MISCONF",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
)
_SCHEMES = ("redis", "rediss", "unix")
_PASSWORD = re.compile(r"([?&]password=)[^&]*")


class _Link(Protocol):
    """The part of redis-py's connections that is used here."""

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def send_command(self, *command: Argument) -> None: ...

    def read_response(self) -> Reply: ...


class ReplyError(DreamfleetError):
    """Redis answered with an error that waiting does not mend; the message is the answer."""

    @property
    def is_id_refusal(self) -> bool:
        """Whether XADD was refused because the id is not greater than the stream's last id."""
        return "equal or smaller" in str(self)

    @property
    def is_no_such_key(self) -> bool:
        """Whether the key does not exist."""
        return "no such key" in str(self)


class RedisConnection:
    """One socket, one command at a time; threads may share it.

    Loop: `reply = connection.call("GET", key)`; on Unavailable nothing is known about the command.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Does not connect yet.

        Args:
          url: `unix:///path`, `redis://[:password@]host:port[/db]` or `rediss://...`.
          timeout_s: longest wait for connecting, and for each reply [s].

        Raises:
          UserError: the URL cannot be understood.
        """
        self.url = url
        self.shown_url = without_password(url)
        self.timeout_s = timeout_s
        self.lock = threading.RLock()
        """Held for one call; hold it over several to keep them together (WATCH ... EXEC)."""
        # One object for good: the pool counts what it makes, not what is open.
        self._link = cast(_Link, _pool(url, timeout_s).make_connection())
        self._connected = False

    def call(self, *command: Argument) -> Reply:
        """Sends one command and returns its reply.

        Raises:
          Unavailable: no connection, a lost one, a timeout, a full or a still loading server.
          UserError: the server refuses our credentials or this command.
          ReplyError: any other error reply.
        """
        with self.lock:
            try:
                if not self._connected:
                    self._link.connect()
                    self._connected = True
                self._link.send_command(*command)
                reply = self._link.read_response()
            except redis.exceptions.ResponseError as error:
                raise self._translate(str(command[0]), error) from error
            except (redis.exceptions.RedisError, OSError) as error:
                self.drop()
                raise self._translate(str(command[0]), error) from error
            except BaseException:
                # An interrupt between sending and reading: a later reply would be the wrong one.
                self.drop()
                raise
            return reply

    def drop(self) -> None:
        """Closes the socket; the next call connects again."""
        with self.lock:
            self._connected = False
            self._link.disconnect()

    def close(self) -> None:
        """Releases the socket."""
        self.drop()

    def _translate(self, command: str, error: Exception) -> DreamfleetError:
        text = str(error)
        kind = type(error).__name__
        word = text.split(" ", 1)[0]
        if isinstance(error, redis.exceptions.AuthenticationError) or word in (
            "NOAUTH", "WRONGPASS", "NOPERM",
        ) or "NoPermission" in kind or "AuthenticationWrongNumber" in kind:  # fmt: skip
            return UserError(
                f"Redis at {self.shown_url} refuses {command}: {text.rstrip('.')}; name the folder "
                "of `dreamfleet secrets` with --secrets DIR, or put user and password into the "
                "URL: redis://user:password@host:port"
            )
        if isinstance(error, redis.exceptions.OutOfMemoryError) or word == "OOM":
            return Unavailable(f"Redis at {self.shown_url} is full (maxmemory): {command} refused")
        if isinstance(error, redis.exceptions.ReadOnlyError) or word in _RETRYABLE:
            return Unavailable(f"Redis at {self.shown_url} cannot take {command} now: {text}")
        if isinstance(error, redis.exceptions.ResponseError):
            return ReplyError(f"{command}: {text}")
        return Unavailable(f"Redis at {self.shown_url} does not answer {command}: {text or kind}")


def connect(url: str, *, timeout_s: float = 5.0) -> RedisConnection:
    """Prepares a connection; it is opened by the first call.

    Raises:
      UserError: the URL cannot be understood.
    """
    return RedisConnection(url, timeout_s=timeout_s)


def ping(url: str, *, timeout_s: float = 5.0) -> None:
    """Returns if the server at `url` answers.

    Raises:
      UserError: it does not; the message names the URL, the cause and the fix.
    """
    connection = connect(url, timeout_s=timeout_s)
    try:
        connection.call("PING")
    except (Unavailable, ReplyError) as error:
        raise UserError(
            f"cannot reach Redis at {connection.shown_url}: {error}; start one "
            "(`redis-server` or `valkey-server`), correct --redis, or leave --redis out to use "
            "the embedded server"
        ) from error
    finally:
        connection.close()


def as_bytes(reply: Reply) -> bytes:
    """The reply, which must be a string."""
    assert isinstance(reply, bytes), reply
    return reply


def as_int(reply: Reply) -> int:
    """The reply, which must be an integer."""
    assert isinstance(reply, int), reply
    return reply


def as_list(reply: Reply) -> list[Reply]:
    """The reply, which must be a list; None, which means nothing was found, is an empty one."""
    if reply is None:
        return []
    assert isinstance(reply, list), reply
    return reply


def _pool(url: str, timeout_s: float) -> redis.ConnectionPool:
    if urlsplit(url).scheme not in _SCHEMES:
        raise UserError(
            f"Redis URL {without_password(url)!r} must start with redis://, rediss:// or unix://"
        )
    try:
        return redis.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"Redis URL {without_password(url)!r}: {error}") from error


def without_password(url: str) -> str:
    """The URL as it may be shown and stored."""
    head, at, tail = url.rpartition("@")
    scheme = head.partition("://")[0]
    shown = f"{scheme}://***@{tail}" if at else url
    return _PASSWORD.sub(r"\1***", shown)
