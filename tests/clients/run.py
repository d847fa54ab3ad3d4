"""Runs every check with real clients and ends with one line that counts them."""

import sys
import time
import traceback

import with_b2_cli
import with_b2sdk
import with_boto3
import with_browser
import with_encryption
import with_large_files
import with_locks
import with_npm
import with_rclone
import with_readme
import with_s3_clients
import with_s3_listing
import with_s3_multipart
import with_s3_settings
import with_streams
import with_tls
from kiln import Server

SUITES = [
    with_b2_cli,
    with_b2sdk,
    with_encryption,
    with_large_files,
    with_locks,
    with_npm,
    with_rclone,
    with_browser,
    with_boto3,
    with_s3_listing,
    with_s3_multipart,
    with_s3_settings,
    with_s3_clients,
    with_streams,
    with_tls,
    with_readme,
]


def main():
    wanted = sys.argv[1:]
    passed, failed = 0, 0
    for suite in SUITES:
        checks = [one for one in suite.CHECKS if not wanted or one.__name__ in wanted]
        if not checks:
            continue
        server = Server(*getattr(suite, "ARGUMENTS", []))
        try:
            for one in checks:
                started = time.monotonic()
                try:
                    one(server)
                    passed += 1
                    outcome = "ok"
                except Exception:
                    failed += 1
                    outcome = "FAILED\n" + traceback.format_exc()
                took = time.monotonic() - started
                print(f"{suite.__name__}.{one.__name__} {took:.1f} s {outcome}", flush=True)
        finally:
            server.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(main())
