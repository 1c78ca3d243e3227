"""Summaries as Markdown, and as plain data for `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.results.groups import Estimate, Summary, across_tasks, acted_at, estimate, value_at
from deploy.results.published import Published, published


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A folder that is no evidence, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A published figure, and ours at the same frames."""

    published: Published
    summary: Summary
    evaluated: Estimate
    acted: Estimate | None


def comparisons(summaries: Sequence[Summary]) -> list[Comparison]:
    """The published figure at the most frames that all seeds of a group have reached."""
    return [
        Comparison(
            published=row,
            summary=one,
            evaluated=estimate([value_at(run, row.frames) for run in one.group.runs]),
            acted=acted_at(one.group.runs, row.frames),
        )
        for one in summaries
        for row in [row for row in published(one.group.task) if row.frames <= one.frames][-1:]
    ]


def markdown(
    summaries: Sequence[Summary], left_out: Sequence[LeftOut], pictures: Sequence[str]
) -> str:
    """The whole page; `pictures` are file names beside it."""
    parts = [
        "Made by `dreamfleet results` from the runs below; rules: docs/protocol.md. Intervals are "
        "95 % stratified bootstrap, over seeds. Evaluated: deterministic policy, episodes that no "
        "actor saw. Trained: episodes that went into the replay, sampled actions.",
        _groups(summaries),
        _across(summaries),
        _published(comparisons(summaries)),
        "\n".join(f"![return against frames and time]({name})" for name in pictures),
        _runs(summaries),
        _notes(summaries, left_out),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def seeds_text(number: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} seed" + ("" if number == 1 else "s")


def to_json(summaries: Sequence[Summary], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """Everything that the tables show."""
    return {
        "groups": [_group_json(one) for one in summaries],
        "published": [
            {
                **asdict(one.published), "settings": one.summary.group.settings,
                "preset": one.summary.group.preset, "size": one.summary.group.size,
                "evaluated": asdict(one.evaluated),
                "acted": None if one.acted is None else asdict(one.acted),
            }
            for one in comparisons(summaries)
        ],
        "left_out": [asdict(one) for one in left_out],
    }  # fmt: skip


def _group_json(one: Summary) -> dict[str, Any]:
    group = one.group
    return {
        "task": group.task, "preset": group.preset, "size": group.size,
        "action_repeat": group.action_repeat, "settings": group.settings, "frames": one.frames,
        "hours": one.hours, "evaluated": asdict(one.evaluated),
        "acted": None if one.acted is None else asdict(one.acted), "remarks": one.remarks,
        "runs": [
            {
                "run": run.name, "seed": run.config.seed, "frames": run.frames,
                "evaluated": value, "commit": run.commit, "dirty": run.dirty,
                "hardware": run.hardware,
            }
            for run, value in zip(group.runs, one.evaluated.values, strict=True)
        ],
    }  # fmt: skip


def _groups(summaries: Sequence[Summary]) -> str:
    rows = [
        [
            one.group.task, one.group.preset, one.group.size, one.group.settings or "as the preset",
            str(one.group.action_repeat), str(len(one.group.runs)), f"{one.frames:,}",
            f"{one.evaluated.mean:.1f}", _with_interval(one.evaluated),
            "-" if one.acted is None else _with_interval(one.acted), f"{one.hours:.2f}",
            _joined(run.hardware for run in one.group.runs),
            _joined(run.commit or "?" for run in one.group.runs),
        ]
        for one in summaries
    ]  # fmt: skip
    head = ["task", "preset", "size", "settings", "repeat", "seeds", "frames", "evaluated: mean",
            "evaluated: IQM [95 %]", "trained: IQM [95 %]", "hours a run", "hardware",
            "commit"]  # fmt: skip
    return _table(head, rows)


def _across(summaries: Sequence[Summary]) -> str:
    """One row for each set of settings that was run on several dm_control tasks."""
    rows = []
    for key in sorted({_settings_of(one) for one in summaries}):
        same = [one for one in summaries if _settings_of(one) == key]
        if whole := across_tasks(same):
            preset, size, settings = key
            rows.append([preset, size, settings or "as the preset", str(len(same)),
                         str(len(whole.values)), _with_interval(whole, ".3f")])  # fmt: skip
    head = ["preset", "size", "settings", "dm_control tasks", "runs", "return / 1000: IQM [95 %]"]
    return _table(head, rows) if rows else ""


def _published(rows: Sequence[Comparison]) -> str:
    if not rows:
        return ""
    head = ["task", "frames", "published (training episodes)", "seeds", "repeat",
            "ours", "repeat", "trained: mean", "evaluated: mean", "source"]  # fmt: skip
    return _table(
        head,
        [
            [
                one.published.task, f"{one.published.frames:,}",
                f"{one.published.method} {one.published.value:.0f}", str(one.published.seeds),
                str(one.published.action_repeat), " ".join(_settings_of(one.summary)).strip(),
                str(one.summary.group.action_repeat),
                "-" if one.acted is None else f"{one.acted.mean:.0f}", f"{one.evaluated.mean:.0f}",
                one.published.source,
            ]
            for one in rows
        ],
    )  # fmt: skip


def _runs(summaries: Sequence[Summary]) -> str:
    rows = []
    for one in summaries:
        acted = one.acted.values if one.acted else [None] * len(one.group.runs)
        for run, value, trained in zip(one.group.runs, one.evaluated.values, acted, strict=True):
            rows.append([
                run.name, one.group.task, str(run.config.seed), f"{one.frames:,}", f"{value:.1f}",
                "-" if trained is None else f"{trained:.1f}", run.commit or "?",
            ])  # fmt: skip
    return _table(["run", "task", "seed", "frames", "evaluated", "trained", "commit"], rows)


def _notes(summaries: Sequence[Summary], left_out: Sequence[LeftOut]) -> str:
    lines = [f"- {_title(one)}: {remark}" for one in summaries for remark in one.remarks]
    commits = {run.commit for one in summaries for run in one.group.runs}
    if len(commits) > 1:
        lines.append(f"- runs of {len(commits)} commits: rows may differ in more than settings")
    lines += [f"- left out: {one.name}: {one.reason}" for one in left_out]
    return "\n".join(lines)


def _title(one: Summary) -> str:
    return " ".join(part for part in (one.group.task, *_settings_of(one)) if part)


def _settings_of(one: Summary) -> tuple[str, str, str]:
    return one.group.preset, one.group.size, one.group.settings


def _with_interval(one: Estimate, form: str = ".1f") -> str:
    if one.low is None or one.high is None:
        return f"{one.iqm:{form}} (one seed)"
    return f"{one.iqm:{form}} [{one.low:{form}}, {one.high:{form}}]"


def _joined(texts: Any) -> str:  # noqa: ANN401
    return "; ".join(sorted(set(texts)))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
                     for row in lines)  # fmt: skip
