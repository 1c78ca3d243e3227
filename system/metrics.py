"""Every metric that Prometheus may see, once: its name, its labels, and which number it shows.

::

    actors, learner, evaluator  -> ProcessMetrics.values["actor/agent_steps"]      what they measure
    CATALOGUE                   -> dreamfleet_agent_steps_total{run, role, slot}   what it is called

Names are `dreamfleet_<noun>_<unit>[_total]`, units are seconds, bytes and ratios. A number that no
metric shows is not exported, so nothing that others write can add a name or a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from system.codec import REASONS

ROLES = ("actor", "learner", "evaluator", "supervisor")
STARTED = "started_s"
"""`<role>/started_s`: when the life began whose counts these are, Unix time [s]. It tells lives
apart: counts of the next one begin anew."""

Scope = Literal["process", "run", "exporter"]
SCOPE_LABELS: dict[Scope, list[str]] = {
    "process": ["run", "role", "slot"],
    "run": ["run"],
    "exporter": [],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One number of a snapshot."""

    key: str
    role: str
    """Whose snapshot."""
    labels: dict[str, str] = field(default_factory=dict)
    """What tells it apart from the metric's other sources."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "info"]
    help: str
    scope: Scope
    labels: list[str] = field(default_factory=list)
    """After those of the scope."""
    sources: list[Source] = field(default_factory=list)
    """Empty: the exporter knows it by itself."""
    resumes: bool = False
    """A counter that a restarted process goes on with where its checkpoint was."""

    @property
    def label_names(self) -> list[str]:
        """Every label, in order."""
        return SCOPE_LABELS[self.scope] + self.labels


EVENT_KINDS = (
    "actor_claimed", "actor_died", "actor_fenced", "actor_killed", "actor_pending",
    "actor_restarted", "adopted", "checkpoint_damaged", "chunk_rejected", "chunks_damaged",
    "chunks_thinned", "disk_full", "disk_has_room", "environment_died", "environment_hang",
    "environment_other", "environment_outside_space", "environment_raised", "epoch_damaged",
    "evaluator_died", "evaluator_killed", "evaluator_pending", "evaluator_restarted", "gap",
    "learner_died", "learner_killed", "learner_pending", "learner_restarted", "not_finite",
    "not_promoted", "not_published", "policy_awaited", "policy_corrupt", "policy_refused",
    "promoted", "redis_died", "redis_down", "redis_restarted", "rolled_back", "safe_restored",
    "segment_damaged", "segment_torn", "spool_full", "spool_has_room", "steps_lost",
)  # fmt: skip
"""Counted by name; every other kind is `other`."""


def _one(key: str) -> list[Source]:
    """The role is in the key; what is of the replay, the losses and the dream is the learner's."""
    head = key.partition("/")[0]
    role = {"actor": "actor", "eval": "evaluator"}.get(head, "learner")
    return [Source(key=key, role=role)]


def _each(label: str, stem: str, words: Sequence[str]) -> list[Source]:
    """`stem` + word for every word, told apart by `label`."""
    role = _one(stem)[0].role
    return [Source(key=stem + word, role=role, labels={label: word}) for word in words]


def _of_process(
    kind: Literal["counter", "gauge"], name: str, text: str, sources: list[Source]
) -> Metric:
    return _metric(kind, name, text, sources, "process")


def _of_run(
    kind: Literal["counter", "gauge"], name: str, text: str, sources: list[Source],
    *, resumes: bool = False,
) -> Metric:  # fmt: skip
    return _metric(kind, name, text, sources, "run", resumes=resumes)


def _metric(
    kind: Literal["counter", "gauge"], name: str, text: str, sources: list[Source], scope: Scope,
    *, resumes: bool = False,
) -> Metric:  # fmt: skip
    labels = sorted({label for source in sources for label in source.labels})
    return Metric(
        name=f"dreamfleet_{name}", kind=kind, help=text, scope=scope, labels=labels,
        sources=sources, resumes=resumes,
    )  # fmt: skip


