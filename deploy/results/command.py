"""`dreamfleet results`: regenerates tables and pictures from run folders.

::

    names, folders, globs -> read_evidence -> group_runs -> summarise -> Markdown, PNG, JSON
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.files import read_json, read_lines, write_json
from deploy.results.evidence import Evidence, read_evidence
from deploy.results.groups import Summary, group_runs, summarise
from deploy.results.picture import save_pictures
from deploy.results.tables import LeftOut, markdown, to_json
from deploy.run_folder import RUNS, list_runs
from system.errors import RunError, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What some runs show together."""

    summaries: list[Summary]
    left_out: list[LeftOut]

    @property
    def runs(self) -> list[Evidence]:
        """Those that count."""
        return [run for one in self.summaries for run in one.group.runs]


def results(options: argparse.Namespace) -> None:
    """The command."""
    found = collect(run_folders(options.runs, Path.cwd()))
    out = None if options.out is None else Path(options.out)
    if out is not None:
        write_results(found, out, copy_runs=options.copy_runs)
    elif options.copy_runs:
        raise RunError("--copy-runs needs --out DIR, the folder to copy them to")
    if options.json:
        sys.stdout.write(json.dumps(to_json(found.summaries, found.left_out)) + "\n")
    else:
        sys.stdout.write(markdown(found.summaries, found.left_out, []))
        if out is not None:
            sys.stdout.write(f"\nwritten: {out / 'README.md'} and its pictures\n")


def run_folders(words: Sequence[str], where: Path) -> list[Path]:
    """The folders that names, paths and globs mean, each once; without words every run of `where`.

    Raises:
      RunError: a word means nothing; the nearest match is named.
    """
    if not words:
        words = [f"{RUNS}/*"]
    found: dict[Path, None] = {}
    for word in words:
        places = _matches(where, word)
        if not places:
            known = list_runs(where)
            hint = nearest(word, known) if known else f"there is no run under {where / RUNS}"
            raise RunError(f"no run {word!r}; {hint}")
        found.update(dict.fromkeys(places))
    return list(found)


def _matches(where: Path, word: str) -> list[Path]:
    """A run by its name, a folder by its path, all runs in a folder, or all that a glob finds."""
    for base in (where / RUNS / word, where / word):
        if (base / "config.json").is_file():
            return [base.resolve()]
        if inside := sorted(path.parent.resolve() for path in base.glob("*/config.json")):
            return inside
    anchor = Path(Path(word).anchor) if Path(word).is_absolute() else where
    pattern = str(Path(word).relative_to(anchor)) if Path(word).is_absolute() else word
    globbed = [*anchor.glob(pattern), *(where / RUNS).glob(pattern)] if pattern != "." else []
    return sorted({path.resolve() for path in globbed if (path / "config.json").is_file()})


def collect(folders: Sequence[Path]) -> Results:
    """Reads and groups them. Raises RunError if none of them is evidence."""
    runs, left_out = [], []
    for folder in folders:
        try:
            runs.append(read_evidence(folder))
        except RunError as error:
            left_out.append(LeftOut(name=folder.name, reason=str(error)))
    if not runs:
        reasons = "; ".join(one.reason for one in left_out)
        raise RunError(f"nothing to report: {reasons}")
    return Results(summaries=[summarise(group) for group in group_runs(runs)], left_out=left_out)


def write_results(found: Results, out: Path, *, copy_runs: bool = False) -> None:
    """Writes `README.md`, `results.json` and a PNG for each task.

    Args:
      found: what to report.
      out: folder, made if needed.
      copy_runs: also `out/NAME/` for each run: config and what was measured, a few kilobytes, so
        that the report can be made again from there.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = save_pictures(out, found.summaries)
    title = f"# {out.resolve().name}\n\n"
    page = title + markdown(found.summaries, found.left_out, pictures)
    (out / "README.md").write_text(page)
    data = json.dumps(to_json(found.summaries, found.left_out), indent=1)
    (out / "results.json").write_text(data + "\n")
    if copy_runs:
        for run in found.runs:
            if run.folder.parent != out.resolve():
                _copy(run.folder, out / run.name)


def _copy(folder: Path, to: Path) -> None:
    """What `read_evidence` reads, without the name of the machine and where its servers were."""
    to.mkdir(exist_ok=True)
    data = read_json(folder / "config.json")
    hardware = {name: value for name, value in data["hardware"].items() if name != "host"}
    config = dict(data["config"])
    config["fleet"] = {**config.get("fleet", {}), "redis": "", "redis_data": "", "secrets": ""}
    write_json(to / "config.json", {**data, "hardware": hardware, "config": config})
    (to / "config.json").chmod(0o644)
    source = folder / "metrics.jsonl"
    source = source if source.exists() else folder / "evaluations.jsonl"
    text = [json.dumps(line) for line in read_lines(source, holding="eval/return_mean")]
    (to / "evaluations.jsonl").write_text("\n".join(text) + "\n")
    if (folder / "episodes.jsonl").exists():
        shutil.copyfile(folder / "episodes.jsonl", to / "episodes.jsonl")
