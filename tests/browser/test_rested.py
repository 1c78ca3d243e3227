"""The page of a run that rests, in a real Chromium over the real server: seen and pressed."""

from __future__ import annotations

import json
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from deploy.dashboard.folders import FolderRuns
from deploy.dashboard.server import PageServer
from learner.dream_files import DreamFiles
from system.clock import SystemClock
from tests.browser.chromium import Chromium, find_chromium
from tests.browser.rested import CONTEXT, write_dream, write_run

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium: make system-packages")

HOSTILE = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
MOST_BYTES = 1_000_000
WORDS = {
    "number(0.01234)": "0.012", "number(-4.567)": "-4.57", "number(1234.5)": "1,235",
    "number(0)": "0", "number(3e-7)": "3.0e-7", "number(null)": "\u2013",
    "count(9999)": "9,999", "count(12345)": "12.3k", "count(4.5e6)": "4.5M",
    "bytes(0)": "0 B", "bytes(1536)": "1.5 KiB", "bytes(5 * 1024 ** 3)": "5 GiB",
    "percent(0.0456)": "4.6 %", "percent(0.456)": "46 %", "percent(undefined)": "\u2013",
    "duration(0.25)": "0.3 s", "duration(59.6)": "1 min", "duration(200)": "3 min 20 s",
    "duration(7500)": "2 h 05 min", "duration(360000)": "4 d 4 h", "ago(1)": "now",
}  # fmt: skip


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    where = tmp_path_factory.mktemp("runs")
    write_run(where)
    write_run(where, "other", env=HOSTILE)
    return where


@pytest.fixture(scope="module")
def server(where, chromium):
    with closing(PageServer(FolderRuns(where), SystemClock(), port=0)) as server:
        chromium.open(server.url).close()  # takes the cookie
        yield server


@pytest.fixture
def page(chromium, server):
    """The rested run, all of it drawn; what the browser objects to fails the test."""
    page = chromium.open(f"{server.address}?run=rested-id")
    page.until("document.querySelectorAll('#multiples canvas').length >= 6", "drew the dream")
    page.until("document.querySelector('#return-plot canvas') !== null", "drew the curve")
    yield page
    assert page.violations() == []
    page.close()


def value(page, expression):
    return page.evaluate(expression)


def test_one_look_answers_and_nothing_comes_from_elsewhere(page, server):
    assert page.text("#learning .word") == "Yes"
    assert "rose from" in page.text("#learning .sentence").lower()
    assert page.text("#link-text") == "ended"
    assert "60k of 60k frames" in page.text("#progress-text")
    assert page.hosts() == {urlsplit(server.address).netloc}
    assert 50_000 < page.bytes_received() < MOST_BYTES
    assert "token" not in value(page, "location.href + document.cookie")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_never_scrolls_sideways_and_words_stand_out(page, theme):
    page.prefer(theme)
    page.until(f"document.documentElement.dataset.theme === '{theme}'", f"turned {theme}")
    for width in (390, 1440, 2560):
        page.resize(width, 844)
        page.until(f"innerWidth === {width}", "took the width")
        # Charts follow a frame later.
        page.until("document.documentElement.scrollWidth <= innerWidth", f"fitted {width} px")
    faint = value(page, CONTRASTS)
    assert faint
    assert min(faint.values()) >= 4.5, faint


def test_the_theme_that_was_pressed_stays(page):
    assert value(page, "document.documentElement.dataset.theme") == "light"
    page.press("#theme")
    page.until("document.documentElement.dataset.theme === 'dark'", "turned dark")
    page.call("Page.reload")
    page.until("document.querySelector('#theme')?.textContent === 'Light'", "came back dark")
    page.press("#theme")
    page.until("localStorage.getItem('theme') === 'light'", "turned light again")
    page.evaluate("localStorage.clear()")


