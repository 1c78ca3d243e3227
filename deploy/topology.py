"""The fleet on Ray: each process is a detached Ray actor; they meet in Redis; Ray restarts none.

::

    supervisor (detached too, the only one that Ray restarts)      start / drain / kill
       |-- LearnerProcess       on the supervisor's machine (it writes the run folder)
       |-- EvaluatorProcess     there too
       `-- ActorProcess 0 .. N-1      anywhere, if Redis can be reached from there

A process is named `role:slot:birth` in a namespace of its run: so a new supervisor finds it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.config import FleetConfig
from deploy.fleet import Order, Outcome
from deploy.reconcile import LEARNER, Member
from deploy.run_folder import RunFolder
from system.clock import Every
from system.errors import ConfigError

if TYPE_CHECKING:
    from deploy.processes import Process

SUPERVISOR = "supervisor"
CALLS_AT_ONCE = 8
"""One runs, one drains, and a supervisor that took over asks how it ends."""
NODE_LABEL = "ray.io/node-id"
"""Ray gives it to every machine."""
REASON_S = 1.0
"""How long a reason why a process is pending is kept: each costs Ray two questions [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Running:
    """One process as Ray knows it."""

    handle: Any
    placed: Any
    """Future: the id of the machine it is on."""
    end: Any
    """Future: its Outcome."""


class RayFleet:
    """Implements `deploy.fleet.Fleet` within a Ray session."""

    def __init__(self, order: Order, *, bound_to_here: bool) -> None:
        """`bound_to_here`: actors stay on this machine, since only from here Redis is reached."""
        import ray

        self._ray = ray
        self._order = order
        self._config: FleetConfig = order.record.config.fleet
        self._bound = bound_to_here
        self._running: dict[Member, _Running] = {}
        self._silent_on: dict[Member, str] = {}
        self._reasons: dict[Member, str] = {}
        self._reasons_due = Every(REASON_S)
        self._asked: tuple[Member, ...] = ()

    def adopt(self) -> Sequence[Member]:
        """Takes over what an earlier supervisor started; of two for one place the younger."""
        for name in sorted(self._ray.util.list_named_actors(), key=_birth):
            role, slot, _ = _parsed(name)
            if role == SUPERVISOR:
                continue
            member = Member(role, slot)
            with contextlib.suppress(ValueError):  # it ended meanwhile
                handle = self._ray.get_actor(name)
                if member in self._running:
                    self._end(self._running[member].handle)
                self._note(member, handle)
        return list(self._running)

    def start(self, member: Member) -> None:
        """Starts a process; returns at once."""
        kind, arguments = _process_class(member)
        name = f"{member.role}:{member.slot}:{time.time_ns()}"
        options = {**self._needs(member), **self._placement(member)}
        actor_class = self._ray.remote(kind).options(
            name=name,
            lifetime="detached",
            max_restarts=0,
            max_concurrency=CALLS_AT_ONCE,
            **options,
        )
        self._note(member, actor_class.remote(self._order, *arguments))

    def drain(self, member: Member, *, final: bool) -> None:
        """Asks a process to finish."""
        self._running[member].handle.drain.remote(final=final)

    def kill(self, member: Member) -> None:
        """Ends a process at once; one that is stopped, within some seconds."""
        running = self._running[member]
        if self._is_placed(running):
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._silent_on[member] = self._ray.get(running.placed)
        self._end(running.handle)

    def ended(self) -> dict[Member, Outcome]:
        """Processes that ended since the last call."""
        futures = {running.end: member for member, running in self._running.items()}
        if not futures:
            return {}
        ready, _ = self._ray.wait(list(futures), num_returns=len(futures), timeout=0)
        return {futures[end]: self._outcome(futures[end]) for end in ready}

    def placed(self, member: Member) -> bool:
        """Whether Ray has found room for it and built it."""
        running = self._running.get(member)
        return running is not None and self._is_placed(running)

    def why_pending(self, member: Member) -> str:
        """Names what is missing, or says that it is starting."""
        if self._reasons_due(time.monotonic()):
            self._reasons.clear()
        if member not in self._reasons:
            self._reasons[member] = self._why_pending(member)
        return self._reasons[member]

    def ask_for(self, members: Sequence[Member]) -> None:
        """Asks the autoscaler for the whole fleet: it wants totals, and does not forget them."""
        if tuple(members) == self._asked:
            return
        from ray.autoscaler.sdk import request_resources

        self._asked = tuple(members)
        bundles = []
        for member in members:
            needs = self._needs(member)
            bundle = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"]}
            bundles.append({name: amount for name, amount in bundle.items() if amount})
        request_resources(bundles=bundles)

    def close(self) -> None:
        """Ends every process that is left, and asks for nothing more."""
        for name in self._ray.util.list_named_actors():
            if _parsed(name)[0] != SUPERVISOR:
                with contextlib.suppress(ValueError):  # it ended meanwhile
                    self._end(self._ray.get_actor(name))
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.ask_for(())

    def _why_pending(self, member: Member) -> str:
        if self.placed(member):
            return "starting"
        needs = self._needs(member)
        free, total = self._ray.available_resources(), self._ray.cluster_resources()
        for name, need in (("CPU", needs["num_cpus"]), ("GPU", needs["num_gpus"])):
            there = free.get(name, 0.0)
            if need > there + 1e-9:
                return (
                    f"needs {need - there:g} more {name}; {there:g} of {total.get(name, 0.0):g} "
                    "are free; the autoscaler is asked, without one: scale down or add machines"
                )
        return "starting: Ray is placing it"

    def _is_placed(self, running: _Running) -> bool:
        return bool(self._ray.wait([running.placed], timeout=0)[0])

    def _note(self, member: Member, handle: Any) -> None:  # noqa: ANN401
        self._running[member] = _Running(
            handle=handle, placed=handle.__ray_call__.remote(_its_node), end=handle.run.remote()
        )

    def _outcome(self, member: Member) -> Outcome:
        running = self._running.pop(member)
        errors = self._ray.exceptions
        try:
            outcome = self._ray.get(running.end)
        except errors.ActorUnschedulableError as error:
            text = f"{member} must run on the supervisor's machine, which has no room for it; see "
            text += f"fleet.{member.role}_cpus and learner.device ({_first_line(error)})"
            return Outcome(kind="refused", text=text)
        except errors.RayTaskError as error:  # it could not even be built
            outcome = Outcome(kind="failed", text=f"{type(error.cause).__name__}: {error.cause}")
        except errors.RayError as error:
            outcome = Outcome(kind="died", text=_first_line(error))
        # Detached: it would stay when its work is over, or when its machine comes back.
        self._end(running.handle)
        assert isinstance(outcome, Outcome)
        return outcome

    def _end(self, handle: Any) -> None:  # noqa: ANN401
        self._ray.kill(handle, no_restart=True)

    def _needs(self, member: Member) -> dict[str, float]:
        config = self._config
        cpus = {"actor": config.actor_cpus, "learner": config.learner_cpus}
        gpus = self._gpus() if member == LEARNER else 0
        return {"num_cpus": cpus.get(member.role, config.evaluator_cpus), "num_gpus": gpus}

    def _placement(self, member: Member) -> dict[str, Any]:
        if self._bound or member.role != "actor":
            return {"scheduling_strategy": on_this_node(self._ray)}
        # Ray believes in a machine for a minute after the last answer, and would place it there.
        if silent_on := self._silent_on.get(member):
            return {"scheduling_strategy": _rather_not_on(silent_on)}
        return {}

    def _gpus(self) -> int:
        """Of this machine: the learner runs here."""
        on_cpu = self._order.record.config.learner.device == "cpu"
        here = self._ray.get_runtime_context().get_node_id()
        there = [node["Resources"] for node in self._ray.nodes() if node["NodeID"] == here]
        return int(not on_cpu and any(one.get("GPU", 0) >= 1 for one in there))


def check_cluster(folder: RunFolder, redis: str) -> None:
    """Refuses an embedded Redis where actors on other machines could not reach it.

    Raises:
      ConfigError: the cluster has several machines and Redis listens on a unix socket.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    if len(alive) > 1 and redis.startswith("unix://"):
        raise ConfigError(
            f"the cluster has {len(alive)} machines and the embedded Redis of run "
            f"{folder.name!r} can be reached from one only; start a Redis server that all reach "
            "and name it with --redis URL"
        )


def on_this_node(ray: Any) -> Any:  # noqa: ANN401
    """Scheduling: only on the machine of this process."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node_id = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)


def _rather_not_on(node_id: str) -> Any:  # noqa: ANN401
    """Scheduling: another machine than this one, if any has room."""
    from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

    return NodeLabelSchedulingStrategy(hard={}, soft={NODE_LABEL: NotIn(node_id)})


def _its_node(_: Process) -> str:
    """Runs in a process: the id of its machine."""
    import ray

    node_id: str = ray.get_runtime_context().get_node_id()
    return node_id


def _process_class(member: Member) -> tuple[type[Process], tuple[int, ...]]:
    # Here and not above: a supervisor that takes over needs no torch.
    from deploy.processes import ActorProcess, EvaluatorProcess, LearnerProcess

    match member.role:
        case "actor":
            return ActorProcess, (member.slot,)
        case "learner":
            return LearnerProcess, ()
        case _:
            return EvaluatorProcess, ()


def _parsed(name: str) -> tuple[str, int, int]:
    """(role, slot, birth) of a process; a supervisor has only a role."""
    role, slot, birth = [*name.split(":"), "0", "0"][:3]
    return role, int(slot), int(birth)


def _birth(name: str) -> int:
    return _parsed(name)[2]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
