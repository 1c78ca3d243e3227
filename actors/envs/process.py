"""A child process that answers requests, each within a deadline, or is killed with its reason.

::

    ask -> socket -> child          answer <- in time
                                    late   -> SIGUSR1, its stack is read, kill -9  -> Hang
                                    gone   -> its last words are read              -> `died`
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from actors.envs.wire import Inbox, frame
from actors.envs.worker import SLICE_S, Hang
from system.codec import Message
from system.errors import EnvironmentFault, RejectedChunk

STACK_S = 1.0
"""The longest to wait for the stack of a copy that hangs [s]."""
QUIET_S = 0.05
"""A stack that has not grown for so long is whole [s]."""
STACK_BYTES = 1 << 16
REAP_S = 5.0
"""The longest to wait for a killed process to be gone [s]."""


class Died(EnvironmentFault):
    """The process of a copy is gone, or had to go."""

    def __init__(self, detail: str) -> None:
        super().__init__("died", detail)


class ChildProcess:
    """One process of `actors.envs.child`. One request is out at a time.

    It is killed when the thread that started it ends: start it where it is used.

    The loop that uses it::

        child.ask({"kind": "step", ...}, deadline_s=60)
        answer = child.answer()
    """

    def __init__(self, while_waiting: Callable[[], None]) -> None:
        self._while_waiting = while_waiting
        self._socket, theirs = socket.socketpair()
        self._stacks, their_stacks = os.pipe()
        os.set_blocking(self._stacks, False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "actors.envs.child",
                 str(theirs.fileno()), str(their_stacks), str(os.getpid())],
                pass_fds=(theirs.fileno(), their_stacks),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what an environment prints is no output of a command
                # A group of its own: Ctrl-C is for the actor, and what the environment starts
                # is killed with it.
                process_group=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        os.close(their_stacks)
        self._inbox = Inbox(self._socket)
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._id = 0
        self._deadline_s = self._due_s = 0.0
        self.pid = self._process.pid
        self.alive = True
        """Until it was killed, closed or found gone."""

    def ask(self, request: Message, *, deadline_s: float) -> None:
        """Sends a request; its answer is due `deadline_s` [s] from now.

        Raises:
          TypeError: a value that does not travel.
        """
        self._id += 1
        self._deadline_s, self._due_s = deadline_s, time.monotonic() + deadline_s
        data = frame({**request, "id": self._id})
        if not self.alive:
            return
        self._socket.settimeout(deadline_s)
        # A child that is gone or does not read is what `answer` finds.
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def answer(self) -> Message:
        """Waits for the answer to the last request.

        Raises:
          EnvironmentFault: kind `hang` with the stack, or `died` with how; the process is gone.
        """
        while self.alive:
            remaining_s = max(self._due_s - time.monotonic(), 0)
            if self._readable.poll(1000 * min(remaining_s, SLICE_S)):
                message = self._receive()
                if message is not None and message.get("id") == self._id:
                    return message
            elif time.monotonic() >= self._due_s:
                raise self._give_up()
            else:
                self._while_waiting()
        raise Died("it was gone already")

    def close(self) -> None:
        """Waits for the answer to the last request, and ends it in any case."""
        with contextlib.suppress(EnvironmentFault):
            self.answer()
        self.kill()

    def kill(self) -> None:
        """Ends it and whatever it started, at once; nothing of it stays."""
        if not self.alive:
            return
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_S)
        self._socket.close()
        os.close(self._stacks)

    def _receive(self) -> Message | None:
        try:
            return self._inbox.receive()
        except (EOFError, ConnectionError):
            raise self._gone() from None
        except RejectedChunk as error:
            self.kill()
            raise Died(f"it answered what cannot be read and was killed: {error}") from None

    def _give_up(self) -> Hang:
        """It is late: first its stack, then its end."""
        condition = self._condition()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        # A stopped process takes no signal before the one that kills it.
        words = self._last_words(0 if condition.startswith("T") else STACK_S)
        stack = words or f"(no stack: the process is {condition})"
        self.kill()
        return Hang(self._deadline_s, stack)

    def _gone(self) -> Died:
        # It hangs up before it is gone: wait, or its exit would be our kill.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STACK_S)
        words, code = self._last_words(0), self._process.poll()
        self.kill()
        if code is None:
            how = "hung up"
        else:
            how = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return Died(f"{how}; {words}" if words else how)

    def _last_words(self, within_s: float) -> str:
        """What faulthandler wrote; waits for it to begin, then until it is quiet."""
        words, wait_s = b"", within_s
        readable = select.poll()
        readable.register(self._stacks, select.POLLIN)
        while len(words) < STACK_BYTES and readable.poll(1000 * wait_s):
            more = os.read(self._stacks, STACK_BYTES)
            if not more:
                break
            words, wait_s = words + more, QUIET_S
        return words.decode(errors="replace").strip()

    def _condition(self) -> str:
        """The kernel's word for what the process does."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith("State:"):
                    return line.removeprefix("State:").strip()
        return "silent"
