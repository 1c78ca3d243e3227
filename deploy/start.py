"""Puts a run in place: Redis, Ray, what is wished, the supervisor. Then nobody needs the terminal.

::

    with folder.starting():  page -> embedded Redis or --redis -> Ray of RAY_ADDRESS or deploy.head
                             -> desired fleet -> start_supervisor, which takes the lock
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from deploy.config import FleetConfig
from deploy.dashboard.beside import RunPage
from deploy.fleet import Order
from deploy.head import Head
from deploy.place import RedisUrls
from deploy.ray_session import Cluster, cluster_of_environment, joined
from deploy.redis_server import EmbeddedRedis
from deploy.run_folder import RunFolder, RunRecord
from deploy.secrets import role_urls
from deploy.supervise import refuse_supervised, start_supervisor
from deploy.topology import check_cluster
from system.control.protocol import Control
from system.errors import ConfigError
from system.redis_client import ping

PAGE_TIMEOUT_S = 10.0
"""Longest wait for the page; Ray takes longer to start [s]."""


def start_fleet(
    folder: RunFolder, record: RunRecord, *, actors: int | None, say: Callable[[str], None]
) -> None:
    """Returns when the run is supervised; from then on it needs no terminal.

    Args:
      folder: the run.
      record: what its `config.json` says.
      actors: desired actors from now on; None keeps what was wished last.
      say: told what takes long.

    Raises:
      RunError: the run is in use, or Redis or Ray do not start.
      ConfigError: Redis cannot be reached from all machines of the cluster.
    """
    fleet = record.config.fleet
    with (
        folder.starting(),
        _page(folder, fleet, say),
        _redis(folder, fleet, say) as urls,
        _cluster(folder, say) as cluster,
    ):
        order = _order(folder, record, urls)
        with joined(cluster, record.run_id) as ray:
            refuse_supervised(ray, folder)
            check_cluster(folder, urls.control)
            with contextlib.closing(order.place("learner").control) as control:
                _wish(control, record, actors)
            start_supervisor(ray, order, embedded=not fleet.redis)


@contextlib.contextmanager
def _page(folder: RunFolder, fleet: FleetConfig, say: Callable[[str], None]) -> Iterator[None]:
    """The run's page comes up meanwhile; without it the run starts too."""
    if not fleet.dashboard:
        yield
        return
    page = RunPage(folder)
    page.start()
    try:
        yield
    except BaseException:
        page.stop()
        raise
    url = page.wait_for_url(PAGE_TIMEOUT_S)
    say(f"page: {url}" if url else f"no page: see {folder.log_path / 'dashboard.log'}")


@contextlib.contextmanager
def _redis(
    folder: RunFolder, fleet: FleetConfig, say: Callable[[str], None]
) -> Iterator[RedisUrls]:
    """The servers of this run: those named, or one of its own, which stays unless a start fails."""
    if fleet.redis:
        urls = RedisUrls(control=fleet.redis, data=fleet.redis_data)
        yield urls
        return
    server = EmbeddedRedis(folder.redis_path, max_memory_bytes=fleet.redis_memory_bytes)
    was_there = server.alive()
    say("starting the embedded Redis ...")
    server.start()
    try:
        yield RedisUrls(control=server.url)
    except BaseException:
        if not was_there:
            server.stop()
        raise


@contextlib.contextmanager
def _cluster(folder: RunFolder, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster of RAY_ADDRESS, or one for this run, which stays unless a start fails."""
    named = cluster_of_environment()
    if named is not None:
        yield named
        return
    head = Head(folder)
    say("starting Ray ...")
    try:
        yield head.start()
    except BaseException:
        head.stop()
        raise


def _order(folder: RunFolder, record: RunRecord, urls: RedisUrls) -> Order:
    fleet = record.config.fleet
    learner = role_urls(urls, "learner", fleet.secrets)
    for url in {learner.control, learner.data}:
        ping(url)
    try:
        actor = role_urls(urls, "actor", fleet.secrets)
    except ConfigError:  # a learner among actors started by hand need not hold their password
        if fleet.actors:
            raise
        actor = urls
    return Order(record=record, folder=str(folder.path), redis=learner, actor_redis=actor)


def _wish(control: Control, record: RunRecord, actors: int | None) -> None:
    """The number wished last survives a stop; a first start takes the config's."""
    if actors is None and control.desired().generation == 0:
        actors = record.config.fleet.actors
    control.change_desired(actors=actors, stopping=False)
