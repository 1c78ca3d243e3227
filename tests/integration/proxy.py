"""A socket in front of the server that is slow, or loses requests and replies by chance."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from pathlib import Path


class FaultyProxy:
    """Forwards a unix socket; with `cut_chance` each piece of traffic is lost with its connection.

    Each piece arrives `delay_s` later [s]: a round trip takes twice that. A request may be cut in
    half, a reply may be lost after the server has acted.
    """

    def __init__(
        self, listen: Path, target: Path, *, cut_chance: float = 0.0, seed: int = 0,
        delay_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.url = f"unix://{listen}"
        self.cut_chance, self.delay_s = cut_chance, delay_s
        self.num_cuts = self.num_pieces = 0
        self._target = str(target)
        self._random = random.Random(seed)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(listen))
        self._server.listen(64)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for pair in self._pairs:
            _shut(*pair)
        self._thread.join(timeout=2)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            try:
                upstream.connect(self._target)
            except OSError:
                _shut(client, upstream)
                continue
            self._pairs.append((client, upstream))
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.num_pieces += 1
                time.sleep(self.delay_s)
                if self._random.random() < self.cut_chance:
                    self.num_cuts += 1
                    sink.sendall(data[: self._random.randrange(len(data))])
                    break
                sink.sendall(data)
        _shut(source, sink)


def _shut(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
