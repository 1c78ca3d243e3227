"""Every metric that Prometheus may see, once: its name, its labels, and which number it shows.

::

    actors, learner, evaluator  -> ProcessMetrics.values["actor/agent_steps"]      what they measure
    CATALOGUE                   -> dreamfleet_agent_steps_total{run, role, slot}   what it is called

Names are `dreamfleet_<noun>_<unit>[_total]`, units are seconds, bytes and ratios. A number that no
metric shows is not exported, so nothing that others write can add a name or a label.
"""

from __future__ import annotations

from system.codec import REASONS
from system.histogram import CHUNK_BYTES, ENV_STEP, POLICY_AGE, UPDATE
from system.metric import Source, each, histogram, known, of_process, of_run, one

ROLES = ("actor", "learner", "evaluator", "supervisor")
STARTED = "started_s"
"""`<role>/started_s`: when the life began whose counts these are, Unix time [s]. It tells lives
apart: counts of the next one begin anew."""

ACTOR_ACTIVITIES = ("starting", "env", "policy", "write", "wait", "other")
LEARNER_ACTIVITIES = (
    "starting", "insert", "sample", "world_model", "dream", "behavior", "backward", "optimizer",
    "publish", "checkpoint", "report", "wait", "other",
)  # fmt: skip
"""`wait`: an actor waits for room or credit, a learner for Steps."""

EVENT_KINDS = (
    "actor_claimed", "actor_died", "actor_drained", "actor_fenced", "actor_killed",
    "actor_pending", "actor_restarted", "adopted", "checkpoint_damaged", "chunk_rejected",
    "chunks_damaged", "chunks_thinned", "disk_full", "disk_has_room", "dream_failed",
    "environment_died",
    "environment_hang", "environment_other", "environment_outside_space", "environment_raised",
    "epoch_damaged", "evaluator_died", "evaluator_killed", "evaluator_pending",
    "evaluator_restarted", "gap", "learner_died", "learner_killed", "learner_pending",
    "learner_restarted", "not_finite", "not_graphed",
    "not_promoted", "not_published", "policy_awaited", "policy_corrupt", "policy_refused",
    "promoted", "redis_died", "redis_down", "redis_restarted", "rolled_back", "safe_restored",
    "segment_damaged", "segment_torn", "spool_full", "spool_has_room", "steps_lost",
)  # fmt: skip
"""Counted by name; every other kind is `other`."""

ACTING = [
    of_process("counter", "agent_steps_total", "Actions taken.", one("actor/agent_steps")),
    of_process("counter", "frames_total", "Simulator steps: agent steps x action repeat.",
               one("actor/frames")),
    of_process("counter", "episodes_total", "Episodes that ended.",
               [Source(key="actor/episodes", role="actor", labels={"outcome": "complete"}),
                Source(key="actor/episodes_aborted", role="actor",
                       labels={"outcome": "aborted"})]),
    of_process("gauge", "acting_return_mean", "Mean return of the last ten complete episodes.",
               one("actor/return_mean")),
    of_process("counter", "environment_faults_total",
               "Environment copies rebuilt; hang: a step missed its deadline.",
               each("kind", "actor/faults_",
                     ("raised", "hang", "died", "outside_space", "other"))),
    of_process("gauge", "time_share_ratio", "Share of the time since the last heartbeat.",
               each("activity", "actor/share_", ACTOR_ACTIVITIES)
               + each("activity", "learner/share_", LEARNER_ACTIVITIES)),
    histogram("env_step_seconds", "One step of all copies of an actor.", ENV_STEP),
    histogram("acting_policy_age_seconds", "Age of the acting policy, at each heartbeat.",
              POLICY_AGE),
    of_process("gauge", "policy_version", "Number of the broadcast that acts, is newest, or was "
               "measured last.", [*one("actor/policy_version"), *one("learner/policy_version"),
                                  *one("eval/policy_version")]),
    of_process("gauge", "policy_age_seconds", "Since the acting policy was published.",
               one("actor/policy_age_s")),
    of_process("counter", "policies_total", "Broadcasts that arrived.",
               each("outcome", "actor/policies_", ("adopted", "refused"))),
    of_process("counter", "policy_polls_failed_total", "Looks for a policy without an answer.",
               one("actor/policy_polls_failed")),
]  # fmt: skip

