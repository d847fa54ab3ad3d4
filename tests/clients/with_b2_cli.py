"""The real b2 command line against the built binary."""

import hashlib
import hmac
import json
import pathlib
import tempfile
import time
import urllib.request

import webhook
from kiln import Cli, Server, check


def native_402_buckets_are_made_changed_listed_and_deleted(server):
    b2 = Cli(server)
    b2("bucket", "create", "cli-buckets", "allPrivate", "--bucket-info", '{"a": "b"}')
    b2("bucket", "update", "cli-buckets", "allPublic", "--bucket-info", '{"c": "d"}')
    shown = json.loads(b2("bucket", "get", "cli-buckets"))
    check(shown["bucketType"] == "allPublic" and shown["bucketInfo"] == {"c": "d"}, shown)
    check("cli-buckets" in b2("bucket", "list"), "listed")
    check("already in use" in b2.refused("bucket", "create", "cli-buckets", "allPrivate"), "twice")
    b2("bucket", "delete", "cli-buckets")
    check("cli-buckets" not in b2("bucket", "list"), "gone")


def native_402_cors_rules_read_back_as_they_were_set(server):
    b2 = Cli(server)
    rules = [{"corsRuleName": "rule-one", "allowedOrigins": ["https://*.example.com", "https"],
              "allowedOperations": ["b2_upload_file", "b2_download_file_by_name"],
              "allowedHeaders": ["authorization", "x-bz-*"], "exposeHeaders": None,
              "maxAgeSeconds": 600}]
    b2("bucket", "create", "--cors-rules", json.dumps(rules), "cli-cors", "allPrivate")
    check(json.loads(b2("bucket", "get", "cli-cors"))["corsRules"] == rules, "at creation")
    rules[0]["allowedOrigins"] = ["*"]
    b2("bucket", "update", "--cors-rules", json.dumps(rules), "cli-cors")
    b2("bucket", "update", "--bucket-info", "{}", "cli-cors")
    check(json.loads(b2("bucket", "get", "cli-cors"))["corsRules"] == rules, "by an update")
    rules[0]["maxAgeSeconds"] = 86401
    text = b2.refused("bucket", "update", "--cors-rules", json.dumps(rules), "cli-cors")
    check("maxAgeSeconds" in text, text)
    b2("bucket", "update", "--cors-rules", "[]", "cli-cors")
    check(json.loads(b2("bucket", "get", "cli-cors"))["corsRules"] == [], "cleared")


def native_359_360_402_lifecycle_rules_read_back_and_hide_and_delete(_):
    server = Server()
    try:
        b2 = Cli(server)
        rules = [
            {"daysFromHidingToDeleting": 1, "daysFromUploadingToHiding": None,
             "fileNamePrefix": "documents/"},
            {"daysFromHidingToDeleting": 1, "daysFromUploadingToHiding": 7,
             "daysFromStartingToCancelingUnfinishedLargeFiles": 3, "fileNamePrefix": "temporary/"}]

        def shown():
            return json.loads(b2("bucket", "get", "cli-rules"))["lifecycleRules"]

        b2("bucket", "create", "--lifecycle-rules", json.dumps(rules), "cli-rules", "allPrivate")
        check(shown() == rules, shown())
        b2("bucket", "update", "--lifecycle-rule", json.dumps(rules[1]),
           "--lifecycle-rule", json.dumps(rules[0]), "cli-rules")
        check(shown() == rules[::-1], "in the order given")
        wrong = json.dumps({"daysFromUploadingToHiding": 0, "fileNamePrefix": ""})
        text = b2.refused("bucket", "update", "--lifecycle-rule", wrong, "cli-rules")
        check("daysFromUploadingToHiding" in text, text)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "f"
            for text in ("one", "two"):
                file.write_text(text)
                b2("file", "upload", "cli-rules", file, "documents/f")
            b2("file", "upload", "cli-rules", file, "temporary/f")
        server.control("/admin/clock/advance?ms=86500000")
        server.control("/admin/lifecycle/walk")
        listed = b2("ls", "-r", "--versions", "b2://cli-rules").split()
        check(listed == ["documents/f", "temporary/f"], "the superseded version is gone")
        server.control("/admin/clock/advance?ms=604800000")
        server.control("/admin/lifecycle/walk")
        check(b2("ls", "-r", "b2://cli-rules").split() == ["documents/f"], "hidden")
        server.control("/admin/clock/advance?ms=86500000")
        server.control("/admin/lifecycle/walk")
        check(b2("ls", "-r", "--versions", "b2://cli-rules").split() == ["documents/f"], "deleted")
        b2("bucket", "update", "--lifecycle-rules", "[]", "cli-rules")
        check(shown() == [], "cleared")
    finally:
        server.stop()


