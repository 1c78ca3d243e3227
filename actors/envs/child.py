"""The process of one isolated copy: `python -m actors.envs.child SOCKET STACKS PARENT`.

SOCKET and STACKS are inherited descriptors, PARENT is the process that started this one. Before
anything heavy is imported the process arranges three things:

- it dies with its parent, even when stopped or inside C code;
- SIGUSR1 writes the stack of every thread to STACKS, even while C code holds the interpreter;
- so does a fatal signal (a segmentation fault), as its last act.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answers the parent until it hangs up."""
    answers, stacks, parent = (int(argument) for argument in sys.argv[1:4])
    faulthandler.enable(file=stacks, all_threads=True)
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    # Whoever started us may have had it blocked, and that is inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    _die_with(parent)
    # Only now, so that an import that hangs leaves its stack too.
    from actors.envs.serve import serve

    with socket.socket(fileno=answers) as parent_socket:
        serve(parent_socket)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the actor is gone")


if __name__ == "__main__":
    main()
