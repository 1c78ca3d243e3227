"""Histograms: each value in one bucket, lives and slots added up, never backwards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.exporter import saved
from deploy.exporter.collector import FleetCollector
from deploy.exporter.histograms import by_role
from deploy.exporter.merge import Look, RunMerge
from deploy.exporter.reader import Reading
from deploy.run_entry import RunEntry
from system.clock import ManualClock
from system.control.protocol import ProcessMetrics
from system.histogram import CHUNK_BYTES, ENV_STEP, POLICY_AGE, UPDATE, Histogram
from system.metrics import COUNTED, METRICS

STEPS = METRICS["dreamfleet_env_step_seconds"]


@pytest.mark.parametrize("buckets", [ENV_STEP, POLICY_AGE, CHUNK_BYTES, UPDATE])
def test_bounds_grow_are_few_and_have_one_key_each(buckets):
    assert list(buckets.bounds) == sorted(set(buckets.bounds))
    assert 9 <= len(buckets.bounds) <= 14
    keys = [*buckets.keys, buckets.sum_key]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= set(COUNTED)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*ENV_STEP.bounds, 0.0, 0.003, 0.2, 7.0]), max_size=30))
def test_every_value_is_in_the_first_bucket_that_holds_it(values):
    histogram = Histogram(ENV_STEP)
    for value in values:
        histogram.observe(value)
    said = histogram.metrics()
    lowest = 0.0
    for bound, key in zip([*ENV_STEP.bounds, float("inf")], ENV_STEP.keys, strict=True):
        there = [value for value in values if (value > lowest or bound == 1e-4) and value <= bound]
        assert said.get(key, 0) == len(there)
        lowest = bound
    assert said.get(ENV_STEP.sum_key, 0) == round(sum(values) * 1e6)


def measured(*values):
    histogram = Histogram(ENV_STEP)
    for value in values:
        histogram.observe(value)
    return histogram.metrics()


def said(slot, life, values):
    return ProcessMetrics(
        role="actor", slot=slot, time_s=1.0, values=values | {"actor/started_s": float(life)}
    )


def test_lives_and_slots_are_added_up():
    merge = RunMerge()
    for one in (
        said(0, 1, measured(0.0002, 0.3)),
        said(1, 1, measured(0.0002)),
        said(0, 2, measured(0.0002)),
        said(0, 2, measured(0.0002, 9.0)),
    ):
        merge.take(Look(metrics=[one]), 1.0)
    (found,) = by_role(STEPS, saved.decode(saved.encode(merge)).view())
    assert found.role == "actor"
    assert found.cumulative[:3] == [0, 3, 3]
    assert found.cumulative[-2:] == [4, 5]
    assert found.total == pytest.approx(3 * 0.0002 + 0.3 + 9.0)


def test_no_learner_measures_no_histogram_of_actors():
    merge = RunMerge()
    merge.take(Look(metrics=[said(0, 1, {})]), 1.0)
    assert not list(by_role(METRICS["dreamfleet_update_seconds"], merge.view()))
    assert next(by_role(STEPS, merge.view())).cumulative == [0] * 14


def test_prometheus_reads_it_as_a_histogram_by_run_and_role():
    merge = RunMerge()
    merge.take(Look(metrics=[said(slot, 1, measured(0.002, 0.02)) for slot in range(64)]), 1.0)
    entry = RunEntry(
        run_id="r-1", name="r", created_s=1.0, host="h", folder="/r", config={}, spec={}
    )
    reading = Reading(runs={"r-1": merge.view()}, entries={"r-1": entry}, counts={
        f"{what}_{how}": 0 for what in ("reads", "saves") for how in ("ok", "failed")
    })  # fmt: skip
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: reading, ManualClock()))
    families = {
        family.name: family
        for family in text_string_to_metric_families(generate_latest(registry).decode())
    }
    family = families["dreamfleet_env_step_seconds"]
    assert family.type == "histogram"
    assert {tuple(sorted(sample.labels)) for sample in family.samples} == {
        ("le", "role", "run"), ("role", "run"),
    }  # fmt: skip
    counts = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert len(counts) == 14, "of 64 slots no more than of one"
    assert {s.name.rpartition("_")[2]: s.value for s in family.samples if "le" not in s.labels} == {
        "count": 128.0, "sum": pytest.approx(64 * 0.022),
    }  # fmt: skip
    by_le = {s.labels["le"]: s.value for s in family.samples if "le" in s.labels}
    assert (by_le["0.001"], by_le["0.0025"], by_le["0.025"], by_le["+Inf"]) == (0, 64, 128, 128)
