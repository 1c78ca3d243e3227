"""What a tab is sent: everything once, also after a break."""

from __future__ import annotations

import json
import math

import pytest

from deploy.dashboard.curve import CurvePoint
from deploy.dashboard.hub import Listed
from deploy.dashboard.source import RunCard
from deploy.dashboard.stream import Has, list_news, newest_json, now_has, run_news, to_text
from deploy.dashboard.watched import Rates, Shown


def point(number):
    return CurvePoint(time_s=None, elapsed_s=float(number), frames=number, updates=number,
                      kind="acting", mean=1.0, std=None)  # fmt: skip


def shown(version=1, points=3, events=2, dream=None, serial="0123abcd", kept=300):
    return Shown(
        serial=serial, version=version, now={"time_s": version},
        points=[point(number) for number in range(points)], num_points=points,
        events=[{"text": f"event {number}"} for number in range(events)][-kept:],
        num_events=events,
        dream=None if dream is None else {"update": dream},
    )  # fmt: skip


def heard(frames):
    """Kinds with data, as a browser reads them; and the last id."""
    events, identity = [], None
    for block in b"".join(frames).decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        identity = fields.get("id", identity)
        events.append((fields["event"], json.loads(fields["data"])))
    return events, identity


def test_a_new_tab_gets_everything_and_then_only_what_is_new():
    has, first = Has(), shown(dream=7)
    events, identity = heard(run_news(first, has))
    assert [kind for kind, _ in events] == ["now", "curve", "events", "dream"]
    assert events[1][1]["reset"]
    assert len(events[1][1]["points"]) == 3
    has = now_has(Listed(), first, has)
    assert run_news(first, has) == []
    events, _ = heard(run_news(shown(2, dream=7), has))
    assert events == [("now", {"time_s": 2})]
    events, _ = heard(run_news(shown(3, points=5, events=3, dream=8), has))
    assert [kind for kind, _ in events] == ["now", "curve", "events", "dream"]
    assert [one["frames"] for one in events[1][1]["points"]] == [3, 4]
    assert not events[1][1]["reset"]
    assert events[2][1] == [{"text": "event 2"}]
    assert identity == "0123abcd.3.2"


def test_a_tab_that_comes_back_gets_what_it_missed():
    _, identity = heard(run_news(shown(), Has()))
    events, _ = heard(run_news(shown(9, points=4, events=4), Has.parse(identity)))
    assert [one["frames"] for one in events[1][1]["points"]] == [3]
    assert events[2][1] == [{"text": "event 2"}, {"text": "event 3"}]


@pytest.mark.parametrize("text", ["", "x", "0123abcd.3", "0123abcd.3.2.1", "ffffffff.3.2",
                                  "0123abcd.-1.2", "0123abcd.3.2\n", "9" * 99])  # fmt: skip
def test_what_another_server_said_counts_for_nothing(text):
    events, _ = heard(run_news(shown(), Has.parse(text)))
    assert events[1][1]["reset"]
    assert len(events[1][1]["points"]) == 3
    assert len(events[2][1]) == 2


def test_more_than_is_kept_was_missed():
    has = now_has(Listed(), shown(events=2), Has())
    events, _ = heard(run_news(shown(2, events=1000, kept=300), has))
    assert len(events[1][1]) == 300


def test_ids_that_cannot_be_are_no_harm():
    has = Has.parse("0123abcd.999.999")
    events, _ = heard(run_news(shown(), has))
    assert [kind for kind, _ in events] == ["now"]


def test_the_list_of_runs_only_when_it_changed():
    card = RunCard(run_id="a-1", name="a", env="<script>", phase="running", alive=True, frames=3,
                   return_mean=None, seen_s=None)  # fmt: skip
    listed = Listed(version=2, cards=(card,))
    events, _ = heard(list_news(listed, Has()))
    assert events == [("runs", [{
        "id": "a-1", "name": "a", "env": "<script>", "phase": "running", "alive": True,
        "frames": 3, "return_mean": None, "seen_s": None}])]  # fmt: skip
    assert list_news(listed, now_has(listed, None, Has())) == []
    answer = newest_json(listed, shown(dream=3))
    assert set(answer) == {"runs", "now", "curve", "events", "dream"}
    assert set(newest_json(listed, None)) == {"runs"}


def test_no_text_can_be_taken_for_html_or_break_a_frame():
    text = to_text({"env": "</script><script>alert(1)</script>&\n\ndata: x"})
    assert not set("<>&\n") & set(text)
    assert json.loads(text)["env"].startswith("</script>")
    with pytest.raises(ValueError, match="JSON compliant"):
        to_text(math.nan)


def test_rates_are_differences_over_their_window():
    rates = Rates()
    rates.see(0.0, "frames", 0, window_s=10.0)
    assert rates.values() == {}
    for second in range(1, 61):
        rates.see(float(second), "frames", 5 * second, window_s=10.0)
    assert rates.values() == {"frames": 5.0}
    for second in range(61, 81):  # faster now
        rates.see(float(second), "frames", 300 + 20 * (second - 60), window_s=10.0)
    assert rates.values() == {"frames": 20.0}
    rates.see(81.0, "frames", 3, window_s=10.0)  # begun anew
    assert rates.values() == {}
    rates.see(82.0, "frames", 4, window_s=10.0)
    assert rates.values() == {"frames": 1.0}
    rates.see(1000.0, "frames", 5000, window_s=10.0)  # nobody looked for long
    rates.see(1001.0, "frames", 5007, window_s=10.0)
    assert rates.values() == {"frames": 7.0}
