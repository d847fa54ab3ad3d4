"""rclone's B2 backend."""

import json
import os
import pathlib
import subprocess
import tempfile

from kiln import CLIENTS, KEY, KEY_ID, check


def rclone(server, *arguments, program="rclone", tries=1):
    environment = dict(
        os.environ, RCLONE_CONFIG="/dev/null", RCLONE_CONFIG_K_TYPE="b2",
        RCLONE_CONFIG_K_ACCOUNT=KEY_ID, RCLONE_CONFIG_K_KEY=KEY,
        RCLONE_CONFIG_K_ENDPOINT=server.url)
    ended = subprocess.run(
        [program, "--retries", "1", "--low-level-retries", str(tries), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120)
    check(ended.returncode == 0, f"rclone {arguments}: {ended.stderr[-1500:]}")
    return ended.stdout + ended.stderr


def native_403_a_tree_is_copied_checked_listed_and_read(server):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        names = ["plain.txt", "dir/with space", "dir/plus+percent%25", "dir/sub/\u00fcml\u00e4ut",
                 "dir/\u65e5\u672c", "empty", "quotes'\"()"]
        for number, name in enumerate(names):
            place = folder / "up" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"" if name == "empty" else name.encode() * (number + 1))
        (folder / "up" / "six-megabytes").write_bytes(os.urandom(6_000_000))
        rclone(server, "copy", folder / "up", "k:rclone-tree/x")
        rclone(server, "check", folder / "up", "k:rclone-tree/x")
        again = rclone(server, "copy", "-v", folder / "up", "k:rclone-tree/x")
        check("Transferred:            0 B" in again or "There was nothing to transfer" in again,
              again)
        listed = rclone(server, "lsf", "k:rclone-tree/x").split("\n")
        check("dir/" in listed and "plain.txt" in listed, listed)
        check(rclone(server, "cat", "--offset", "2", "--count", "3", "k:rclone-tree/x/plain.txt")
              == "ain", "part")
        sizes = rclone(server, "lsl", "k:rclone-tree/x")
        check("  6000000 " in sizes or " 6000000 " in sizes, sizes)
        rclone(server, "copy", "k:rclone-tree/x", folder / "down")
        rclone(server, "check", folder / "up", folder / "down")


def native_403_deleting_hides_and_versions_stay(server):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f"
        for text in ("one", "three"):
            file.write_text(text)
            rclone(server, "copyto", file, "k:rclone-hide/f")
        rclone(server, "deletefile", "k:rclone-hide/f")
        check(rclone(server, "lsf", "k:rclone-hide").strip() == "", "hidden")
        versions = rclone(server, "lsf", "--b2-versions", "k:rclone-hide").split()
        check(len(versions) == 2, versions)
        rclone(server, "--b2-hard-delete", "copyto", file, "k:rclone-hide/g")
        rclone(server, "--b2-hard-delete", "deletefile", "k:rclone-hide/g")
        check("g" not in rclone(server, "lsf", "--b2-versions", "k:rclone-hide"), "removed")


def transient_faults_are_tried_again(server):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f"
        file.write_text("content")
        for number, rule in enumerate((
                {"operation": "b2_upload_file", "status": 503},
                {"operation": "b2_upload_file", "status": 401},
                {"operation": "b2_get_upload_url", "status": 429},
                {"operation": "b2_list_file_names", "status": 503})):
            server.control("/admin/faults", {**rule, "times": 1})
            rclone(server, "copyto", file, f"k:rclone-faults/{number}", tries=10)
            if rule["operation"] == "b2_list_file_names":
                rclone(server, "lsf", "k:rclone-faults", tries=10)
            check(server.fired() == [1], rule)
        server.control("/admin/faults",
                       {"operation": "b2_download_file_by_id", "status": 503, "times": 1})
        server.control("/admin/faults",
                       {"operation": "b2_download_file_by_name", "status": 503, "times": 1})
        check(rclone(server, "cat", "k:rclone-faults/0", tries=10) == "content", "read")
        check(sum(server.fired()) >= 1, "a download failed once")
        listed = rclone(server, "lsf", "k:rclone-faults").split()
        check(listed == ["0", "1", "2", "3"], listed)


def the_test_mode_of_rclone_works(server):
    """Statement U11 of the users: a sync in failing mode ends with all present."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(40):
            (pathlib.Path(folder) / f"f{number}").write_text(str(number))
        rclone(server, "--b2-test-mode", "fail_some_uploads", "sync", folder, "k:rclone-mode/a",
               "--transfers", "8", tries=10)
        rclone(server, "check", folder, "k:rclone-mode/a")
        said = rclone(server, "-vv", "--b2-test-mode", "expire_some_account_authorization_tokens",
                      "check", folder, "k:rclone-mode/a", tries=10)
        check("0 differences found" in said, said)


def native_358_403_lifecycle_rules_are_set_and_shown(server):
    # Debian's rclone is too old to know this command.
    def lifecycle(*options):
        shown = rclone(server, "backend", "lifecycle", "k:rclone-rules", *options,
                       program=CLIENTS / "rclone")
        return json.loads(shown)

    rclone(server, "mkdir", "k:rclone-rules")
    check(lifecycle() == [], "none at first")
    set_rules = lifecycle("-o", "daysFromHidingToDeleting=3", "-o", "daysFromUploadingToHiding=2",
                          "-o", "daysFromStartingToCancelingUnfinishedLargeFiles=1")
    wanted = {"daysFromHidingToDeleting": 3, "daysFromUploadingToHiding": 2,
              "daysFromStartingToCancelingUnfinishedLargeFiles": 1, "fileNamePrefix": ""}
    check(set_rules == [wanted] and lifecycle() == [wanted], set_rules)
    lifecycle("-o", "daysFromHidingToDeleting=5")
    shown = lifecycle()
    check(shown[0]["daysFromHidingToDeleting"] == 5, shown)
    rclone(server, "--b2-lifecycle", "7", "mkdir", "k:rclone-made", program=CLIENTS / "rclone")
    made = server.call("b2_list_buckets", {"accountId": KEY_ID, "bucketName": "rclone-made"})
    rules = made["buckets"][0]["lifecycleRules"]
    check(len(rules) == 1 and rules[0]["daysFromHidingToDeleting"] == 7, rules)


CHECKS = [
    native_403_a_tree_is_copied_checked_listed_and_read,
    native_403_deleting_hides_and_versions_stay,
    transient_faults_are_tried_again,
    the_test_mode_of_rclone_works,
    native_358_403_lifecycle_rules_are_set_and_shown,
]