def test_everything_is_reached_by_the_keyboard(page):
    wanted = {"run", "theme", "dream-update", "dream-example"}
    reached = set()
    for _ in range(30):
        page.key("Tab")
        name, outline = value(
            page,
            "[document.activeElement.id || document.activeElement.tagName,"
            " getComputedStyle(document.activeElement).outlineStyle]",
        )
        reached.add(name)
        assert outline != "none" or name == "BODY", f"nobody sees that {name} has the focus"
    assert wanted <= reached, reached
    assert {"INPUT", "BUTTON", "SUMMARY", "A"} <= reached, reached  # scrubber, play, compare, files


def test_the_film_follows_its_scrubber(page):
    page.until(FILMS, "showed three films")
    assert page.text("#film button") == "Pause"  # it plays
    page.evaluate(
        "(() => { const range = document.querySelector('#film input'); range.value = 0;"
        "range.dispatchEvent(new Event('input')); range.focus(); })()"
    )
    assert page.text("#film .scrub span") == f"seen, step 1 of {CONTEXT}"
    before = value(page, PIXELS)
    for _ in range(CONTEXT + 9):
        page.key("ArrowRight")
    page.until(
        "document.querySelector('#film .scrub span').textContent === 'dreamed step 10 of 45'",
        "moved to step 10",
    )
    assert value(page, PIXELS) != before


def test_nothing_moves_for_those_who_want_it_still(chromium, server):
    page = chromium.open(f"{server.address}?run=rested-id", motion="reduce")
    page.until(FILMS, "showed three films")
    page.until("document.querySelector('#film .scrub span').textContent", "showed a frame")
    assert page.text("#film button") == "Play"
    page.close()


def test_dreams_and_starts_are_chosen_and_a_new_dream_arrives(page, where):
    first = page.text("#dream-lead")
    page.evaluate(choose("#dream-update", "400"))
    page.until(f"document.querySelector('#dream-lead').textContent !== {first!r}", "went back")
    assert "400 updates" in page.text("#dream-lead")
    read = page.text("#multiples figcaption")
    page.evaluate(choose("#dream-example", "2"))
    page.until(
        f"document.querySelector('#multiples figcaption').innerText !== {read!r}", "chose a start"
    )
    page.evaluate(choose("#dream-update", "newest"))
    page.until(f"document.querySelector('#dream-lead').textContent === {first!r}", "came back")
    write_dream(DreamFiles(where / "runs/rested"), 7000)
    page.until("document.querySelector('#dream-lead').textContent.includes('7,000')", "updated")


def test_return_turns_its_axis_and_shows_another_run_beside(page):
    assert "frames" in page.text("#return-readout")
    page.press("[data-axis=clock]")
    page.until("document.querySelector('#return-readout').textContent.includes('10 min')", "turned")
    page.press("#overlay summary")
    page.press("#overlay-runs input")
    page.until("document.querySelector('#return-legend').innerText.includes('other')", "compared")
    page.key("Escape")
    assert value(page, "document.querySelector('#overlay').open") is False


def test_a_stream_closes_with_the_tab_hidden_and_opens_again(page):
    def streams():
        return {key for key, url in page.requests().items() if "/stream" in url}

    first = streams()
    assert len(first) == 1
    assert not first & page.closed()
    page.evaluate(hide(True))
    page.wait(lambda: first <= page.closed(), "closed its stream")
    page.evaluate(hide(False))
    second = page.wait(lambda: streams() - first, "opened another")
    assert not second & page.closed()


def test_names_that_others_wrote_are_inert(chromium, server):
    page = chromium.open(f"{server.address}?run=other-id")
    page.until("document.querySelector('#run-facts').textContent.includes('onerror')", "named it")
    assert value(page, "document.querySelectorAll('main img, main script').length") == 0
    assert value(page, "document.title") == "other \u00b7 dreamfleet"
    assert page.violations() == []
    page.close()


def test_without_the_cookie_the_page_says_what_to_do(chromium, server):
    page = chromium.open(f"{server.address}?run=rested-id")
    page.until("document.querySelector('#link').dataset.link === 'ended'", "heard")
    chromium.call("Storage.clearCookies")
    page.evaluate(choose("#run", "other-id"))
    page.until("document.querySelector('#notice').innerText.includes('token')", "said so")
    page.close()
    chromium.open(server.url).close()


