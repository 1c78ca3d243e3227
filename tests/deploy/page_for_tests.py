"""A browser without a screen: asks a page, listens to its stream."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlencode

from tests.security.attack import Attempt, Target
from tests.waiting import wait_until


class Page:
    """One user with a cookie.

    The calls that use it::

        page = Page(server.url)
        page.ask("/api/now", run=run_id)
        with page.stream(run_id) as stream:
            stream.until(lambda: stream.newest("now")["fleet"]["running"] == 2)
    """

    def __init__(self, url):
        self.target = Target(url)

    def get(self, path, **query):
        """The whole answer."""
        path = f"{path}?{urlencode(query)}" if query else path
        return self.target.ask(Attempt(what="", refusals=(), path=path))

    def ask(self, path, **query):
        """JSON."""
        answer = self.get(path, **query)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def post(self, path, **body):
        """Status and JSON."""
        headers = {"Content-Type": "application/json", "Origin": self.target.origin}
        answer = self.target.ask(
            Attempt(
                what="", refusals=(), method="POST", path=path, headers=headers,
                body=json.dumps(body).encode(),
            )
        )  # fmt: skip
        return answer.status, json.loads(answer.body)

    def stream(self, run_id="", last_id=""):
        """A tab."""
        return Stream(self.target, run_id, last_id)


class Stream:
    """One tab: collects events in a thread."""

    def __init__(self, target, run_id, last_id):
        self.events, self.last_id, self.comments = [], "", 0
        self._connection = http.client.HTTPConnection(target.host, target.port, timeout=120)
        headers = {"Cookie": target.cookie, "Host": target.authority}
        if last_id:
            headers["Last-Event-ID"] = last_id
        self._connection.request("GET", f"/stream?{urlencode({'run': run_id})}", headers=headers)
        self.answer = self._connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        # The socket, not the response: the thread holds that while it reads.
        sock = self._connection.sock or self.answer.fp.raw._sock
        sock.shutdown(2)
        self._thread.join(60)
        self._connection.close()

    def of(self, kind):
        """Every event of one kind."""
        return [data for one, data in list(self.events) if one == kind]

    def newest(self, kind):
        """The last one of a kind; None before the first."""
        return next(iter(reversed(self.of(kind))), None)

    def points(self):
        """The curve, as a page has it."""
        points = []
        for piece in self.of("curve"):
            points = piece["points"] if piece["reset"] else points + piece["points"]
        return points

    def until(self, condition, what="was streamed"):
        """Waits for a condition on what was heard."""
        return wait_until(condition, what, words=lambda: self.events[-3:])

    def _read(self):
        kind, data, identity = "", "", ""
        try:
            for raw in self.answer:
                line = raw.decode().rstrip("\n")
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif name == "id":
                    identity = value
                elif not line and data:
                    self.events.append((kind, json.loads(data)))
                    self.last_id = identity or self.last_id
                    kind, data, identity = "", "", ""
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            return
