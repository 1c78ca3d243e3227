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
from pathlib import Path
from typing import Any

from deploy.compose_config import config_of
from system.errors import RunError

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
    client = _client(options.address)
    job = client.submit_job(entrypoint=entrypoint(options, folder))
    sys.stdout.write(f"job {job}, run {config.run} in {folder} on the head of the cluster\n")
    sys.stdout.flush()
    try:
        asyncio.run(_stream(client, job))
    except KeyboardInterrupt:
        sys.stdout.write(
            f"the job goes on; stop it on the head: cd {folder} && dreamfleet stop --run "
            f"{config.run}\n"
        )
        return
    outcome = str(client.get_job_status(job))
    if outcome != "SUCCEEDED":
        raise RunError(f"job {job} {outcome.lower()}; its log is above")


def entrypoint(options: argparse.Namespace, folder: str) -> str:
    """The shell line the job runs."""
    words = ["dreamfleet", "train"]
    for name in ("env", "preset", "size", "run", "frames", "actors", "copies", "seed", "runner",
                 "redis", "redis_data", "secrets", "action_repeat", "replay_ratio"):  # fmt: skip
        words += _option(name.replace("_", "-"), getattr(options, name))
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


async def _stream(client: Any, job: str) -> None:  # noqa: ANN401
    async for text in client.tail_job_logs(job):
        sys.stdout.write(text)
        sys.stdout.flush()
