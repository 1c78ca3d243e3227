"""`dreamfleet results` on folders as runs leave them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from actors.config import EnvConfig
from deploy.cli import main
from deploy.presets import laptop
from deploy.results.command import collect, run_folders, write_results
from deploy.results.published import published
from deploy.run_folder import RunFolder
from system.config import override
from system.specs import ActionSpec, ArraySpec, EnvSpec

SWINGUP = EnvSpec(
    name="dm_control/cartpole-swingup",
    observation={"position": ArraySpec(shape=(3,)), "velocity": ArraySpec(shape=(2,))},
    action=ActionSpec(kind="continuous", size=1),
    action_repeat=4,
)
COMMIT = {"commit": "0123456789abcdef", "dirty": False}
HARDWARE = {"host": "secret-host", "machine": "x86_64", "cpu": "Some CPU", "cpus": 2,
            "memory_bytes": 4 * 2**30}  # fmt: skip


def put(where, name, returns, *, seed=0, settings=(), git=COMMIT, acted=(), env=SWINGUP.name,
        observation=SWINGUP.observation):  # fmt: skip
    """A run that was evaluated each 10,000 frames; the last evaluation ends it."""
    config = laptop(EnvConfig(name=env, action_repeat=4), run=name)
    config = replace(config, seed=seed, frames=10_000 * len(returns))
    config = override(config, *settings) if settings else config
    folder = RunFolder.create(where, config, replace(SWINGUP, name=env, observation=observation))
    path = folder.path / "config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "git": git, "hardware": HARDWARE}))
    lines = [
        {"time_s": 60.0 * index, "frames": 10_000 * index, "updates": index,
         "eval/return_mean": value, "eval/return_std": 1.0, "eval/episodes": 5.0}
        for index, value in enumerate(returns, 1)
    ]  # fmt: skip
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    episodes = [
        {"time_s": 1.0, "frames": frames, "return": value, "length": 250} for frames, value in acted
    ]
    if episodes:
        text = "".join(json.dumps(line) + "\n" for line in episodes)
        (folder.path / "episodes.jsonl").write_text(text)
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, last in enumerate((300.0, 500.0, 400.0)):
        acted = [(9_000, 10.0 + seed), (19_000, 100.0 + seed), (20_000, 200.0 + seed)]
        put(tmp_path, f"a-s{seed}", [100.0, last], seed=seed, acted=acted)
    put(tmp_path, "b", [50.0, 60.0, 70.0], settings=["learner.learning_rate=1e-4"])
    return tmp_path


def as_json(capsys, *words):
    assert main(["results", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_seeds_are_put_together_and_settings_kept_apart(runs, capsys):
    first, second = as_json(capsys)["groups"]
    assert (first["settings"], second["settings"]) == ("", "learner.learning_rate=0.0001")
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    assert first["evaluated"]["values"] == [300.0, 500.0, 400.0]
    assert first["evaluated"]["iqm"] == pytest.approx(400.0)
    assert 300.0 <= first["evaluated"]["low"] < 400.0 < first["evaluated"]["high"] <= 500.0
    assert first["acted"]["values"] == [150.0, 151.0, 152.0]  # the last tenth: 18,000 to 20,000
    assert (first["frames"], first["hours"]) == (20_000, pytest.approx(120 / 3600))
    assert (second["evaluated"]["low"], second["acted"]) == (None, None)


def test_seeds_of_unlike_length_are_compared_at_the_same_frames(runs, capsys):
    put(runs, "a-s3", [100.0, 200.0, 600.0], seed=3)
    put(runs, "a-s4", [100.0, 900.0], seed=4)
    lines = (runs / "runs/a-s4/metrics.jsonl").read_text().replace("20000", "20100")
    (runs / "runs/a-s4/metrics.jsonl").write_text(lines)
    (group,) = as_json(capsys, "a-*")["groups"]
    # Seed 3 in between; seed 4 ends half a percent later, which is the same.
    assert (group["frames"], group["evaluated"]["values"][3:]) == (20_000, [200.0, 900.0])


def test_what_was_published_stands_beside_it(runs, capsys):
    for seed in (5, 6):
        put(runs, f"long-s{seed}", [10.0 * n for n in range(1, 13)], seed=seed)
    found = as_json(capsys, "long-*")["published"]
    assert [(row["frames"], row["value"], row["seeds"]) for row in found] == [(100_000, 527.74, 5)]
    assert found[0]["evaluated"]["values"] == [100.0, 100.0]
    assert found[0]["acted"] is None


def test_every_published_fact_has_its_source():
    rows = published("dm_control/walker-walk")
    assert [row.frames for row in rows] == [
        20_000,
        30_000,
        40_000,
        60_000,
        80_000,
        100_000,
        250_000,
        500_000,
    ]
    assert all(row.source.startswith("github.com/") and row.seeds == 5 for row in rows)
    assert published("dm_control/walker-walk (pixels)")[0].seeds == 10
    assert published("CartPole-v1") == []


def test_weak_evidence_is_named_and_none_is_left_out(runs, capsys):
    put(runs, "dirty", [1.0], seed=7, git={**COMMIT, "dirty": True})
    put(runs, "nowhere", [1.0], seed=8, git=None)
    bare = put(runs, "bare", [1.0])
    data = json.loads((bare.path / "config.json").read_text())
    del data["hardware"]
    (bare.path / "config.json").write_text(json.dumps(data))
    put(runs, "young", [])
    put(runs, "again", [100.0, 1.0], seed=2)
    found = as_json(capsys)
    remarks = [line for group in found["groups"] for line in group["remarks"]]
    assert "dirty: code differs from its commit" in remarks
    assert "nowhere: commit not known" in remarks
    assert "seed 2 more than once" in remarks
    reasons = {one["name"]: one["reason"] for one in found["left_out"]}
    assert "has no hardware" in reasons["bare"]
    assert "no evaluation yet" in reasons["young"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("metrics.jsonl", '{"eval/return_mean": 1.0}\n', "a damaged line: KeyError('frames')"),
        ("metrics.jsonl", '{"eval/return_mean": NaN, "frames": 1, "time_s": 1}\n', "not finite"),
        ("episodes.jsonl", '{"time_s": [], "frames": 1, "return": 1}\n', "a damaged line"),
        ("config.json", "[]", "is not a JSON object"),
        ("config.json", '{"hardware": 3}', "has no hardware"),
        ("config.json", '{"hardware": {"a": 1}, "config": {"frames": "x"}, "spec": {"a": 1}}', ""),
    ],
)
def test_damage_is_named(runs, capsys, name, text, reason):
    (runs / "runs/b" / name).write_text(text)
    (left_out,) = as_json(capsys, "a-s0", "b")["left_out"]
    assert left_out["name"] == "b"
    assert reason in left_out["reason"]


def test_a_run_that_was_stopped_says_so(runs, capsys):
    folder = RunFolder.open(runs, "b")
    folder.reconfigure(replace(folder.record().config, frames=90_000))
    (group,) = as_json(capsys, "b")["groups"]
    assert group["remarks"] == ["b: ends at 30,000 of 90,000 frames"]


def test_tasks_are_put_together_by_strata(runs, capsys):
    for seed in range(2):
        put(runs, f"w-s{seed}", [0.0, 800.0], seed=seed, env="dm_control/walker-walk")
    main(["results", "a-*", "w-*"])
    row = next(line for line in capsys.readouterr().out.splitlines() if "| 5 |" in line)
    # Five scores: the middle three of .3 .4 .5 .8 .8; walker alone could never reach .3.
    assert row.split("|")[6].strip().startswith("0.567 [0.4")


def test_the_report_is_the_same_twice_and_from_its_own_copies(runs):
    found = collect(run_folders([], runs))
    write_results(found, runs / "one/report", copy_runs=True)
    write_results(collect(run_folders(["one/report"], runs)), runs / "two/report")
    names = ["README.md", "results.json", "dm-control-cartpole-swingup.png"]
    for name in names:
        assert (runs / "one/report" / name).read_bytes() == (
            runs / "two/report" / name
        ).read_bytes()
    kept = (runs / "one/report/a-s0/config.json").read_text()
    assert "secret-host" not in kept
    assert "Some CPU" in (runs / "one/report/README.md").read_text()


def test_pictures_are_named_and_grids_of_codes_are_none(runs):
    for name, dtype in (("grid", "float32"), ("picture", "uint8")):
        observation = {"image": ArraySpec(shape=(7, 7, 3), dtype=dtype)}
        put(runs, name, [1.0], env=f"x/{name}", observation=observation)
    found = collect(run_folders(["grid", "picture"], runs))
    assert {one.group.task for one in found.summaries} == {"x/grid", "x/picture (pixels)"}


def test_a_config_of_an_older_version_is_read(runs, capsys):
    path = runs / "runs/b/config.json"
    data = json.loads(path.read_text())
    del data["config"]["learner"]["keep_checkpoints"], data["config"]["env"]["pixels"]
    data["config"]["learner"]["long_gone"] = 3
    path.write_text(json.dumps(data))
    assert as_json(capsys, "b")["groups"][0]["settings"] == "learner.learning_rate=0.0001"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a-s9"], "no run 'a-s9'; did you mean 'a-s"),
        (["nothing/*"], "no run 'nothing/*'; "),
        (["--copy-runs"], "--copy-runs needs --out DIR"),
    ],
)
def test_mistakes_are_named(runs, capsys, words, message):
    assert main(["results", *words]) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_report_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "young", [])
    assert main(["results"]) == 2
    assert "nothing to report: " in capsys.readouterr().err
