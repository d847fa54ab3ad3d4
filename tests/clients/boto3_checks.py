"""Runs the checks of boto3 on a server of its own: `boto3_checks.py http|https VERSION|new`."""

import contextlib
import sys
import traceback

import boto3

import with_boto3
import with_s3_listing
import with_s3_multipart
import with_s3_settings
from kiln import Server
from with_tls import trusting

# What boto3 did not know before checksums had kinds, and what starts a server of its own.
ONLY_NEW = [with_s3_multipart.s3_46_47_119_checksums_are_kept_and_told]
ALONE = [with_s3_multipart.s3_109_116_a_thousand_parts,
         with_s3_settings.s3_122_lifecycle_gives_up_uploads]
SUITES = [with_boto3, with_s3_multipart, with_s3_listing, with_s3_settings]


def main(scheme, version):
    if version not in ("new", boto3.__version__):
        print(f"boto3 is {boto3.__version__}")
        return 1
    server = Server(*(["--tls-self-signed"] if scheme == "https" else []))
    failed = 0
    try:
        with trusting(server) if scheme == "https" else contextlib.nullcontext():
            for one in (one for suite in SUITES for one in suite.CHECKS):
                if one in ALONE or (version != "new" and one in ONLY_NEW):
                    continue
                try:
                    one(server)
                except Exception:
                    failed += 1
                    print(one.__name__, traceback.format_exc())
    finally:
        server.stop()
    return 1 if failed else 0


sys.exit(main(*sys.argv[1:]))