SENDING = [
    of_process("counter", "chunks_received_total", "Chunks that the log acknowledged.",
               one("actor/chunks_received")),
    histogram("chunk_bytes", "Columns of a sealed Chunk.", CHUNK_BYTES),
    of_process("counter", "chunks_reappended_total", "Chunks sent again: the log had lost them.",
               one("actor/chunks_reappended")),
    of_process("counter", "chunks_given_up_total", "Chunks that will never be sent.",
               each("reason", "actor/chunks_", ("thinned", "damaged"))),
    of_process("gauge", "chunks_pending", "Chunks sealed and not yet received.",
               one("actor/chunks_pending")),
    of_process("counter", "sent_bytes_total", "Payload of all appends that were answered.",
               one("actor/bytes_sent")),
    of_process("gauge", "retained_bytes", "Received, and kept until durable.",
               one("actor/bytes_retained")),
    of_process("gauge", "spool_fill_ratio", "How full the spool is.", one("actor/spool_fill")),
]  # fmt: skip

LEARNING = [
    of_run("counter", "updates_total", "Updates; those repeated after a crash count once.",
           one("learner/updates"), resumes=True),
    histogram("update_seconds", "One update, with the broadcast, dream and checkpoint then due.",
              UPDATE),
    of_run("counter", "inserted_frames_total", "Simulator steps behind the Steps inserted.",
           one("learner/frames"), resumes=True),
    of_run("counter", "inserted_agent_steps_total", "Real Steps inserted.", one("real/steps"),
           resumes=True),
    of_run("counter", "resets_total", "Episodes begun among the Steps inserted.",
           one("real/resets"), resumes=True),
    of_run("counter", "imagined_steps_total", "Steps dreamed to improve the policy.",
           one("dream/steps"), resumes=True),
    of_run("gauge", "imagined_per_real_ratio", "Steps dreamed for each Step inserted.",
           one("dream/per_real")),
    of_run("counter", "training_seconds_total", "Time with a living learner.",
           one("learner/elapsed_s"), resumes=True),
    of_run("gauge", "replay_ratio", "Replayed Steps per inserted Step, since training began.",
           one("replay/ratio")),
    of_run("gauge", "replay_ratio_target", "What the learner keeps it at.",
           one("replay/ratio_target")),
    of_run("gauge", "replay_steps", "Steps in the arena.", one("replay/steps")),
    of_run("gauge", "replay_fill_ratio", "How full the arena is.", one("replay/fill")),
    of_run("gauge", "segment_bytes", "Segments on the learner's disk.", one("replay/bytes")),
    of_run("gauge", "log_bytes", "Chunks in Redis, as it accounts for them.",
           one("replay/log_bytes")),
    of_run("counter", "chunks_inserted_total", "Chunks that became Steps of the arena.",
           one("replay/chunks_inserted")),
    of_run("counter", "chunks_rejected_total", "Chunks that were not valid.",
           each("reason", "replay/chunks_rejected_", REASONS)),
    of_run("counter", "chunk_gaps_total", "Chunks that did not follow the one before.",
           one("replay/chunks_gaps")),
    of_run("gauge", "loss", "Of the last update reported, in nats.",
           each("loss", "loss/", ("reconstruction", "reward", "continue", "dynamics",
                                   "representation", "policy", "value", "replay_value"))),
    of_run("gauge", "gradient_norm", "Before clipping.", one("gradient_norm")),
    of_run("gauge", "dream_return_mean", "Imagined, discounted.", one("dream/return")),
    of_run("gauge", "dream_reward_mean", "Imagined, per agent step.", one("dream/reward")),
    of_run("gauge", "policy_entropy", "Per action, in nats.", one("policy/entropy")),
]  # fmt: skip