ACTING = [
    _of_process("counter", "agent_steps_total", "Actions taken.", _one("actor/agent_steps")),
    _of_process("counter", "frames_total", "Simulator steps: agent steps x action repeat.",
                _one("actor/frames")),
    _of_process("counter", "episodes_total", "Episodes that ended.",
                [Source(key="actor/episodes", role="actor", labels={"outcome": "complete"}),
                 Source(key="actor/episodes_aborted", role="actor",
                        labels={"outcome": "aborted"})]),
    _of_process("gauge", "acting_return_mean", "Mean return of the last ten complete episodes.",
                _one("actor/return_mean")),
    _of_process("counter", "environment_faults_total",
                "Environment copies rebuilt; hang: a step missed its deadline.",
                _each("kind", "actor/faults_",
                      ("raised", "hang", "died", "outside_space", "other"))),
    _of_process("gauge", "time_share_ratio", "Share of the time since the last heartbeat.",
                _each("activity", "actor/share_",
                      ("starting", "env", "policy", "write", "wait", "other"))),
    _of_process("gauge", "policy_version", "Number of the broadcast that acts, is newest, or was "
                "measured last.", [*_one("actor/policy_version"), *_one("learner/policy_version"),
                                   *_one("eval/policy_version")]),
    _of_process("gauge", "policy_age_seconds", "Since the acting policy was published.",
                _one("actor/policy_age_s")),
    _of_process("counter", "policies_total", "Broadcasts that arrived.",
                _each("outcome", "actor/policies_", ("adopted", "refused"))),
    _of_process("counter", "policy_polls_failed_total", "Looks for a policy without an answer.",
                _one("actor/policy_polls_failed")),
]  # fmt: skip

SENDING = [
    _of_process("counter", "chunks_received_total", "Chunks that the log acknowledged.",
                _one("actor/chunks_received")),
    _of_process("counter", "chunks_reappended_total", "Chunks sent again: the log had lost them.",
                _one("actor/chunks_reappended")),
    _of_process("counter", "chunks_given_up_total", "Chunks that will never be sent.",
                _each("reason", "actor/chunks_", ("thinned", "damaged"))),
    _of_process("gauge", "chunks_pending", "Chunks sealed and not yet received.",
                _one("actor/chunks_pending")),
    _of_process("counter", "sent_bytes_total", "Payload of all appends that were answered.",
                _one("actor/bytes_sent")),
    _of_process("gauge", "retained_bytes", "Received, and kept until durable.",
                _one("actor/bytes_retained")),
    _of_process("gauge", "spool_fill_ratio", "How full the spool is.", _one("actor/spool_fill")),
]  # fmt: skip

LEARNING = [
    _of_run("counter", "updates_total", "Updates; those repeated after a crash count once.",
            _one("learner/updates"), resumes=True),
    _of_run("counter", "inserted_frames_total", "Simulator steps behind the Steps inserted.",
            _one("learner/frames"), resumes=True),
    _of_run("counter", "training_seconds_total", "Time with a living learner.",
            _one("learner/elapsed_s"), resumes=True),
    _of_run("gauge", "replay_ratio", "Replayed Steps per inserted Step, since training began.",
            _one("replay/ratio")),
    _of_run("gauge", "replay_ratio_target", "What the learner keeps it at.",
            _one("replay/ratio_target")),
    _of_run("gauge", "replay_steps", "Steps in the arena.", _one("replay/steps")),
    _of_run("gauge", "replay_fill_ratio", "How full the arena is.", _one("replay/fill")),
    _of_run("gauge", "segment_bytes", "Segments on the learner's disk.", _one("replay/bytes")),
    _of_run("counter", "chunks_inserted_total", "Chunks that became Steps of the arena.",
            _one("replay/chunks_inserted")),
    _of_run("counter", "chunks_rejected_total", "Chunks that were not valid.",
            _each("reason", "replay/chunks_rejected_", REASONS)),
    _of_run("counter", "chunk_gaps_total", "Chunks that did not follow the one before.",
            _one("replay/chunks_gaps")),
    _of_run("gauge", "loss", "Of the last update reported, in nats.",
            _each("loss", "loss/", ("reconstruction", "reward", "continue", "dynamics",
                                    "representation", "policy", "value", "replay_value"))),
    _of_run("gauge", "gradient_norm", "Before clipping.", _one("gradient_norm")),
    _of_run("gauge", "dream_return_mean", "Imagined, discounted.", _one("dream/return")),
    _of_run("gauge", "dream_reward_mean", "Imagined, per agent step.", _one("dream/reward")),
    _of_run("gauge", "policy_entropy", "Per action, in nats.", _one("policy/entropy")),
]  # fmt: skip

