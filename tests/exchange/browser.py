"""Headless Chromium, driven by chromedriver through the WebDriver protocol: what a reader of a page would see and do.

It speaks with chromedriver over loopback only, and Chromium is told to use no network.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = [
    "--headless",
    "--no-sandbox",  # as root, in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # Whatever a page wants from a network fails, and is seen to have been asked for.
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's id in an answer, fixed by the WebDriver standard."""

# Chromium draws what `content-visibility: auto` holds back when it comes near the view, some frames later, and until
# then it has no text. While texts are read, nothing is held back.
_TEXTS = """
function texts(elements) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(":not([hidden]) { content-visibility: visible !important }");
  document.adoptedStyleSheets = [sheet];
  const found = elements.map((one) => one.innerText);
  document.adoptedStyleSheets = [];
  return found;
}
"""

# For the same reason what is below moves while a page is drawn: nothing is clicked, and nothing is measured after a
# click, before three frames have left the page where it was.
_STILL = """
return new Promise((done) => {
  const view = document.scrollingElement;
  const place = () => `${view.scrollTop} ${view.scrollHeight}`;
  let before = null, same = 0;
  const look = () => {
    const now = place();
    same = now === before ? same + 1 : 0;
    before = now;
    if (same < 3) requestAnimationFrame(look);
    else done();
  };
  look();
});
"""


class Browser:
    """One browser window.

    Args:
        port: chromedriver's.
        profile: an empty folder.
    """

    def __init__(self, port: int, profile: Path) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        binary = shutil.which("chromium")
        options = {"args": [*_FLAGS, f"--user-data-dir={profile}"], "binary": binary}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        started = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{started['sessionId']}"
        self._in_session("POST", "/url", {"url": "about:blank"})
        self.requested()  # forget what Chromium's own first page asked for

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        value = json.loads(self._connection.getresponse().read())["value"]
        assert not (isinstance(value, dict) and "error" in value), f"{value['error']}: {value['message']}"
        return value

    def _in_session(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask(method, self._session + path, body)

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a file; it returns when the page has loaded and its script has run."""
        self._in_session("POST", "/url", {"url": page.as_uri() + fragment})

    def resize(self, width: int, height: int = 900) -> None:
        """Make the page this wide, in CSS pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools protocol."""
        return self._in_session("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function with this body returns."""
        return self._in_session("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        """The id of the first element that a CSS selector names."""
        found = self._in_session("POST", "/element", {"using": "css selector", "value": selector})
        assert isinstance(found, dict)
        return str(found[_ELEMENT])

    def click(self, selector: str) -> None:
        """Scroll to the first such element and click on it, as with a mouse: nothing may cover it."""
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", {_ELEMENT: element})
        self.be_still()
        self._in_session("POST", f"/element/{element}/click", {})
        self.be_still()

    def be_still(self) -> None:
        """Wait until the page is drawn and moves no more."""
        self.run(_STILL)

    def type(self, selector: str, text: str) -> None:
        """Type into the first such element."""
        self._in_session("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, key: str) -> None:
        """Press one key on the keyboard, wherever the focus is; its code as in the WebDriver standard."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._in_session("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def text(self, selector: str = "body") -> str:
        """The text of the first such element, as it is seen."""
        texts = self.run(_TEXTS + "return texts([document.querySelector(arguments[0])])", selector)
        return str(texts[0])

    def texts(self, selector: str) -> list[str]:
        """The texts of all such elements that are shown, as they are seen."""
        shown = "[...document.querySelectorAll(arguments[0])].filter((one) => one.checkVisibility())"
        found = self.run(f"{_TEXTS} return texts({shown})", selector)
        assert isinstance(found, list)
        return [str(text) for text in found]

    def log(self, kind: str) -> list[Any]:
        """What was logged since the last call: "browser" (errors, refused by the policy …) or "performance"."""
        found = self._in_session("POST", "/se/log", {"type": kind})
        assert isinstance(found, list)
        return found

    def requested(self) -> list[str]:
        """The URLs that pages asked for since the last call, data: URLs left out."""
        events = [json.loads(line["message"])["message"] for line in self.log("performance")]
        asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in asked if not one["request"]["url"].startswith("data:")]

    def screenshot(self, path: Path) -> None:
        """What is in view, as a PNG."""
        path.write_bytes(base64.b64decode(self._in_session("GET", "/screenshot")))

    def close(self) -> None:
        """Close the window and end Chromium."""
        self._in_session("DELETE", "")
        self._connection.close()


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser that lives as long as the context.

    Args:
        folder: an empty one, for its profile.
    """
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("chromium and chromedriver are not installed")
    command = ["chromedriver", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        try:
            assert driver.stdout is not None
            started = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout)
            port = next(found[1] for found in started if found is not None)
            browser = Browser(int(port), folder)
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()
