"""A headless Chromium, driven through chromedriver over plain HTTP."""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from kiln import check

# No flag here opens anything to a page: requests to other origins stay as they are for everybody.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage"]


class Browser:
    """One browser with one tab and a profile of its own."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kiln-browser-"))
        # A file, not a pipe: nobody reads what the browser says, and a full pipe would hold it up.
        self.said = self.folder / "said"
        with open(self.said, "wb") as said:
            self.driver = subprocess.Popen(
                ["chromedriver", "--port=0"], stdout=said, stderr=subprocess.STDOUT)
        try:
            self.base = f"http://127.0.0.1:{self.port()}/session"
            profile = self.folder / "profile"
            options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                      "timeouts": {"script": 60_000, "pageLoad": 60_000}}
            made = self.ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
            self.base += "/" + made["sessionId"]
        except BaseException:
            self.stop_driver()
            raise

    def port(self):
        deadline = time.monotonic() + 30
        while True:
            found = re.search(r"started successfully on port (\d+)\.", self.said.read_text())
            if found:
                return int(found[1])
            check(self.driver.poll() is None, "chromedriver ended at once")
            check(time.monotonic() < deadline, "chromedriver is not ready in time")
            time.sleep(0.01)

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base + path, data=data, method=method,
            headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as refusal:
            check(False, f"{method} {path}: {refusal.read().decode(errors='replace')[:2000]}")

    def open(self, url):
        self.ask("POST", "/url", {"url": url})

    def run(self, function, *arguments):
        """Runs `async (...) => ...` in the page and answers what it resolves to."""
        script = ("const done = arguments[arguments.length - 1];"
                  "(" + function + ")(...Array.prototype.slice.call(arguments, 0, -1))"
                  ".then(done, error => done({thrown: String(error)}));")
        return self.ask("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def stop_driver(self):
        self.driver.terminate()
        self.driver.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self):
        try:
            self.ask("DELETE", "")
        finally:
            self.stop_driver()