DREAMING = [
    of_run("gauge", "dream_error_ratio", "Of dreams under recorded actions, so many agent steps "
           "on; 1: as bad as predicting the mean.",
           each("horizon", "dream/error_", ("1", "5", "15", "45"))),
    of_run("gauge", "dream_parting_steps", "Agent steps until a dream has left reality.",
           one("dream/parting_steps")),
    of_run("gauge", "dream_gap_ratio", "Distance of dreamed and recorded returns from the same "
           "starts; above 0.5 the dream is no guide.", one("dream/gap_ratio")),
    of_run("gauge", "dream_window_return_mean", "Discounted, of the steps dreamed: recorded, "
           "dreamed with the recorded actions, dreamed with the policy's.",
           each("of", "dream/window_", ("real", "dreamed", "policy"))),
    of_run("gauge", "dream_report_seconds", "What the last look at the dreams took.",
           one("dream/report_s")),
]  # fmt: skip

EVALUATING = [
    of_run("gauge", "evaluation_return_mean", "Undiscounted, of whole deterministic episodes.",
           one("eval/return_mean")),
    of_run("gauge", "evaluation_return_std", "Over its episodes.", one("eval/return_std")),
    of_run("gauge", "evaluation_episodes", "Behind the mean.", one("eval/episodes")),
    of_run("gauge", "evaluation_length_mean", "In agent steps.", one("eval/length_mean")),
]  # fmt: skip

FLEET = [
    known("gauge", "up", "Whether it renews its lease; left out 5 min after it stopped.",
          "process"),
    known("gauge", "last_seen_timestamp_seconds", "Its last sign of life.", "process"),
    known("counter", "starts_total", "Lives that told numbers.", "process"),
    known("info", "process_info", "Where it runs, and how often its place was taken.", "process",
          "host", "incarnation"),
    known("info", "run_info", "What is trained.", "run", "name", "env"),
    known("gauge", "desired_actors", "How many there should be.", "run"),
    known("counter", "events_total", "What happened.", "run", "kind"),
    known("gauge", "left_out", "Processes beyond those exported.", "run"),
]  # fmt: skip

EXPORTER = [
    known("gauge", "redis_up", "Whether it answered the last read.", "exporter", "server"),
    known("gauge", "redis_memory_bytes", "As Redis accounts for it.", "exporter", "server"),
    known("gauge", "redis_memory_max_bytes", "Where it refuses writes; 0: nowhere.", "exporter",
          "server"),
    known("gauge", "read_timestamp_seconds", "When Redis was last read whole.", "exporter"),
    known("counter", "reads_total", "Reads of Redis.", "exporter", "outcome"),
    known("counter", "saves_total", "Totals written to Redis.", "exporter", "outcome"),
]  # fmt: skip

CATALOGUE = [*ACTING, *SENDING, *LEARNING, *DREAMING, *EVALUATING, *FLEET, *EXPORTER]
METRICS = {metric.name: metric for metric in CATALOGUE}

COUNTED = {
    source.key: metric
    for metric in CATALOGUE
    if metric.kind in ("counter", "histogram")
    for source in metric.sources
}
"""Snapshot key -> the counter or histogram that shows it."""
MEASURED = {
    source.key: metric
    for metric in CATALOGUE
    if metric.kind == "gauge"
    for source in metric.sources
}
"""Snapshot key -> the gauge that shows it."""
LEFT_OUT = (
    "actor/faults", "learner/updates_per_s",
    *(f"{role}/{STARTED}" for role in ROLES),
)  # fmt: skip
"""Numbers of snapshots that others give: sums, rates, and what tells lives apart."""
