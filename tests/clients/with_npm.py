"""The packages backblaze-b2 and b2-cloud-storage of npm."""

import os
import subprocess

from kiln import KEY, KEY_ID, ROOT, TARGET, check

# backblaze-b2 sends parts of whatever size it is given.
ARGUMENTS = ["--limits-part-size-min", "100000"]


def script(server, name):
    ended = subprocess.run(
        ["node", ROOT / "tests" / "clients" / "npm" / "clients.js", server.url, KEY_ID, KEY, name],
        env=dict(os.environ, NODE_PATH=str((TARGET / "clients" / "npm" / "node_modules").resolve())),
        capture_output=True, text=True, timeout=120)
    check(ended.returncode == 0, f"{name}: {ended.stderr[-2000:]}")


def backblaze_b2_does_all_it_can(server):
    script(server, "backblazeB2")


def b2_cloud_storage_sends_small_and_large_files(server):
    script(server, "b2CloudStorage")


CHECKS = [backblaze_b2_does_all_it_can, b2_cloud_storage_sends_small_and_large_files]
