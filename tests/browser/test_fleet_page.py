"""The page of a real fleet in a real Chromium: somebody watches and presses."""

from __future__ import annotations

from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from deploy.dashboard.beside import RunPage
from tests.browser.chromium import Chromium, find_chromium
from tests.fleet_for_tests import TINY, Fleet, command
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium: make system-packages")

MOST_BYTES = 1_000_000
FRAMES = (
    r"Number(/^At ([\d,]+)/.exec(document.querySelector('#return-readout').innerText)?.[1]"
    ".replace(',', '') ?? 0)"
)
LEAD = "document.querySelector('#dream-lead').textContent"
DRAWN = "document.querySelectorAll('#multiples canvas').length >= 5"
WHO = "[...document.querySelectorAll('.who')].map((one) => one.textContent)"
DESIRED = "document.querySelector('#desired').value"


@pytest.fixture
def watched(tmp_path):
    """A fleet of its own, its page in a browser, and the page's URL as `train` has it."""
    fleet = Fleet(tmp_path)
    settings = [one for one in TINY if one != "--no-dashboard"]
    with ExitStack() as stack:
        chromium = stack.enter_context(Chromium(tmp_path))
        stack.callback(fleet.end)
        said = command(
            tmp_path, "train", "--run", fleet.name, "--detach", *settings,
            "learner.dream_report_s=1",
        )  # fmt: skip
        url = RunPage(fleet.folder).wait_for_url(DEADLINE_S)
        assert url, fleet.words()
        assert url in said.stdout + said.stderr
        yield fleet, chromium.open(url), url


@pytest.mark.timeout(8 * DEADLINE_S)
def test_somebody_watches_a_run_and_scales_it(watched):
    fleet, page, url = watched
    page.until(f"Boolean({row('learner')} && {row('actor 0')})", "saw the fleet")
    assert page.evaluate("location.href") == url.partition("?")[0]
    assert page.text("#link-text") == "live"
    page.until(DRAWN, "dreamed")
    lead = page.evaluate(LEAD)
    frames = page.until(FRAMES, "drew a curve")

    page.press("#more")
    page.until(f"{DESIRED} === '2'", "wanted two")
    page.until(f"Boolean({row('actor 1')})", "saw the new actor run")
    fleet.held("actor", 1)
    page.until(f"{FRAMES} > {frames}", "saw the curve grow")
    page.until(f"{LEAD} !== {lead!r}", "saw another dream")

    page.press("#fewer")
    page.until(f"{DESIRED} === '1'", "wanted one")
    page.until(f"!{WHO}.includes('actor 1')", "saw it go")
    page.press("tr[data-key='actor 0'] [data-action=drain]")
    page.until("document.querySelector('dialog').open", "asked before it drained")
    page.press("#confirm-yes")
    page.until(f"Boolean({row('actor 0', 'held')})", "saw it drained")

    assert page.violations() == []
    assert page.hosts() == {urlsplit(url).netloc}
    assert page.bytes_received() < MOST_BYTES
    fleet.stop()
    page.until("document.querySelector('#link').dataset.link === 'ended'", "saw the end")


def row(who, up="yes"):
    """An expression: the fleet table's row of a process that is up, or not."""
    return (
        f"[...document.querySelectorAll('#fleet-rows tr[data-up={up}]')]"
        f".find((row) => row.querySelector('.who').textContent === '{who}')"
    )