def native_402_files_go_up_and_come_down_by_name_by_id_and_in_part(server):
    b2 = Cli(server)
    b2("bucket", "create", "cli-files", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        content = bytes(range(256)) * 8192
        (folder / "up.txt").write_bytes(content)
        b2("file", "upload", "--info", "colour=blue %+", "cli-files", folder / "up.txt",
           "dir/na me+%\u00e9.txt")
        listed = json.loads(b2("ls", "--json", "-r", "b2://cli-files"))
        check(len(listed) == 1, listed)
        file_id = listed[0]["fileId"]
        check(listed[0]["fileInfo"]["colour"] == "blue %+", listed)
        check(listed[0]["contentType"] == "text/plain", listed)
        b2("file", "download", "b2://cli-files/dir/na me+%\u00e9.txt", folder / "by-name")
        b2("file", "download", f"b2id://{file_id}", folder / "by-id")
        check((folder / "by-name").read_bytes() == content, "by name")
        check((folder / "by-id").read_bytes() == content, "by id")
        info = json.loads(b2("file", "info", f"b2id://{file_id}"))
        check(info["contentSha1"] == hashlib.sha1(content).hexdigest(), info)
        token = server.authorize("0123456789ab", "K000MasterOfTheTestHouse0123456")
        request = urllib.request.Request(
            f"{server.url}/b2api/v3/b2_download_file_by_id?fileId={file_id}",
            headers={"Authorization": token["authorizationToken"], "Range": "bytes=5-8"})
        with urllib.request.urlopen(request) as answer:
            check(answer.status == 206 and answer.read() == content[5:9], "range")


def native_402_names_are_hidden_shown_again_and_removed(server):
    b2 = Cli(server)
    b2("bucket", "create", "cli-hiding", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f"
        for text in ("one", "two"):
            file.write_text(text)
            b2("file", "upload", "cli-hiding", file, "a/b/c.txt")
        b2("file", "upload", "cli-hiding", file, "top.txt")
    check(b2("ls", "b2://cli-hiding").split() == ["a/", "top.txt"], "folders")
    check(b2("ls", "-r", "b2://cli-hiding").split() == ["a/b/c.txt", "top.txt"], "recursive")
    check(len(b2("ls", "-r", "--versions", "b2://cli-hiding").splitlines()) == 3, "versions")
    b2("file", "hide", "b2://cli-hiding/a/b/c.txt")
    check("a/" not in b2("ls", "b2://cli-hiding"), "hidden")
    check("already" in b2.refused("file", "hide", "b2://cli-hiding/a/b/c.txt").lower(), "twice")
    b2("file", "unhide", "b2://cli-hiding/a/b/c.txt")
    check("a/" in b2("ls", "b2://cli-hiding"), "shown again")
    b2("rm", "-r", "--versions", "--threads", "4", "b2://cli-hiding")
    check(b2("ls", "-r", "--versions", "b2://cli-hiding").strip() == "", "removed")
    b2("bucket", "delete", "cli-hiding")


def native_402_a_restricted_key_reaches_its_own_and_nothing_else(server):
    b2 = Cli(server)
    for name in ("cli-mine", "cli-theirs"):
        b2("bucket", "create", name, "allPrivate")
    made = b2("key", "create", "--bucket", "cli-mine", "--name-prefix", "in/", "--duration", "3600",
              "restricted", "listBuckets,listFiles,readFiles,writeFiles").split()
    restricted = Cli(server, made[0], made[1])
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f"
        file.write_text("x")
        restricted("file", "upload", "cli-mine", file, "in/f")
        for arguments in (
                ("file", "upload", "cli-mine", file, "out/f"),
                ("file", "upload", "cli-theirs", file, "in/f"),
                ("ls", "b2://cli-theirs"),
                ("bucket", "create", "cli-new-one", "allPrivate"),
                ("key", "list"),
                ("rm", "b2://cli-mine/in/f")):
            text = restricted.refused(*arguments).lower()
            check("unauthorized" in text or "restricted" in text or "not authorized" in text
                  or "application key" in text, f"{arguments}: {text}")
    check(made[0] in b2("key", "list"), "listed")
    b2("key", "delete", made[0])
    check(made[0] not in b2("key", "list"), "deleted")
    check(restricted.run("ls", "b2://cli-mine").returncode != 0, "a deleted key is worth nothing")


def a_download_authorization_opens_what_it_names(server):
    b2 = Cli(server)
    b2("bucket", "create", "cli-shared", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f"
        file.write_text("shared")
        b2("file", "upload", "cli-shared", file, "open/f")
        b2("file", "upload", "cli-shared", file, "closed/f")
    token = b2("bucket", "get-download-auth", "--prefix", "open/", "cli-shared").strip()
    base = f"{server.url}/file/cli-shared"
    with urllib.request.urlopen(f"{base}/open/f?Authorization={token}") as answer:
        check(answer.read() == b"shared", "opened")
    for address in (f"{base}/closed/f?Authorization={token}", f"{base}/open/f"):
        try:
            urllib.request.urlopen(address)
            check(False, "should be refused: " + address)
        except urllib.error.HTTPError as refusal:
            check(refusal.code == 401, refusal.code)
    url = b2("file", "url", "--with-auth", "b2://cli-shared/open/f").strip()
    with urllib.request.urlopen(url) as answer:
        check(answer.read() == b"shared", "file url")


def replication_115_141_to_145_rules_are_set_up_paused_and_shown(server):
    b2 = Cli(server)
    for name in ("cli-source", "cli-copy", "cli-copy-two"):
        b2("bucket", "create", name, "allPrivate")
    b2("replication", "setup", "--name", "first-rule", "cli-source", "cli-copy")
    server.control("/admin/replication/hold")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f"
        file.write_text("carried")
        b2("file", "upload", "--info", "a=b", "cli-source", file, "dir/f.txt")
    check("PENDING" in b2("ls", "-r", "--long", "--replication", "b2://cli-source"), "pending")
    server.control("/admin/replication/release")
    server.drain()
    check("COMPLETED" in b2("ls", "-r", "--long", "--replication", "b2://cli-source"), "completed")
    check("REPLICA" in b2("ls", "-r", "--long", "--replication", "b2://cli-copy"), "replica")
    status = json.loads(b2("replication", "status", "--no-progress", "--output-format", "json",
                           "cli-source"))
    rows = [row for rule in status.values() for row in rule]
    check(len(rows) == 1 and rows[0]["count"] == 1, status)
    check(not rows[0].get("metadata_differs") and not rows[0].get("hash_differs"), status)
    b2("replication", "setup", "--name", "second-rule", "cli-source", "cli-copy-two")

    def rules():
        shown = json.loads(b2("bucket", "get", "cli-source"))["replication"]
        return {rule["replicationRuleName"]: rule
                for rule in shown["asReplicationSource"]["replicationRules"]}

    check({name: rule["priority"] for name, rule in rules().items()}
          == {"first-rule": 128, "second-rule": 133}, rules())
    stale = json.loads(b2("bucket", "get", "cli-source"))
    b2("replication", "pause", "cli-source", "first-rule")
    check(not rules()["first-rule"]["isEnabled"], "paused")
    b2("replication", "unpause", "cli-source", "first-rule")
    check(rules()["first-rule"]["isEnabled"], "unpaused")
    before = rules()
    try:
        server.call("b2_update_bucket", {
            "accountId": stale["accountId"], "bucketId": stale["bucketId"],
            "ifRevisionIs": stale["revision"], "replicationConfiguration": {}})
        check(False, "a change that knows an older revision should be refused")
    except urllib.error.HTTPError as refusal:
        check(refusal.code == 409 and json.load(refusal)["code"] == "conflict", refusal)
    check(rules() == before, "and changes nothing")
    b2("replication", "delete", "cli-source", "second-rule")
    check(list(rules()) == ["first-rule"], rules())
    text = b2.refused("replication", "delete", "cli-source", "first-rule")
    check("replicationRules is empty" in text, text)
    wanted = json.loads(b2("bucket", "get", "cli-source"))["replication"]
    b2("bucket", "update", "--replication", json.dumps(wanted), "cli-source", "allPrivate")
    check(json.loads(b2("bucket", "get", "cli-source"))["replication"] == wanted, "as given")
    b2("bucket", "update", "--replication", "{}", "cli-source", "allPrivate")


def the_last_rule_can_be_deleted_where_that_is_allowed(_):
    server = Server("--replication-accept-empty-rules")
    try:
        b2 = Cli(server)
        for name in ("cli-source", "cli-copy"):
            b2("bucket", "create", name, "allPrivate")
        b2("replication", "setup", "--name", "first-rule", "cli-source", "cli-copy")
        b2("replication", "delete", "cli-source", "first-rule")
        shown = json.loads(b2("bucket", "get", "cli-source"))["replication"]
        check(not shown["asReplicationSource"]["replicationRules"]
              if shown.get("asReplicationSource") else True, shown)
    finally:
        server.stop()


def native_402_a_folder_is_synchronised_both_ways(server):
    b2 = Cli(server)
    b2("bucket", "create", "cli-sync", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for number in range(12):
            place = folder / "up" / f"d{number % 3}" / f"f{number}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(str(number) * number)
        b2("sync", "--no-progress", folder / "up", "b2://cli-sync/x")
        b2("sync", "--no-progress", "b2://cli-sync/x", folder / "down")
        contents = [{str(f.relative_to(folder / side)): f.read_bytes()
                     for f in (folder / side).rglob("*.txt")} for side in ("up", "down")]
        check(len(contents[0]) == 12 and contents[0] == contents[1], "both sides are equal")


def native_371_379_381_notification_rules_are_managed_and_their_events_arrive_over_tls(_):
    hook, server = webhook.Webhook(), Server(*webhook.ARGUMENTS)
    try:
        b2 = Cli(server)
        b2("bucket", "create", "cli-events", "allPrivate")
        uri, secret = "b2://cli-events/in/", "0testSecret000000000000000000032"

        def rule(command, *arguments, at=uri):
            return json.loads(b2("bucket", "notification-rule", command, "--json", *arguments, at,
                                 "first-rule"))

        # Given to "update" the headers make the command line itself fail.
        made = rule("create", "--event-type", "b2:ObjectCreated:*", "--webhook-url", hook.url,
                    "--custom-header", "X-Own=a=b")
        target = {"customHeaders": [{"name": "X-Own", "value": "a=b"}],
                  "hmacSha256SigningSecret": None, "targetType": "webhook", "url": hook.url}
        wanted = {"eventTypes": ["b2:ObjectCreated:*"], "isEnabled": True, "isSuspended": False,
                  "name": "first-rule", "objectNamePrefix": "in/", "suspensionReason": "",
                  "targetConfiguration": target}
        check(made == wanted, made)
        hook.wait_for("b2:TestEvent")
        target.update(hmacSha256SigningSecret=secret)
        changed = rule("update", "--sign-secret", secret)
        check(changed == wanted, changed)
        off = rule("disable", at="b2://cli-events")
        check(off == dict(wanted, isEnabled=False), off)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "f"
            file.write_text("unheard")
            b2("file", "upload", "cli-events", file, "in/unheard")
            check(rule("enable", at="b2://cli-events") == wanted, "enabled")
            file.write_text("heard")
            b2("file", "upload", "cli-events", file, "in/heard")
        event, headers, body = hook.wait_for("b2:ObjectCreated:Upload")
        check(event["objectName"] == "in/heard" and event["objectSize"] == 5, event)
        check(headers["x-own"] == "a=b", headers)
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        check(headers["x-bz-event-notification-signature"] == "v1=" + signature, headers)
        listed = json.loads(b2("bucket", "notification-rule", "list", "--json", "b2://cli-events"))
        check(listed == [wanted], listed)
        for arguments, said in [
            (["--event-type", "b2:ObjectHidden:*", "--webhook-url", hook.url], "Event Type error"),
            (["--event-type", "b2:ObjectCreated:Upload", "--webhook-url", hook.url], "overlap"),
            (["--event-type", "b2:ObjectDeleted:*", "--webhook-url", "http://localhost/"], "https"),
        ]:
            text = b2.refused("bucket", "notification-rule", "create", *arguments, uri, "second-rule")
            check(said in text, text)
        b2("bucket", "notification-rule", "delete", "b2://cli-events", "first-rule")
        listed = json.loads(b2("bucket", "notification-rule", "list", "--json", "b2://cli-events"))
        check(listed == [], listed)
    finally:
        server.stop()
        hook.stop()


def reliability_i11_targets_with_a_wrong_certificate_get_no_events(_):
    hook, elsewhere = webhook.Webhook(), webhook.Webhook("127.0.0.2", "127.0.0.2")
    try:
        for arguments, url in [(["--notifications-allow-private-targets"], hook.url),
                               (webhook.ARGUMENTS, elsewhere.url)]:
            server = Server(*arguments)
            try:
                b2 = Cli(server)
                b2("bucket", "create", "cli-strict", "allPrivate")
                b2("bucket", "notification-rule", "create", "--event-type", "b2:ObjectCreated:*",
                   "--webhook-url", url, "b2://cli-strict", "first-rule")
                deadline = time.monotonic() + 20
                while (error := server.notifications()[0]["error"]) is None:
                    check(time.monotonic() < deadline, "a delivery was tried")
                    time.sleep(0.01)
                check("certificate" in error, error)
            finally:
                server.stop()
        check(not hook.arrived and not elsewhere.arrived, "nothing was sent")
    finally:
        hook.stop()
        elsewhere.stop()


CHECKS = [
    native_402_buckets_are_made_changed_listed_and_deleted,
    native_402_cors_rules_read_back_as_they_were_set,
    native_359_360_402_lifecycle_rules_read_back_and_hide_and_delete,
    native_402_files_go_up_and_come_down_by_name_by_id_and_in_part,
    native_402_names_are_hidden_shown_again_and_removed,
    native_402_a_restricted_key_reaches_its_own_and_nothing_else,
    a_download_authorization_opens_what_it_names,
    replication_115_141_to_145_rules_are_set_up_paused_and_shown,
    the_last_rule_can_be_deleted_where_that_is_allowed,
    native_402_a_folder_is_synchronised_both_ways,
    native_371_379_381_notification_rules_are_managed_and_their_events_arrive_over_tls,
    reliability_i11_targets_with_a_wrong_certificate_get_no_events,
]
