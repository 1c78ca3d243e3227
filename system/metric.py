"""What a metric is, and short ways to spell one; the catalogue is `system/metrics.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from system.histogram import Buckets

Scope = Literal["process", "role", "run", "exporter"]
SCOPE_LABELS: dict[Scope, list[str]] = {
    "process": ["run", "role", "slot"],
    "role": ["run", "role"],
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
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    scope: Scope
    labels: list[str] = field(default_factory=list)
    """After those of the scope."""
    sources: list[Source] = field(default_factory=list)
    """Empty: the exporter knows it by itself."""
    resumes: bool = False
    """A counter that a restarted process goes on with where its checkpoint was."""
    buckets: Buckets | None = None
    """Of a histogram: its sources are one count a bucket, and the sum."""

    @property
    def label_names(self) -> list[str]:
        """Every label, in order."""
        return SCOPE_LABELS[self.scope] + self.labels

    @property
    def series(self) -> list[str]:
        """What Prometheus calls its time series."""
        if self.kind != "histogram":
            return [self.name]
        return [f"{self.name}_{part}" for part in ("bucket", "sum", "count")]


def one(key: str) -> list[Source]:
    """The role is in the key; what is of the replay, the losses and the dream is the learner's."""
    head = key.partition("/")[0]
    role = {"actor": "actor", "eval": "evaluator"}.get(head, "learner")
    return [Source(key=key, role=role)]


def each(label: str, stem: str, words: Sequence[str]) -> list[Source]:
    """`stem` + word for every word, told apart by `label`."""
    role = one(stem)[0].role
    return [Source(key=stem + word, role=role, labels={label: word}) for word in words]


def of_process(
    kind: Literal["counter", "gauge"], name: str, text: str, sources: list[Source]
) -> Metric:
    """Of every process."""
    return _metric(kind, name, text, sources, "process")


def of_run(
    kind: Literal["counter", "gauge"], name: str, text: str, sources: list[Source],
    *, resumes: bool = False,
) -> Metric:  # fmt: skip
    """Of a run."""
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


def histogram(name: str, text: str, buckets: Buckets) -> Metric:
    """By role alone: a bucket of every slot would be too many."""
    sources = [source for key in (*buckets.keys, buckets.sum_key) for source in one(key)]
    return Metric(
        name=f"dreamfleet_{name}", kind="histogram", help=text, scope="role", sources=sources,
        buckets=buckets,
    )  # fmt: skip


def known(
    kind: Literal["counter", "gauge", "info"], name: str, text: str, scope: Scope, *labels: str
) -> Metric:
    """What the exporter knows without a snapshot."""
    return Metric(name=f"dreamfleet_{name}", kind=kind, help=text, scope=scope, labels=[*labels])
