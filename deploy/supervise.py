"""The supervisor as a process of its own: a detached Ray actor, the only one that Ray restarts.

::

    terminal: SupervisorProcess.ready()      then only watches: Redis, metrics.jsonl, end.json
    here:     lock -> Supervisor.tick() again and again -> end.json -> unlock -> gone
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
from pathlib import Path
from typing import Any

from actors.stacks import StackWatch
from deploy.curve import points, save_png
from deploy.fleet import Order, SupervisorSeams
from deploy.head import Head
from deploy.place import who
from deploy.ray_session import cluster_of_environment, joined
from deploy.reconcile import Member, Rules
from deploy.redis_server import EmbeddedRedis
from deploy.registry import Registry, RunEntry
from deploy.run_folder import End, RunFolder
from deploy.supervisor import Supervisor
from deploy.topology import CALLS_AT_ONCE, SUPERVISOR, RayFleet, on_this_node
from system.clock import Every
from system.errors import RejectedChunk, RunError, Unavailable, UserError

TURN_S = 0.1
READY_TIMEOUT_S = 120.0
RESTART_PAUSE_S = 1.0
REGISTER_S = 10.0


class SupervisorProcess:
    """Supervises one run from the moment it is built; keeps the run's lock meanwhile.

    The calls that use it::

        handle = start_supervisor(order)
        handle.stop.remote()         # drain, save, exit; also while Redis is away
        handle.end_now.remote()      # kill everything
    """

    def __init__(self, order: Order, *, embedded: bool) -> None:
        self._order, self._embedded = order, embedded
        self._folder = RunFolder(Path(order.folder))
        self._stopping, self._ending = threading.Event(), threading.Event()
        self._ready = threading.Event()
        self._refused = ""
        threading.Thread(target=self._run, daemon=True).start()

    def ready(self) -> str:
        """Returns when it supervises, or why it cannot."""
        self._ready.wait(READY_TIMEOUT_S)
        return self._refused

    def stop(self) -> None:
        """Drain, save, exit."""
        self._stopping.set()

    def end_now(self) -> None:
        """Kill every process; what was learned since the last checkpoint is lost."""
        self._ending.set()

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(self._folder.locked())
                except RunError as error:  # somebody else drives the run
                    self._refuse(str(error))
                    return
                self._folder.write_end(self._until_end())
        except BaseException:  # noqa: BLE001 - whatever it was, the next one goes on
            with (self._folder.log_path / "supervisor.log").open("a") as log:
                traceback.print_exc(file=log)
            self._ending.wait(RESTART_PAUSE_S)
            os._exit(1)  # Ray starts it again; it adopts what runs
        self._leave()

    def _refuse(self, text: str) -> None:
        """Tells the terminal that asks; a later life has no terminal, and tries again."""
        import ray

        if ray.get_runtime_context().was_current_actor_reconstructed:
            raise RunError(text)
        self._refused = text
        self._ready.set()

    def _until_end(self) -> End:
        fleet = RayFleet(self._order, bound_to_here=self._embedded)
        try:
            return self._supervise(fleet)
        except (UserError, RejectedChunk) as error:  # wrong credentials, a wish nobody can read
            fleet.close()
            return End(how="failed", text=str(error))

    def _supervise(self, fleet: RayFleet) -> End:
        order, config = self._order, self._order.record.config
        place = order.place("learner")
        server = self._server()
        self._folder.write_control(
            "ray", order.redis.control, place.clock.wall(), redis_data=order.redis.data
        )
        self._ready.set()
        seams = SupervisorSeams(
            fleet=fleet, control=place.control, clock=place.clock, server=server
        )
        supervisor = Supervisor(
            seams,
            Rules.of(config.fleet),
            who=who(),
            actors=config.fleet.actors,
            stack_of=self._stack_of,
        )
        registry, entry = Registry(order.redis.control), self._entry()
        register_due = Every(REGISTER_S)
        while not (supervisor.ended or self._ending.is_set()):
            if self._stopping.is_set():
                supervisor.stop()
            supervisor.tick()
            if register_due(place.clock.now()):  # a wiped store has forgotten it
                with contextlib.suppress(Unavailable):
                    registry.put(entry)
            place.clock.sleep(TURN_S)
        fleet.close()
        how = "finished" if supervisor.finished else "stopped"
        end = End(how="failed" if supervisor.failure else how, text=supervisor.failure)
        supervisor.leave()
        with contextlib.suppress(Unavailable):  # the folder is told in any case
            registry.end(order.record.run_id, end.how, end.text)
        if server is not None:
            server.stop()
        curve = points(self._folder.evaluations())
        save_png(self._folder.curve_path, curve, f"{config.env.name} ({self._folder.name})")
        return end

    def _stack_of(self, member: Member) -> str:
        return StackWatch.read_and_clear(self._folder.log_path / f"{member.file_name}.stack")

    def _entry(self) -> RunEntry:
        return RunEntry.of(self._folder, redis_data=self._order.redis.data)

    def _server(self) -> EmbeddedRedis | None:
        if not self._embedded:
            return None
        most = self._order.record.config.fleet.redis_memory_bytes
        return EmbeddedRedis(self._folder.redis_path, max_memory_bytes=most)

    def _leave(self) -> None:
        """Ends this process for good: with the cluster if it was made for this run."""
        import ray

        if self._refused:
            return
        Head(self._folder).tell(signal.SIGTERM)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def refuse_supervised(ray: Any, folder: RunFolder) -> None:  # noqa: ANN401
    """Raises RunError if the run has a supervisor, were it one that Ray is just restarting."""
    with contextlib.suppress(ValueError):
        ray.get_actor(SUPERVISOR)
        raise RunError(f"run {folder.name!r} is in use; look with: dreamfleet status --run "
                       f"{folder.name}")  # fmt: skip


def start_supervisor(ray: Any, order: Order, *, embedded: bool) -> None:  # noqa: ANN401
    """Starts the supervisor of a run on this machine, within a Ray session; returns when it works.

    Raises:
      RunError: it cannot supervise this run.
    """
    handle = (
        ray.remote(SupervisorProcess)
        .options(
            name=SUPERVISOR,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=CALLS_AT_ONCE,
            scheduling_strategy=on_this_node(ray),
        )
        .remote(order, embedded=embedded)
    )
    try:
        refused = ray.get(handle.ready.remote(), timeout=READY_TIMEOUT_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        refused = f"the supervisor does not start: {error}"
    if refused:
        ray.kill(handle, no_restart=True)
        raise RunError(refused)


def tell_supervisor(folder: RunFolder, run_id: str, what: str) -> bool:
    """Calls `stop` or `end_now` by Ray, for when Redis is away; False if there is none to call."""
    cluster = Head(folder).cluster or cluster_of_environment()
    if cluster is None:
        return False
    with joined(cluster, run_id) as ray:
        try:
            handle = ray.get_actor(SUPERVISOR)
        except ValueError:
            return False
        ray.get(getattr(handle, what).remote(), timeout=READY_TIMEOUT_S)
    return True
