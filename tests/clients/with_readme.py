"""Every command of the README, run in an empty folder in the order in which it stands there."""

import os
import pathlib
import re
import subprocess
import tempfile
import time

from kiln import BINARY, CLIENTS, ROOT, check


def commands():
    text = (ROOT / "README.md").read_text()
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.S):
        yield from (line for line in block.replace("\\\n", " ").split("\n")
                    if line.strip() and not line.startswith("#"))


def the_readme_works_in_an_empty_folder(_):
    lines = list(commands())
    check(lines[:2] == ["cargo run --release", "tests/run"], "the first two commands")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("B2_", "KILN_", "RCLONE_"))}
        environment["PATH"] = f"{CLIENTS}:{environment['PATH']}"
        # The b2 command line keeps its profiles there.
        (folder / "home").mkdir()
        environment["HOME"] = str(folder / "home")
        environment["XDG_CONFIG_HOME"] = str(folder / "home")
        environment["RCLONE_CONFIG"] = "/dev/null"
        # The first command builds and starts the server; here it is the one that was built for the
        # tests, in the place where cargo would have put it.
        (folder / "target" / "release").mkdir(parents=True)
        (folder / "target" / "release" / "kiln").symlink_to(BINARY)
        server = subprocess.Popen([BINARY], cwd=folder, env=environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            deadline = time.monotonic() + 20
            while not (folder / "kiln-data" / "running.json").exists():
                check(server.poll() is None and time.monotonic() < deadline, "started")
                time.sleep(0.01)
            # What is started in the background ends with the script.
            script = "set -e\ntrap 'kill $(jobs -p)' EXIT\n" + "\n".join(
                f"echo {index} > step\n{line}" for index, line in enumerate(lines[2:]))
            ended = subprocess.run(["bash", "-c", script], cwd=folder, env=environment,
                                   capture_output=True, text=True, timeout=180)
            step = (folder / "step").read_text().strip()
            check(ended.returncode == 0,
                  f"{lines[2 + int(step)]}: {ended.stdout[-500:]} {ended.stderr[-1500:]}")
        finally:
            server.terminate()
            output = server.communicate(timeout=40)[0]
        check(server.returncode == 0, f"the server ended with {server.returncode}")
        key = (folder / "kiln-data" / "initial-key.env").read_text().split("KEY=")[-1].strip()
        check(key and key not in output, "the secret goes to a terminal only")


CHECKS = [the_readme_works_in_an_empty_folder]
