"""The packages backblaze-b2, b2-cloud-storage and @influxdata/influxdb-client-apis of npm."""

import os
import subprocess

from kiln import KEY, KEY_ID, ROOT, TARGET, check

# backblaze-b2 sends parts of whatever size it is given.
ARGUMENTS = ["--limits-part-size-min", "100000"]


def script(url, name, **variables):
    modules = str((TARGET / "clients" / "npm" / "node_modules").resolve())
    ended = subprocess.run(
        ["node", ROOT / "tests" / "clients" / "npm" / "clients.js", url, KEY_ID, KEY, name],
        env=dict(os.environ, NODE_PATH=modules, **variables),
        capture_output=True, text=True, timeout=120)
    check(ended.returncode == 0, f"{name}: {ended.stderr[-2000:]}")


def backblaze_b2_does_all_it_can(server):
    script(server.url, "backblazeB2")


def b2_cloud_storage_sends_small_and_large_files(server):
    script(server.url, "b2CloudStorage")


def replication_148_the_client_of_influxdb_reads_back_every_field_that_it_sets(server):
    bucket = server.call("b2_create_bucket", {
        "accountId": KEY_ID, "bucketName": "npm-streamed", "bucketType": "allPrivate"})
    script(server.admin, "influxdb", KILN_TEST_BUCKET=bucket["bucketId"])


CHECKS = [
    backblaze_b2_does_all_it_can,
    b2_cloud_storage_sends_small_and_large_files,
    replication_148_the_client_of_influxdb_reads_back_every_field_that_it_sets,
]
