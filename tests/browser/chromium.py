"""A real Chromium without a window, over its DevTools protocol on a pipe: no port, no driver.

::

    with Chromium(folder) as chromium:
        page = chromium.open(url)
        page.until("document.querySelector('#word').textContent === 'Yes'", "said yes")
        page.press("#more")
        page.violations()           # what the console and the network held against it
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.waiting import DEADLINE_S, wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
    "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--force-color-profile=srgb", "--hide-scrollbars",
)  # fmt: skip


def find_chromium():
    """Path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with a profile of its own."""

    def __init__(self, folder: Path):
        self._calls = 0
        self._replies: dict[int, dict] = {}
        self._pages: dict[str, Page] = {}
        self._news = threading.Condition()
        self._over = False
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        # Chromium reads descriptor 3 and writes 4; the pipes' must not be those when they are
        # copied, and the log's, which may be, is copied first.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 20) for one in (to_it, from_it)]
        os.close(to_it)
        os.close(from_it)
        log = os.open(folder / "chromium.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._pid = os.posix_spawn(
            find_chromium(),
            ["chromium", *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            {**os.environ, "HOME": str(folder)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4),
            ],
            setsid=True,
        )  # fmt: skip
        for one in (*high, log):
            os.close(one)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        deadline = time.monotonic() + 10.0
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                break
            time.sleep(0.02)
        os.close(self._out)
        self._reader.join(10.0)

    def open(self, url, *, width=1440, height=900, theme="light", motion="no-preference"):
        """A new tab that has loaded a page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.prefer(theme, motion)
        page.call("Page.navigate", url=url)
        page.until("document.readyState === 'complete'", "loaded")
        return page

    def call(self, method, session=None, **parameters):
        """One command; its result. Fails with the browser's own words."""
        with self._news:
            self._calls += 1
            number = self._calls
            message = {"id": number, "method": method, "params": parameters}
            if session:
                message["sessionId"] = session
            os.write(self._out, json.dumps(message).encode() + b"\0")
            arrived = self._news.wait_for(
                lambda: number in self._replies or self._over, timeout=DEADLINE_S
            )
            assert arrived, f"Chromium did not answer {method}"
            reply = self._replies.pop(number, {"error": "Chromium went away"})
        assert "error" not in reply, (method, reply["error"])
        return reply["result"]

    def _read(self):
        rest = b""
        while piece := os.read(self._in, 1 << 20):
            *messages, rest = (rest + piece).split(b"\0")
            for message in messages:
                self._take(json.loads(message))
        with self._news:
            self._over = True
            self._news.notify_all()
        os.close(self._in)

    def _take(self, message):
        with self._news:
            if "id" in message:
                self._replies[message["id"]] = message
                self._news.notify_all()
            elif page := self._pages.get(message.get("sessionId")):
                page.events.append((message["method"], message["params"]))


class Page:
    """One tab."""

    def __init__(self, chromium, session, target):
        self.events: list[tuple[str, dict]] = []
        self._chromium, self._session, self._target = chromium, session, target

    def call(self, method, **parameters):
        return self._chromium.call(method, self._session, **parameters)

    def close(self):
        self._chromium.call("Target.closeTarget", targetId=self._target)

    def evaluate(self, expression):
        """Value of a JavaScript expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, what, timeout_s=DEADLINE_S):
        """Waits until a JavaScript expression is true; returns its value."""
        return self.wait(lambda: self.evaluate(expression), what, timeout_s)

    def wait(self, condition, what, timeout_s=DEADLINE_S):
        """Waits until a condition here is true; returns what it returned."""
        return wait_until(
            condition, f"the page {what}", timeout_s=timeout_s,
            words=lambda: self.evaluate("document.body.innerText"),
        )  # fmt: skip

    def text(self, selector):
        return self.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''")

    def press(self, selector):
        """A click of the mouse in the middle of an element, wherever that is by now."""
        box = self.evaluate(
            f"(() => {{ const node = document.querySelector({selector!r});"
            "node.scrollIntoView({block: 'center'});"
            "const box = node.getBoundingClientRect();"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    def key(self, name):
        """One key, pressed and released: Tab, Enter, ArrowRight."""
        code = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Escape": 27}[name]
        text = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name,
                windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def resize(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def prefer(self, theme, motion="no-preference"):
        """What the system would say of light and dark, and of things that move."""
        wishes = {"prefers-color-scheme": theme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": wish} for name, wish in wishes.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path, *, whole=True):
        """The page as PNG; the whole of it, or what the window shows."""
        more = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            more = {"clip": {**size, "scale": 1}, "captureBeyondViewport": True}
        data = self.call("Page.captureScreenshot", format="png", **more)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def violations(self):
        """Whatever the console, the security policy or the network held against the page."""
        said = []
        for method, what in list(self.events):
            if method == "Runtime.exceptionThrown":
                said.append(what["exceptionDetails"])
            elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
                said.append([one.get("value") for one in what["args"]])
            elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                said.append(what["entry"])
        return said

    def requests(self):
        """Request id -> address, of everything asked for over the network."""
        urls = {
            what["requestId"]: what["request"]["url"]
            for method, what in list(self.events)
            if method == "Network.requestWillBeSent"
        }
        return {key: url for key, url in urls.items() if urlsplit(url).scheme in ("http", "https")}

    def hosts(self):
        """Every host that was asked for anything."""
        return {urlsplit(url).netloc for url in self.requests().values()}

    def closed(self):
        """Ids of the requests that have come to an end, good or bad."""
        ends = ("Network.loadingFinished", "Network.loadingFailed")
        return {what["requestId"] for method, what in list(self.events) if method in ends}

    def bytes_received(self):
        """Bytes on the wire of what has arrived in full; streams go on and do not count."""
        return sum(
            what["encodedDataLength"]
            for method, what in list(self.events)
            if method == "Network.loadingFinished"
        )
