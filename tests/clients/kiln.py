"""Starts the built binary in a folder of its own and gives clients what they need."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = TARGET / "debug" / "kiln"
CLIENTS = TARGET / "clients" / "bin"
KEY_ID = "0123456789ab"
KEY = "K000MasterOfTheTestHouse0123456"


class Failed(Exception):
    """A check that did not hold."""


def check(holds, what):
    if not holds:
        raise Failed(what)


class Server:
    """A running server; `stop` ends it and removes its folder."""

    def __init__(self, *arguments, folder=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kiln-clients-", dir=folder))
        self.arguments = arguments
        self.log = open(self.folder / "log", "ab")
        self.start()

    def start(self):
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        environment = dict(os.environ, KILN_MASTER_KEY_ID=KEY_ID, KILN_MASTER_KEY=KEY)
        self.process = subprocess.Popen(
            [BINARY, "serve", "--data-dir", self.folder / "data", "--listen", "127.0.0.1:0",
             "--admin-listen", "127.0.0.1:0", "--ready-file", ready, "--test-controls",
             *self.arguments],
            env=environment, stdout=subprocess.DEVNULL, stderr=self.log)
        deadline = time.monotonic() + 20
        while not ready.exists():
            check(self.process.poll() is None, "the server ended at once")
            check(time.monotonic() < deadline, "the server is not ready in time")
            time.sleep(0.01)
        facts = json.loads(ready.read_text())
        check(sorted(facts) == ["accountId", "adminEndpoint", "endpoint", "pid"], "ready file")
        self.url, self.admin = facts["endpoint"], facts["adminEndpoint"]

    def kill(self):
        """Ends it at once, as a power cut would, and starts it again at other addresses."""
        self.process.kill()
        self.process.wait(20)
        self.start()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(40)
        self.log.close()
        text = (self.folder / "log").read_text(errors="replace")
        shutil.rmtree(self.folder)
        check(code == 0, f"the server ended with {code}")
        check("panicked" not in text, "the server panicked: " + text[-2000:])
        check(KEY not in text, "the master key is in the log")

    def control(self, path, body=None, method="POST"):
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.admin + path, data=data, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def cap(self, **caps):
        """Sets caps of the first account; the word none removes one."""
        basic = base64.b64encode(f"{KEY_ID}:{KEY}".encode()).decode()
        return post(self.admin + "/admin/caps", caps, "Basic " + basic)["caps"]

    def fired(self):
        """How often each planned fault has struck; clears them."""
        faults = self.control("/admin/faults", method="GET")["faults"]
        self.control("/admin/faults", method="DELETE")
        return [fault["fired"] for fault in faults]

    def call(self, operation, body, token=None, version=4):
        """A JSON operation over plain HTTP; without a token the master key is authorized."""
        if token is None:
            token = self.authorize(KEY_ID, KEY)["authorizationToken"]
        return post(f"{self.url}/b2api/v{version}/{operation}", body, token)

    def authorize(self, key_id, key):
        basic = base64.b64encode(f"{key_id}:{key}".encode()).decode()
        return post(f"{self.url}/b2api/v4/b2_authorize_account", {}, "Basic " + basic)

    def notifications(self):
        """Event notification rules as operators see them."""
        basic = base64.b64encode(f"{KEY_ID}:{KEY}".encode()).decode()
        request = urllib.request.Request(
            self.admin + "/admin/notifications", headers={"Authorization": "Basic " + basic})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["rules"]

    def drain(self):
        check(self.control("/admin/replication/drain?timeout=30000")["drained"], "drained")


def post(url, body, authorization):
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Authorization": authorization})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


class Cli:
    """The real b2 command line with an account file of its own."""

    def __init__(self, server, key_id=KEY_ID, key=KEY):
        self.account = tempfile.NamedTemporaryFile(prefix="kiln-b2-", delete=False).name
        os.unlink(self.account)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("B2_")}
        self.environment["B2_ACCOUNT_INFO"] = self.account
        self("account", "authorize", "--environment", server.url, key_id, key)

    def run(self, *arguments):
        return subprocess.run(
            [CLIENTS / "b2", *map(str, arguments)], env=self.environment, capture_output=True,
            text=True, timeout=120)

    def __call__(self, *arguments):
        ended = self.run(*arguments)
        check(ended.returncode == 0, f"b2 {' '.join(map(str, arguments))}: {ended.stderr[-1500:]}")
        return ended.stdout

    def refused(self, *arguments):
        """Runs a command that must fail and answers what it said."""
        ended = self.run(*arguments)
        check(ended.returncode != 0, f"b2 {' '.join(map(str, arguments))} should be refused")
        return ended.stdout + ended.stderr
