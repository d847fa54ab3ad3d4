"""Object Lock with the real command line and the real library."""

import json
import pathlib
import tempfile
import time

import b2sdk.v3
from b2sdk.v3.exception import (
    AccessDenied, B2Error, DisablingFileLockNotSupported, RetentionWriteError,
    SourceReplicationConflict, Unauthorized)

from kiln import KEY, KEY_ID, Cli, Server, check
from with_b2sdk import api_v3

DAY_MS = 86_400_000
# What b2sdk says of a refusal to write locks, for which only 403 access_denied will do.
NO_WRITE = "Auth token not authorized to write retention or file already in 'compliance' mode"


def now_ms():
    return int(time.time() * 1000)


def upload(b2, bucket, name, *options):
    """Uploads a small file and answers its version as the command line tells it."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f"
        file.write_text(name)
        b2("file", "upload", "--no-progress", *options, bucket, file, name)
    return info(b2, bucket, name)


def info(b2, bucket, name):
    return json.loads(b2("file", "info", f"b2://{bucket}/{name}"))


def by_id(version):
    return f"b2id://{version['fileId']}"


def retention(version):
    shown = version["fileRetention"]
    return shown["mode"], shown["retainUntilTimestamp"]


def remove(b2, version, *options):
    return b2("rm", "--no-progress", *options, by_id(version))


def not_removed(b2, version, *options):
    return b2.refused("rm", "--no-progress", *options, by_id(version))


def limited(server, b2, name, capabilities):
    """The command line with a key that has these capabilities only."""
    key_id, key = b2("key", "create", name, ",".join(capabilities)).split()
    return Cli(server, key_id, key)


def the_command_line_sets_locks_of_buckets(server):
    """Native 333 to 336, 402."""
    b2 = Cli(server)
    shown = lambda name: json.loads(b2("bucket", "get", name))
    b2("bucket", "create", "--file-lock-enabled", "lock-made", "allPrivate")
    check(shown("lock-made")["isFileLockEnabled"] is True, shown("lock-made"))
    b2("bucket", "create", "lock-later", "allPrivate")
    check(shown("lock-later")["isFileLockEnabled"] is False, shown("lock-later"))
    text = b2.refused("bucket", "update", "--default-retention-mode", "governance",
                      "--default-retention-period", "7 days", "lock-later")
    check("The bucket is not file lock enabled (bucket_missing_file_lock)" in text, text)
    b2("bucket", "update", "--file-lock-enabled", "lock-later")
    b2("bucket", "update", "--file-lock-enabled", "lock-later")
    check(shown("lock-later")["isFileLockEnabled"] is True, "twice is once")
    for period, duration, unit in (("7 days", 7, "days"), ("2 years", 2, "years")):
        b2("bucket", "update", "--default-retention-mode", "governance",
           "--default-retention-period", period, "lock-later")
        default = shown("lock-later")["defaultRetention"]
        check(default["mode"] == "governance", default)
        check(default["period"] == {"duration": duration, "unit": unit}, default)
    before = now_ms()
    mode, until = retention(upload(b2, "lock-later", "kept"))
    check(mode == "governance" and until > before + 729 * DAY_MS, (mode, until))
    b2("bucket", "update", "--default-retention-mode", "none", "lock-later")
    check(shown("lock-later")["defaultRetention"]["mode"] is None, shown("lock-later"))
    check(retention(upload(b2, "lock-later", "free")) == (None, None), "no default any more")


def the_command_line_changes_retentions(server):
    """Native 339 to 346, 402."""
    b2 = Cli(server)
    b2("bucket", "create", "--file-lock-enabled", "lock-files", "allPrivate")
    b2("bucket", "create", "lock-none", "allPrivate")
    until = now_ms() + 10 * DAY_MS

    def update(name, mode, at, *options):
        when = [] if at is None else ["--retain-until", at]
        return ["file", "update", "--file-retention-mode", mode, *when, *options,
                f"b2://lock-files/{name}"]

    for mode in ("governance", "compliance"):
        options = ["--file-retention-mode", mode, "--retain-until", until]
        version = upload(b2, "lock-files", mode, *options)
        check(retention(version) == (mode, until), version)
    upload(b2, "lock-none", "f")
    text = b2.refused("file", "update", "--file-retention-mode", "governance", "--retain-until",
                      until, "b2://lock-none/f")
    check("The bucket is not file lock enabled (bucket_missing_file_lock)" in text, text)
    text = b2.refused(*update("governance", "governance", now_ms() - DAY_MS))
    check("retain_until_timestamp_must_be_in_future" in text, text)
    for mode in ("governance", "compliance"):
        b2(*update(mode, mode, until + DAY_MS))
        check(retention(info(b2, "lock-files", mode)) == (mode, until + DAY_MS), "longer")
        check(NO_WRITE in b2.refused(*update(mode, mode, until)), "shorter")
        check(NO_WRITE in b2.refused(*update(mode, "none", None)), "none")
    bypass = "--bypass-governance"
    b2(*update("governance", "governance", until, bypass))
    check(retention(info(b2, "lock-files", "governance")) == ("governance", until), "shorter")
    b2(*update("governance", "none", None, bypass))
    check(retention(info(b2, "lock-files", "governance")) == (None, None), "none")
    for change in (("compliance", until), ("governance", until + 2 * DAY_MS), ("none", None)):
        check(NO_WRITE in b2.refused(*update("compliance", *change, bypass)), change)
    check(retention(info(b2, "lock-files", "compliance")) == ("compliance", until + DAY_MS), "kept")
    b2(*update("governance", "governance", until))
    b2(*update("governance", "compliance", until))
    check(NO_WRITE in b2.refused(*update("governance", "none", None, bypass)), "is compliance now")


def the_command_line_removes_nothing_that_is_locked(server):
    """Native 347, 349, 350, 352, 402."""
    b2 = Cli(server)
    b2("bucket", "create", "--file-lock-enabled", "lock-removal", "allPrivate")
    until = now_ms() + 10 * DAY_MS
    lock = lambda mode: ["--file-retention-mode", mode, "--retain-until", until]
    governed = upload(b2, "lock-removal", "governed", *lock("governance"))
    complied = upload(b2, "lock-removal", "complied", *lock("compliance"))
    held = upload(b2, "lock-removal", "held", "--legal-hold", "on")
    check(held["legalHold"] == "on", held)
    both = upload(b2, "lock-removal", "both", "--legal-hold", "on", *lock("governance"))
    for version in (governed, complied, held, both):
        text = not_removed(b2, version)
        check("Access Denied" in text, text)
        text = b2.refused("delete-file-version", version["fileName"], version["fileId"])
        check("Access Denied" in text, text)
    for version in (complied, held, both):
        text = not_removed(b2, version, "--bypass-governance")
        check("Access Denied" in text, text)
    b2("file", "hide", "b2://lock-removal/complied")
    check("b2://lock-removal/complied" not in b2("ls", "-r", "b2://lock-removal"), "hidden")
    remove(b2, governed, "--bypass-governance")
    for name in ("held", "both"):
        b2("file", "update", "--legal-hold", "off", f"b2://lock-removal/{name}")
    check(info(b2, "lock-removal", "held")["legalHold"] == "off", "lifted")
    remove(b2, held)
    not_removed(b2, both)
    remove(b2, both, "--bypass-governance")
    left = json.loads(b2("ls", "--json", "--versions", "-r", "b2://lock-removal"))
    kept = [version["fileId"] for version in left if version["action"] == "upload"]
    check(kept == [complied["fileId"]], left)
    text = b2.refused("bucket", "delete", "lock-removal")
    check("cannot_delete_non_empty_bucket" in text or "not empty" in text, text)


def rights_to_locks_are_told_apart_by_their_refusals(server):
    """Native 348, 351, 402, as the integration test of the command line has it."""
    b2 = Cli(server)
    b2("bucket", "create", "--file-lock-enabled", "lock-rights", "allPrivate")
    until = now_ms() + 10 * DAY_MS
    lock = ["--file-retention-mode", "governance", "--retain-until", until]
    governed = upload(b2, "lock-rights", "governed", *lock)
    usual = ["listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles"]
    none = limited(server, b2, "no-locks", usual)
    change = ["file", "update", "--file-retention-mode", "governance", "--retain-until",
              until + DAY_MS, "b2://lock-rights/governed"]
    check(NO_WRITE in none.refused(*change), "without the right to write retentions")
    text = none.refused("file", "update", "--legal-hold", "on", "b2://lock-rights/governed")
    check(NO_WRITE in text, text)
    text = not_removed(none, governed)
    check("Access Denied" in text, text)
    unauthorized = "unauthorized for application key with capabilities '"
    text = not_removed(none, governed, "--bypass-governance")
    check(unauthorized in text, text)
    some = limited(server, b2, "no-bypass", usual + ["readFileRetentions", "writeFileRetentions"])
    some(*change)
    shorter = [*change[:-2], until, "b2://lock-rights/governed"]
    check(NO_WRITE in some.refused(*shorter), "without asking for the bypass")
    text = some.refused(*shorter, "--bypass-governance")
    check(unauthorized in text, text)
    check(retention(info(b2, "lock-rights", "governed"))[1] == until + DAY_MS, "unchanged")
    b2(*shorter, "--bypass-governance")
    remove(b2, governed, "--bypass-governance")


def refused(error, call, *arguments, **named):
    """The error of a call that must fail with exactly this class."""
    try:
        call(*arguments, **named)
    except B2Error as raised:
        check(type(raised) is error, f"{type(raised).__name__}: {raised}")
        return raised
    raise AssertionError(f"{error.__name__} was not raised")


def the_library_raises_its_own_errors(server):
    """Native 333, 342 to 349, 354."""
    api = api_v3(server)
    bucket = api.create_bucket("lock-sdk", "allPrivate", is_file_lock_enabled=True)
    shown = api.list_buckets(bucket_name="lock-sdk")[0]
    check(shown.is_file_lock_enabled is True, shown)
    refused(DisablingFileLockNotSupported, bucket.update, is_file_lock_enabled=False)
    setting = lambda mode, until: b2sdk.v3.FileRetentionSetting(mode, until)
    governance, compliance = b2sdk.v3.RetentionMode.GOVERNANCE, b2sdk.v3.RetentionMode.COMPLIANCE
    until = now_ms() + 10 * DAY_MS
    version = bucket.upload_bytes(
        b"kept", "f", file_retention=setting(governance, until), legal_hold=b2sdk.v3.LegalHold.ON)
    check(version.file_retention == setting(governance, until), version.file_retention)
    check(version.legal_hold is b2sdk.v3.LegalHold.ON, version.legal_hold)
    # The answers of both updates are bare.
    answer = api.update_file_legal_hold(version.id_, "f", b2sdk.v3.LegalHold.OFF)
    check(answer is b2sdk.v3.LegalHold.OFF, answer)
    answer = api.update_file_retention(version.id_, "f", setting(governance, until + DAY_MS))
    check(answer == setting(governance, until + DAY_MS), answer)
    refused(RetentionWriteError, api.update_file_retention, version.id_, "f",
            setting(governance, until))
    # b2sdk takes 401 for a lack of rights, and 403 alone for a refusal of access.
    error = refused(Unauthorized, api.delete_file_version, version.id_, "f")
    check(error.code == "access_denied" and not isinstance(error, AccessDenied), error)
    api.update_file_retention(version.id_, "f", setting(compliance, until + DAY_MS))
    refused(RetentionWriteError, api.update_file_retention, version.id_, "f",
            b2sdk.v3.NO_RETENTION_FILE_SETTING, bypass_governance=True)
    refused(Unauthorized, api.delete_file_version, version.id_, "f", bypass_governance=True)
    copied = bucket.copy(version.id_, "copied")
    check(copied.file_retention.mode is b2sdk.v3.RetentionMode.NONE, "locks are not inherited")
    source = api.create_bucket("lock-source", "allPrivate")
    key = api.create_key(["readFiles", "writeFiles"], "lock-replication")
    target = api.create_bucket("lock-target", "allPrivate", replication=(
        b2sdk.v3.ReplicationConfiguration(source_to_destination_key_mapping={key.id_: key.id_})))
    rule = b2sdk.v3.ReplicationRule(destination_bucket_id=target.id_, name="rule-one")
    source.update(replication=b2sdk.v3.ReplicationConfiguration(
        rules=[rule], source_key_id=key.id_))
    refused(SourceReplicationConflict, source.update, is_file_lock_enabled=True)


def locked_versions_outlive_their_rules_and_their_end_frees_them(_):
    """Native 362 and reliability L3."""
    server = Server()
    try:
        b2 = Cli(server)
        rule = {"daysFromHidingToDeleting": 1, "daysFromUploadingToHiding": None,
                "fileNamePrefix": ""}
        b2("bucket", "create", "--file-lock-enabled", "--lifecycle-rule", json.dumps(rule),
           "lock-rules", "allPrivate")
        lock = ["--file-retention-mode", "compliance", "--retain-until", now_ms() + 3 * DAY_MS]
        kept = upload(b2, "lock-rules", "kept", *lock)
        upload(b2, "lock-rules", "free")
        for name in ("kept", "free"):
            b2("file", "hide", f"b2://lock-rules/{name}")

        def day_later():
            # Tokens end after a day.
            server.control(f"/admin/clock/advance?ms={DAY_MS + 60_000}")
            server.control("/admin/lifecycle/walk")
            listed = server.call("b2_list_file_versions", {
                "bucketId": server.call("b2_list_buckets", {
                    "accountId": server.authorize(KEY_ID, KEY)["accountId"],
                    "bucketName": "lock-rules"})["buckets"][0]["bucketId"]})
            return [one["fileId"] for one in listed["files"] if one["action"] == "upload"]

        check(day_later() == [kept["fileId"]], "only what is locked is there")
        check(day_later() == [kept["fileId"]], "and stays")
        check(day_later() == [], "until its retention is over")
    finally:
        server.stop()


CHECKS = [
    the_command_line_sets_locks_of_buckets,
    the_command_line_changes_retentions,
    the_command_line_removes_nothing_that_is_locked,
    rights_to_locks_are_told_apart_by_their_refusals,
    the_library_raises_its_own_errors,
    locked_versions_outlive_their_rules_and_their_end_frees_them,
]
