"""From what was read to Prometheus' families: every metric of the catalogue, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from deploy.exporter.histograms import by_role
from deploy.exporter.merge import ProcessView, RunView
from deploy.exporter.reader import Reading
from deploy.run_entry import RunEntry
from system.clock import Clock
from system.metric import Metric
from system.metrics import CATALOGUE

STALE_S = 15.0
"""After so long without Redis nobody knows who is up: only totals are still shown [s]."""
LABEL_CHARS = 100
"""Of a text that others write, such as an environment's name."""

_KINDS = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric; for an info, 1."""

    labels: list[str]
    value: float


class FleetCollector(Collector):
    """Answers each scrape from the last reading.

    The loop that uses it::

        registry.register(FleetCollector(lambda: reader.reading, clock))
        generate_latest(registry)
    """

    def __init__(self, reading: Callable[[], Reading], clock: Clock) -> None:
        self._reading, self._clock = reading, clock

    def describe(self) -> Iterable[Family]:
        """Nothing: registering asks nobody."""
        return []

    def collect(self) -> Iterator[Family]:
        """Every metric of the catalogue with its samples."""
        reading = self._reading()
        now_s = self._clock.wall()
        known = reading.read_s is not None and abs(now_s - reading.read_s) <= STALE_S
        for metric in CATALOGUE:
            family = _KINDS[metric.kind](_stem(metric), metric.help, labels=metric.label_names)
            if isinstance(family, HistogramMetricFamily):
                _add_histograms(family, metric, reading)
            elif known or metric.kind != "gauge" or metric.scope == "exporter":
                for sample in samples(metric, reading):
                    _add(family, metric, sample)
            yield family


def samples(metric: Metric, reading: Reading) -> Iterator[Sample]:
    """The values of one metric."""
    if metric.scope == "exporter":
        yield from _EXPORTER[metric.name](reading)
        return
    for run_id, view in reading.runs.items():
        if metric.name in _RUN:
            of_run: Iterable[Sample] = _RUN[metric.name](view, reading.entries[run_id])
            yield from (Sample([run_id, *one.labels], one.value) for one in of_run)
            continue
        for process in view.processes:
            who = [process.place.role, str(process.place.slot)]
            labels = [run_id, *who] if metric.scope == "process" else [run_id]
            of_process = _PROCESS.get(metric.name, partial(_of_snapshot, metric))
            yield from (Sample(labels + one.labels, one.value) for one in of_process(process))


def _of_snapshot(metric: Metric, process: ProcessView) -> Iterator[Sample]:
    for source in metric.sources:
        if source.role != process.place.role:
            continue
        labels = [source.labels[label] for label in metric.labels]
        if metric.kind == "counter":
            # From 0 on, so that the first one is seen to be counted.
            yield Sample(labels, process.counts.get(source.key, 0))
        elif source.key in process.gauges:
            yield Sample(labels, process.gauges[source.key])


def _starts(process: ProcessView) -> Iterator[Sample]:
    if process.starts:
        yield Sample([], process.starts)


def _up(process: ProcessView) -> Iterator[Sample]:
    if process.last_seen_s is not None:
        yield Sample([], float(process.lease is not None))


def _last_seen(process: ProcessView) -> Iterator[Sample]:
    if process.last_seen_s is not None:
        yield Sample([], process.last_seen_s)


def _process_info(process: ProcessView) -> Iterator[Sample]:
    if process.lease is not None:
        host = process.lease.who.partition(":")[0][:LABEL_CHARS]
        yield Sample([host, str(process.lease.incarnation)], 1)


def _run_info(view: RunView, entry: RunEntry) -> Iterator[Sample]:
    environment = entry.config.get("env")
    env = environment.get("name", "") if isinstance(environment, dict) else ""
    yield Sample([entry.name, str(env)[:LABEL_CHARS]], 1)


def _desired(view: RunView, entry: RunEntry) -> Iterator[Sample]:
    if view.desired is not None:
        yield Sample([], view.desired)


def _events(view: RunView, entry: RunEntry) -> Iterator[Sample]:
    return (Sample([kind], count) for kind, count in view.events.items())


def _left_out(view: RunView, entry: RunEntry) -> Iterator[Sample]:
    yield Sample([], view.left_out)


def _redis_up(reading: Reading) -> Iterator[Sample]:
    return (Sample([server.name], float(server.up)) for server in reading.servers)


def _memory(reading: Reading) -> Iterator[Sample]:
    for server in reading.servers:
        if server.memory_bytes is not None:
            yield Sample([server.name], server.memory_bytes)


def _memory_max(reading: Reading) -> Iterator[Sample]:
    for server in reading.servers:
        if server.memory_max_bytes is not None:
            yield Sample([server.name], server.memory_max_bytes)


def _read(reading: Reading) -> Iterator[Sample]:
    if reading.read_s is not None:
        yield Sample([], reading.read_s)


def _outcomes(what: str, reading: Reading) -> Iterator[Sample]:
    return (Sample([how], reading.counts[f"{what}_{how}"]) for how in ("ok", "failed"))


_PROCESS: dict[str, Callable[[ProcessView], Iterable[Sample]]] = {
    "dreamfleet_starts_total": _starts,
    "dreamfleet_up": _up,
    "dreamfleet_last_seen_timestamp_seconds": _last_seen,
    "dreamfleet_process_info": _process_info,
}
_RUN: dict[str, Callable[[RunView, RunEntry], Iterable[Sample]]] = {
    "dreamfleet_run_info": _run_info,
    "dreamfleet_desired_actors": _desired,
    "dreamfleet_events_total": _events,
    "dreamfleet_left_out": _left_out,
}
_EXPORTER: dict[str, Callable[[Reading], Iterable[Sample]]] = {
    "dreamfleet_redis_up": _redis_up,
    "dreamfleet_redis_memory_bytes": _memory,
    "dreamfleet_redis_memory_max_bytes": _memory_max,
    "dreamfleet_read_timestamp_seconds": _read,
    "dreamfleet_reads_total": partial(_outcomes, "reads"),
    "dreamfleet_saves_total": partial(_outcomes, "saves"),
}


def _add(family: Family, metric: Metric, sample: Sample) -> None:
    if isinstance(family, InfoMetricFamily):
        names = metric.label_names
        family.add_metric([], dict(zip(names, sample.labels, strict=True)))
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        family.add_metric(sample.labels, sample.value)


def _add_histograms(family: HistogramMetricFamily, metric: Metric, reading: Reading) -> None:
    assert metric.buckets is not None
    for run_id, view in reading.runs.items():
        for one in by_role(metric, view):
            family.add_metric([run_id, one.role], one.rows(metric.buckets), one.total)


def _stem(metric: Metric) -> str:
    """The client appends `_total` and `_info` by itself."""
    return metric.name.removesuffix("_total").removesuffix("_info")
