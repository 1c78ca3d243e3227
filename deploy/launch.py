"""`dreamfleet launch`: submits `dreamfleet train` to a Ray cluster as a job and streams its log.

::

    here: JobSubmissionClient --> head: `cd FOLDER && dreamfleet train ...` joins the cluster

dreamfleet must be installed on the cluster's machines. The run folder lies on the head; the job
ends with the cluster, the run does not: `dreamfleet resume` there goes on from the folder.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from deploy.compose_config import config_of
from deploy.target import open_registry
from system.errors import RunError

READY_TIMEOUT_S = 60.0
LOOK_S = 2.0
END_STATES = ("SUCCEEDED", "FAILED", "STOPPED")


def launch(options: argparse.Namespace) -> None:
    """Checks the config here, submits, prints the job id, streams the log until the job ends.

    Raises:
      ConfigError: as `train`.
      RunError: the cluster cannot be reached, or the job did not succeed.
    """
    config = config_of(options, Path.cwd())
    options.run = config.run
    folder = options.folder or str(Path.cwd())
    _submit(options.address, entrypoint(options, folder), run=config.run, folder=folder)


def resume_elsewhere(options: argparse.Namespace) -> None:
    """Submits `dreamfleet resume` to where the run's folder is, by what its Redis knows.

    Raises:
      RunError: no such run, or no `--address` to submit to.
    """
    entry = open_registry(options, "learner").find(options.run)
    if options.address is None:
        raise RunError(
            f"the folder of run {entry.name!r} is {entry.folder} on {entry.host}: resume it there, "
            "copy it to ./runs here, or, if that is the head of a Ray cluster, add --address URL"
        )
    words = ["dreamfleet", "resume", "--run", entry.name]
    words += _option("frames", options.frames) + _option("actors", options.actors)
    folder = str(Path(entry.folder).parents[1])
    line = f"cd {shlex.quote(folder)} && exec {shlex.join(words)}"
    _submit(options.address, line, run=entry.name, folder=folder)


def _submit(address: str, line: str, *, run: str, folder: str) -> None:
    client = _client(address)
    job = _submitted(client, line)
    sys.stdout.write(f"job {job}, run {run} in {folder} on the head of the cluster\n")
    sys.stdout.flush()
    try:
        asyncio.run(_stream(client, job))
    except KeyboardInterrupt:
        sys.stdout.write(
            f"the job goes on; stop it on the head: cd {folder} && dreamfleet stop --run {run}; or "
            f"from anywhere: dreamfleet stop --run {run} --redis URL\n"
        )
        return
    except (RuntimeError, OSError) as error:
        sys.stdout.write(f"the log broke off ({error}); waiting for the job to end\n")
    while (outcome := str(client.get_job_status(job))) not in END_STATES:
        time.sleep(LOOK_S)
    if outcome != "SUCCEEDED":
        raise RunError(f"job {job} {outcome.lower()}; its log is above")


def entrypoint(options: argparse.Namespace, folder: str) -> str:
    """The shell line the job runs."""
    words = ["dreamfleet", "train"]
    for name in ("env", "preset", "size", "run", "frames", "actors", "copies", "seed", "runner",
                 "redis", "redis_data", "secrets", "action_repeat", "replay_ratio", "pixels_size",
                 "pixels_quality"):  # fmt: skip
        words += _option(name.replace("_", "-"), getattr(options, name))
    if options.pixels:
        words.append("--pixels" if options.pixels == "only" else "--pixels-with-state")
    if options.no_dashboard:
        words.append("--no-dashboard")
    if options.env_arg:
        words += ["--env-arg", *options.env_arg]
    if options.settings:
        words += ["--set", *options.settings]
    place = shlex.quote(folder)
    return f"mkdir -p {place} && cd {place} && exec {shlex.join(words)}"


def _option(name: str, value: Any) -> list[str]:  # noqa: ANN401
    return [] if value is None else [f"--{name}", str(value)]


def _client(address: str) -> Any:  # noqa: ANN401
    if "://" not in address:
        raise RunError(
            f"--address {address!r} must be the dashboard's URL, such as http://head:8265"
        )
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise RunError(f"`launch` needs ray[default]: {error}") from error
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise RunError(
            f"the Ray cluster at {address} wants its token: copy it from the head (`ray "
            "get-auth-token`) into RAY_AUTH_TOKEN or ~/.ray/auth_token, and set RAY_AUTH_MODE=token"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(
            f"no Ray cluster answers at {address}: {error}; start one with `ray start --head` and "
            "give its dashboard's URL"
        ) from error


def _submitted(client: Any, line: str) -> str:  # noqa: ANN401
    """The job's id. A head that has just started takes no jobs yet."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            return str(client.submit_job(entrypoint=line))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline_s:
                raise RunError(
                    f"the Ray cluster does not take the job: {error} (does another Ray on its head "
                    "hold port 52365? ray start --dashboard-agent-listen-port)"
                ) from error
        time.sleep(1.0)


async def _stream(client: Any, job: str) -> None:  # noqa: ANN401
    async for text in client.tail_job_logs(job):
        sys.stdout.write(text)
        sys.stdout.flush()