def test_a_server_that_streams_nothing_is_asked(chromium, server):
    page = chromium.open("about:blank")
    page.call("Network.setBlockedURLs", urls=["*/stream*"])
    page.call("Page.navigate", url=f"{server.address}?run=rested-id")
    page.until("document.querySelector('#learning .word')?.textContent === 'Yes'", "asked")
    page.until("document.querySelectorAll('#multiples canvas').length >= 6", "drew the dream")
    page.close()


def test_a_server_that_went_with_its_run_leaves_word_where_to_look(chromium, tmp_path):
    write_run(tmp_path, dreams=())
    with closing(PageServer(FolderRuns(tmp_path), SystemClock(), port=0)) as server:
        page = chromium.open(server.url)
        page.until("document.querySelector('#link').dataset.link === 'ended'", "heard")
    wanted = "The run has ended; see it with: dreamfleet dashboard --run rested"
    page.until(f"document.querySelector('#notice').innerText === {wanted!r}", "said so")
    page.close()


def test_what_an_ended_run_cannot_tell_it_says_so(page):
    assert page.text("#events-empty") == "Events are kept only while the run's Redis lives."
    assert page.text("#slow-text") == "Only while it runs."
    assert "of training" in page.text("#health")
    assert "age" not in page.text("#replay")


def test_the_readout_says_only_what_was_measured_near(page):
    over = "document.querySelector('#return-plot .u-over')"
    for frames, said in ((42, "acting 691"), (44, "evaluation 788")):  # measured at 45k
        box = value(page, f"({over}.scrollIntoView({{block: 'center'}}), {over})"
                    ".getBoundingClientRect().toJSON()")  # fmt: skip
        place = {"x": box["x"] + box["width"] * (frames - 1) / 59, "y": box["y"] + 20}
        page.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        page.until(f"document.querySelector('#return-readout').innerText.endsWith('{said}')", said)


def test_one_bad_event_hides_no_other(page):
    bad = [
        {"kind": "", "time_s": 1e300, "text": ""},
        {"kind": "disk_full", "time_s": 1.7e9, "text": "no room", "role": "learner"},
    ]
    told = value(
        page,
        "import('/static/events.js').then(({EventsView}) => { const view = new EventsView();"
        f"view.heard({json.dumps(bad)}); return document.querySelector('#events').innerText; }})",
    )
    assert "Something happened" in told
    assert "The disk is full: no room learner" in told


def test_numbers_in_words(page):
    for said, words in WORDS.items():
        found = value(page, f"import('/static/words.js').then((words) => words.{said})")
        assert found == words, said


def choose(selector, chosen):
    return (
        f"(() => {{ const list = document.querySelector('{selector}'); list.value = '{chosen}';"
        "list.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def hide(hidden):
    return (
        f"Object.defineProperty(document, 'hidden', {{value: {str(hidden).lower()},"
        " configurable: true}); document.dispatchEvent(new Event('visibilitychange'))"
    )


FILMS = "document.querySelectorAll('#film canvas').length === 3"
PIXELS = "[...document.querySelectorAll('#film canvas')].map((canvas) => canvas.toDataURL()).join()"
CONTRASTS = """(() => {
  const style = (node) => getComputedStyle(node);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    const back = style(node).backgroundColor;
    const solid = rgb(back).length < 4 || rgb(back)[3] > 0.5;
    return solid && back !== 'rgba(0, 0, 0, 0)' ? back : behind(node.parentElement);
  };
  const words = document.querySelectorAll('h1, h2, .word, .sentence, .muted, .lead, .legend span,'
    + '.facts dt, .facts b, .readout, .gauge span, .gauge b, .link, .pill, label, .button small');
  const found = {};
  for (const node of words) {
    if (!node.textContent.trim() || !node.getClientRects().length) continue;
    const pair = [light(rgb(style(node).color)), light(rgb(behind(node)))].sort((a, b) => b - a);
    const name = `${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 20)}`;
    found[name] = (pair[0] + 0.05) / (pair[1] + 0.05);
  }
  return found;
})()"""
"""Words -> their contrast with what is behind them, as WCAG 2 has it: at least 4.5 to be read."""
