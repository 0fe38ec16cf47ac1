"""Drives a headless Chromium by the DevTools protocol over a pipe, with nothing but Python's standard library.

Used by `scripts/check-web`. Whatever the page writes to its console, throws or is refused by its content security policy is
kept in `Page.complaints`. Nothing waits without a deadline.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ANSWER_SECONDS_MAX = 60
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio", "--hide-scrollbars",
    "--force-color-profile=srgb", "--remote-debugging-pipe",
]


class Browser:
    """A browser of its own, with an empty profile that goes with it."""

    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="mainstem-browser-")
        to_read, self.to_write = os.pipe()
        self.from_read, to_report = os.pipe()
        # The protocol is spoken over file descriptors 3 and 4.
        line = f'exec "$@" 3<&{to_read} 4>&{to_report}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, "bash", program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            pass_fds=(to_read, to_report), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_report)
        self.held = b""
        self.number = 0
        self.pages = {}

    def ask(self, method, params=None, session=None):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_write, data):]
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while True:
            answer = self.read(deadline, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.heard(answer)

    def read(self, deadline, why):
        while b"\0" not in self.held:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.from_read], [], [], left)[0]:
                raise TimeoutError(f"the browser has not answered {why} within {ANSWER_SECONDS_MAX} s")
            data = os.read(self.from_read, 1 << 16)
            if not data:
                raise RuntimeError("the browser has ended")
            self.held += data
        message, self.held = self.held.split(b"\0", 1)
        return json.loads(message)

    def heard(self, event):
        page = self.pages.get(event.get("sessionId"))
        if page:
            page.heard(event["method"], event["params"])

    def page(self):
        """A page in a context of its own: no cookies, no storage of others."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session, context)
        self.pages[session] = page
        for domain in ("Page", "Runtime", "Log"):
            page.ask(f"{domain}.enable")
        return page

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to_write)
        os.close(self.from_read)
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    def __init__(self, browser, session, context):
        self.browser = browser
        self.session = session
        self.context = context
        self.complaints = []

    def ask(self, method, params=None):
        return self.browser.ask(method, params, self.session)

    def close(self):
        del self.browser.pages[self.session]
        self.browser.ask("Target.disposeBrowserContext", {"browserContextId": self.context})

    def heard(self, method, params):
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Runtime.exceptionThrown":
            detail = params["exceptionDetails"]
            self.complaints.append(detail.get("exception", {}).get("description") or detail["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def size(self, width, height, phone=False):
        self.ask("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})

    def colours(self, scheme):
        self.ask("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
        ]})

    def open(self, url):
        self.ask("Page.navigate", {"url": url})

    def value(self, expression):
        """What an expression gives, after its promise if it is one."""
        result = self.ask("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in result:
            detail = result["exceptionDetails"]
            raise RuntimeError(f"{expression}: {detail.get('exception', {}).get('description') or detail['text']}")
        return result["result"].get("value")

    def until(self, expression, what, seconds=60):
        """Waits until an expression is true; that it cannot be evaluated yet is no more than that it is not."""
        deadline = time.monotonic() + seconds
        while True:
            if self.value(f"(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"):
                return
            if time.monotonic() > deadline:
                text = self.value("document.body ? document.body.innerText.slice(0, 1500) : ''")
                raise TimeoutError(f"not within {seconds} s: {what}\n--- the page shows:\n{text}\n--- its complaints: {self.complaints}")
            time.sleep(0.05)

    def button(self, label):
        """Waits for a button of that label, and gives the expression for it."""
        button = f"[...document.querySelectorAll('button')].find((one) => one.innerText === '{label}')"
        self.until(button, f"a button '{label}'")
        return button

    def usable(self, label):
        """The same, as soon as the button can be used."""
        button = self.button(label)
        self.until(f"!{button}.disabled", f"the button '{label}' can be used")
        return button

    def click(self, label):
        """Clicks the button of that label as soon as it can be used: a click before is lost."""
        self.value(f"{self.usable(label)}.click()")

    def press(self, key, text=""):
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
            if kind == "keyDown" and (text or len(key) == 1):
                event["text"] = text or key
            if kind == "keyDown" and key == "Enter":
                event["text"] = "\r"
            self.ask("Input.dispatchKeyEvent", event)

    def type(self, text):
        self.ask("Input.insertText", {"text": text})

    def shot(self, path, whole=False):
        params = {"format": "png"}
        if whole:
            box = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            params |= {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": box["width"], "height": min(box["height"], 4000), "scale": 1}}
        Path(path).write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", params)["data"]))


KEYS = {"Tab": 9, "Delete": 46, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
