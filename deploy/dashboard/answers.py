"""What the page's routes answer: plain functions, called in a thread each.

A function that raises one of our errors is answered with its one line: see `refused`.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from starlette.responses import Response

from deploy.dashboard.curve import to_csv
from deploy.dashboard.dreams import dream_json
from deploy.dashboard.hub import Hub
from deploy.dashboard.plain import cut, text_of
from deploy.dashboard.source import RunSource
from deploy.dashboard.stream import newest_json, to_text
from system.control.protocol import SlotAction
from system.dream import DreamReport
from system.dream_codec import decode_dream
from system.errors import CheckpointError, ConfigError, DreamfleetError, RunError, Unavailable

STATIC = Path(__file__).parent / "static"
KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
"""Of the files of the page; no other kind is served."""
FIRST_LOOK_S = 5.0
"""Longest wait for the first look at a run [s]."""
MOST_DELTA = 1000
_FILMING = threading.Lock()
"""A film takes a core for some seconds: one at a time."""
ACTIONS: tuple[SlotAction, ...] = get_args(SlotAction)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One whole answer."""

    status: int = 200
    """HTTP status."""
    kind: str = "application/json"
    """Media type."""
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class NotFound(DreamfleetError):
    """There is no such run, file or dream."""


class BadRequest(DreamfleetError):
    """A request that nobody understands."""


STATUSES: dict[type[DreamfleetError], int] = {
    NotFound: 404, CheckpointError: 404, BadRequest: 400, ConfigError: 400, RunError: 409,
    Unavailable: 503,
}  # fmt: skip
"""HTTP status of our errors; of any other it is 500."""


def of_json(data: object, status: int = 200) -> Answer:
    """JSON."""
    return Answer(status=status, body=to_text(data).encode())


def of_error(text: str, status: int) -> Answer:
    """Why not, in one line."""
    return of_json({"error": text.partition("\n")[0][:500]}, status)


def to_response(answer: Answer) -> Response:
    """As Starlette sends it."""
    return Response(answer.body, answer.status, answer.headers, media_type=answer.kind)


def refused(error: DreamfleetError | OSError) -> Answer:
    """What went wrong, in one line."""
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    return of_error(str(error), status)


def static(name: str) -> Answer:
    """A file of the page, by its name alone: nothing else can be named."""
    files = {path.name: path for path in STATIC.iterdir() if path.suffix in KINDS}
    if name not in files:
        raise NotFound(f"no file {name[:80]!r}")
    return Answer(body=files[name].read_bytes(), kind=KINDS[files[name].suffix])


def now(hub: Hub, query: Mapping[str, str]) -> Answer:
    """The newest of every event."""
    run_id = query.get("run", "")
    if run_id:
        _source(hub, run_id)
    else:
        hub.asked("", timeout_s=FIRST_LOOK_S)
        if not hub.listed.version:
            raise Unavailable("the list of runs cannot be read: its Redis does not answer yet")
        run_id = hub.default_run()
    shown = hub.asked(run_id, timeout_s=FIRST_LOOK_S) if run_id else None
    return of_json(newest_json(hub.listed, shown))


def dream(hub: Hub, query: Mapping[str, str]) -> Answer:
    """One dream."""
    report = _report(_source(hub, query.get("run", "")), query)
    return of_json(dream_json(report, _whole(query, "example") or 0))


def dreams(hub: Hub, query: Mapping[str, str]) -> Answer:
    """Which dreams may be asked for."""
    found = _source(hub, query.get("run", "")).dreams()
    return of_json([{"update": one.update, "frames": None, "time_s": one.time_s} for one in found])


def download(hub: Hub, name: str, query: Mapping[str, str]) -> Answer:
    """A file made for whoever asks."""
    makers = {"curve.csv": _curve, "film.gif": _film, "policy.safetensors": _policy}
    if name not in makers:
        raise NotFound(f"no download {name[:80]!r}; there are: {', '.join(makers)}")
    source = _source(hub, query.get("run", ""))
    if name == "curve.csv":
        hub.asked(source.run_id, timeout_s=FIRST_LOOK_S)
    kind, body = makers[name](source, query)
    shown = re.sub(r"[^A-Za-z0-9._-]", "_", f"{source.name}-{name}")
    return Answer(
        body=body, kind=kind, headers={"Content-Disposition": f'attachment; filename="{shown}"'}
    )


def scale(hub: Hub, body: Mapping[str, Any]) -> Answer:
    """More actors, or fewer."""
    delta = body.get("delta")
    if type(delta) is not int or not 0 < abs(delta) <= MOST_DELTA:
        raise BadRequest(f"delta must be a whole number from -{MOST_DELTA} to {MOST_DELTA}, not 0")
    source = _source(hub, body.get("run"))
    desired = source.control("scale").change_desired(delta=delta)
    hub.hurry(source.run_id)
    return of_json({"desired": desired.actors})


def slot(hub: Hub, body: Mapping[str, Any]) -> Answer:
    """Drains, restarts or starts one actor."""
    number = body.get("slot")
    if type(number) is not int or number < 0:
        raise BadRequest("slot must be a whole number, 0 or more")
    action = next((known for known in ACTIONS if known == body.get("action")), None)
    if action is None:
        raise BadRequest(f"action must be one of: {', '.join(ACTIONS)}")
    source = _source(hub, body.get("run"))
    source.control(action).ask_slot(number, action)
    hub.hurry(source.run_id)
    return of_json({})


def parse_body(data: bytes) -> dict[str, Any]:
    """The JSON object of a POST."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise BadRequest("send one JSON object")
    return body


def _source(hub: Hub, run_id: object) -> RunSource:
    source = hub.source(run_id) if isinstance(run_id, str) and run_id else None
    if source is None:
        raise NotFound(f"no run {str(run_id)[:100]!r} in {hub.where}")
    return source


def _report(source: RunSource, query: Mapping[str, str]) -> DreamReport:
    update = _whole(query, "update")
    data = source.dream(update)
    if data is None:
        which = "no dream yet" if update is None else f"no dream of update {update}"
        raise NotFound(f"run {source.name!r} has {which}")
    return decode_dream(data)


def _curve(source: RunSource, query: Mapping[str, str]) -> tuple[str, bytes]:
    return "text/csv; charset=utf-8", to_csv(source.curve.points).encode()


def _film(source: RunSource, query: Mapping[str, str]) -> tuple[str, bytes]:
    from deploy.dream_film import frames_of, save_gif  # matplotlib: only for who wants a film
    from deploy.dream_strip import Picture, draw_strip

    report = _report(source, query)
    if not report.examples:
        raise NotFound(f"the dream of update {report.update} has no example")
    example = min(_whole(query, "example") or 0, len(report.examples) - 1)
    picture = Picture(
        title=f"{source.name}: {cut(text_of(source.config, 'env', 'name'), 60)}",
        reports=[replace(report, examples=[report.examples[example]])],
        policy_acts=False,
        env_step="agent steps",
    )
    with _FILMING, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.gif"
        save_gif(path, frames_of(picture, draw_strip(picture)))
        return "image/gif", path.read_bytes()


def _policy(source: RunSource, query: Mapping[str, str]) -> tuple[str, bytes]:
    return "application/octet-stream", source.policy().weights


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,15}", text):
        raise BadRequest(f"{name} must be a whole number, 0 or more")
    return int(text)