EVALUATING = [
    _of_run("gauge", "evaluation_return_mean", "Undiscounted, of whole deterministic episodes.",
            _one("eval/return_mean")),
    _of_run("gauge", "evaluation_return_std", "Over its episodes.", _one("eval/return_std")),
    _of_run("gauge", "evaluation_episodes", "Behind the mean.", _one("eval/episodes")),
    _of_run("gauge", "evaluation_length_mean", "In agent steps.", _one("eval/length_mean")),
]  # fmt: skip


def _known(
    kind: Literal["counter", "gauge", "info"], name: str, text: str, scope: Scope, *labels: str
) -> Metric:
    """What the exporter knows without a snapshot."""
    return Metric(name=f"dreamfleet_{name}", kind=kind, help=text, scope=scope, labels=[*labels])


FLEET = [
    _known("gauge", "up", "Whether it renews its lease; left out 5 min after it stopped.",
           "process"),
    _known("gauge", "last_seen_timestamp_seconds", "Its last sign of life.", "process"),
    _known("counter", "starts_total", "Lives that told numbers.", "process"),
    _known("info", "process_info", "Where it runs, and how often its place was taken.", "process",
           "host", "incarnation"),
    _known("info", "run_info", "What is trained.", "run", "name", "env"),
    _known("gauge", "desired_actors", "How many there should be.", "run"),
    _known("counter", "events_total", "What happened.", "run", "kind"),
    _known("gauge", "left_out", "Processes beyond those exported.", "run"),
]  # fmt: skip

EXPORTER = [
    _known("gauge", "redis_up", "Whether it answered the last read.", "exporter", "server"),
    _known("gauge", "redis_memory_bytes", "As Redis accounts for it.", "exporter", "server"),
    _known("gauge", "redis_memory_max_bytes", "Where it refuses writes; 0: nowhere.", "exporter",
           "server"),
    _known("gauge", "read_timestamp_seconds", "When Redis was last read whole.", "exporter"),
    _known("counter", "reads_total", "Reads of Redis.", "exporter", "outcome"),
    _known("counter", "saves_total", "Totals written to Redis.", "exporter", "outcome"),
]  # fmt: skip

CATALOGUE = [*ACTING, *SENDING, *LEARNING, *EVALUATING, *FLEET, *EXPORTER]
METRICS = {metric.name: metric for metric in CATALOGUE}

COUNTED = {
    source.key: metric
    for metric in CATALOGUE
    if metric.kind == "counter"
    for source in metric.sources
}
"""Snapshot key -> the counter that shows it."""
MEASURED = {
    source.key: metric
    for metric in CATALOGUE
    if metric.kind == "gauge"
    for source in metric.sources
}
"""Snapshot key -> the gauge that shows it."""
LEFT_OUT = (
    "actor/faults", "learner/updates_per_s",
    *(f"{role}/{STARTED}" for role in ("actor", "learner", "evaluator")),
)  # fmt: skip
"""Numbers of snapshots that others give: sums, rates, and what tells lives apart."""
