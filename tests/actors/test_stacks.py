"""A process that holds the interpreter for ever says where; one that comes back says nothing."""

import subprocess
import sys

from actors.stacks import KEPT_BYTES, StackWatch
from tests.waiting import wait_until

PROGRAM = """
import ctypes, sys, time
from pathlib import Path
from actors.stacks import StackWatch

watch = StackWatch(Path(sys.argv[1]), timeout_s=0.3)

def simulate(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))

for _ in range(4):
    watch.pet()
    simulate(0.1)
simulate(float(sys.argv[2]))
watch.pet()
print("back", Path(sys.argv[1]).stat().st_size, flush=True)
if sys.argv[3] == "close":
    watch.close()
    time.sleep(60)
time.sleep(60)
"""


def start(path, hang_s, end):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path, str(hang_s), end], stdout=subprocess.PIPE, text=True
    )


def wait_for_stack(path):
    wait_until(lambda: path.exists() and "<module>" in path.read_text(), "was written whole")


def test_a_hang_that_holds_the_interpreter_is_written(tmp_path):
    path = tmp_path / "actor-0.stack"
    with start(path, 60, "") as process:
        wait_for_stack(path)
        process.kill()
    stack = StackWatch.read_and_clear(path)
    assert "Timeout" in stack
    assert "in simulate" in stack
    assert not path.exists()
    assert StackWatch.read_and_clear(path) == ""


def test_a_hang_that_was_overcome_is_forgotten(tmp_path):
    path = tmp_path / "actor-0.stack"
    with start(path, 0.6, "") as process:
        assert process.stdout.readline() == "back 0\n"
        wait_for_stack(path)
        process.kill()
    assert StackWatch.read_and_clear(path).count("Timeout") == 1


def test_an_orderly_end_leaves_nothing(tmp_path):
    path = tmp_path / "actor-0.stack"
    with start(path, 0, "close") as process:
        assert process.stdout.readline() == "back 0\n"
        wait_until(lambda: not path.exists(), "was removed")
        process.kill()


def test_what_is_read_is_bounded(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\xff" * (KEPT_BYTES + 1))
    assert len(StackWatch.read_and_clear(path)) == KEPT_BYTES
