"""Remotes and replication streams with the requests of the influx command line, and with our own.

That command line comes as a Go program only, which none of the registries that the tests use has. What
it sends is known from its source: these requests are those, header by header and field by field, and
the answers are read as strictly as its generated types read them.
"""

import hashlib
import hmac
import json
import random
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import boto3

from kiln import BINARY, CLIENTS, KEY, KEY_ID, ROOT, Server, check

ORG = KEY_ID.rjust(16, "0")


class Influx:
    """What `influx remote` and `influx replication` send to a server."""

    # The fields that its types require, and the type of each field that it knows.
    REMOTE = {"id": str, "name": str, "orgID": str, "remoteURL": str, "allowInsecureTLS": bool}
    REMOTE_MORE = {"description": str, "remoteOrgID": (str, type(None))}
    REPLICATION = {"id": str, "name": str, "orgID": str, "remoteID": str, "localBucketID": str,
                   "maxQueueSizeBytes": int, "currentQueueSizeBytes": int}
    REPLICATION_MORE = {"description": str, "remoteBucketID": (str, type(None)),
                        "RemoteBucketName": str, "remainingBytesToBeSynced": int,
                        "latestResponseCode": int, "latestErrorMessage": str,
                        "dropNonRetryableData": bool, "maxAgeSeconds": int}

    def __init__(self, server, token=f"{KEY_ID}:{KEY}"):
        self.host, self.token = server.admin, token

    def send(self, method, path, query=None, body=None):
        """One request; answers the status and what its decoder would be given."""
        url = self.host + "/api/v2" + path
        if query:
            url += "?" + urllib.parse.urlencode(sorted(query.items()))
        headers = {"Accept": "application/json", "Authorization": f"Token {self.token}",
                   "User-Agent": "influx/2.7.5 (linux) Sha/a79a2a1b82 Date/2024-04-16"}
        data = None
        if body is not None:
            # Its encoder ends each body with a line feed.
            data = json.dumps(body, separators=(",", ":")).encode() + b"\n"
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, self.decode(answer)
        except urllib.error.HTTPError as answer:
            said = self.decode(answer)
            check(isinstance(said["code"], str) and isinstance(said["message"], str), f"{said}")
            return answer.code, said

    @staticmethod
    def decode(answer):
        text = answer.read()
        if answer.status == 204:
            check(text == b"", "204 has no body")
            return None
        # It looks for `application/json` with or without what follows.
        check(answer.headers["Content-Type"].startswith("application/json"), "type of the answer")
        return json.loads(text)

    def ok(self, method, path, query=None, body=None, status=200):
        code, answer = self.send(method, path, query, body)
        check(code == status, f"{method} {path}: {code} {answer}")
        return answer

    def org_of(self, name):
        """`--org NAME`: what it does when it is given no id."""
        found = self.ok("GET", "/orgs", {"org": name})["orgs"]
        check(len(found) == 1, f"{found}")
        return found[0]["id"]

    @staticmethod
    def typed(value, required, more):
        for name, kind in required.items():
            check(type(value[name]) is kind, f"{name} of {value}")
        for name, kind in more.items():
            check(name not in value or isinstance(value[name], kind), f"{name} of {value}")
        return value

    def remote(self, value):
        return self.typed(value, self.REMOTE, self.REMOTE_MORE)

    def replication(self, value):
        return self.typed(value, self.REPLICATION, self.REPLICATION_MORE)


def bucket(server, name):
    made = server.call("b2_create_bucket", {
        "accountId": KEY_ID, "bucketName": name, "bucketType": "allPrivate"})
    return made["bucketId"]


def replication_147_the_requests_of_the_influx_command_line_are_answered(server):
    influx = Influx(server)
    local = bucket(server, "influx-local")
    check(influx.org_of(KEY_ID) == ORG, "--org NAME finds the account")
    check(influx.send("GET", "/orgs", {"org": "nobody"})[0] == 404, "and no other")

    # influx remote create, list, update
    made = influx.remote(influx.ok("POST", "/remotes", body={
        "name": "offsite", "orgID": ORG, "remoteURL": "http://127.0.0.1:9",
        "remoteAPIToken": "id:secret", "remoteOrgID": "0123456789abcdef",
        "allowInsecureTLS": False, "description": "by influx"}, status=201))
    check("secret" not in json.dumps(made), "the token is in no answer")
    second = influx.remote(influx.ok("POST", "/remotes", body={
        "name": "second", "orgID": ORG, "remoteURL": "http://127.0.0.1:9",
        "remoteAPIToken": "id:secret", "allowInsecureTLS": True}, status=201))
    listed = influx.ok("GET", "/remotes", {"orgID": ORG})["remotes"]
    check({influx.remote(one)["id"] for one in listed} == {made["id"], second["id"]}, "listed")
    listed = influx.ok("GET", "/remotes", {"orgID": ORG, "name": "second"})["remotes"]
    check([one["id"] for one in listed] == [second["id"]], "listed by name")
    path = f"/remotes/{made['id']}"
    changed = influx.remote(influx.ok("PATCH", path, body={"name": "renamed"}))
    check(changed["name"] == "renamed" and changed["description"] == "by influx", "updated")

    # influx replication create, list, update; flags that are not given have their defaults in it.
    first = influx.replication(influx.ok("POST", "/replications", body={
        "name": "stream", "orgID": ORG, "remoteID": made["id"], "localBucketID": local,
        "remoteBucketName": "copies", "maxQueueSizeBytes": 67108860, "maxAgeSeconds": 604800,
        "dropNonRetryableData": True}, status=201))
    check(first["RemoteBucketName"] == "copies" and first["remoteBucketID"] is None, f"{first}")
    by_id = influx.replication(influx.ok("POST", "/replications", body={
        "name": "by id", "orgID": ORG, "remoteID": made["id"], "localBucketID": local,
        "remoteBucketID": "4a48fe8875c6214145260818", "maxQueueSizeBytes": 67108860,
        "maxAgeSeconds": 604800}, status=201))
    check(by_id["remoteBucketID"] == "4a48fe8875c6214145260818", f"{by_id}")
    query = {"orgID": ORG, "remoteID": made["id"], "localBucketID": local}
    listed = influx.ok("GET", "/replications", query)["replications"]
    check([influx.replication(one)["name"] for one in listed] == ["stream", "by id"], "listed")
    path = f"/replications/{first['id']}"
    changed = influx.replication(influx.ok("PATCH", path, body={
        "remoteBucketID": "4a48fe8875c6214145260818", "maxAgeSeconds": 60}))
    check((changed["maxAgeSeconds"], changed["RemoteBucketName"]) == (60, ""), f"{changed}")

    # influx replication delete asks for it first; influx remote delete with and without
    # --delete-replications.
    influx.replication(influx.ok("GET", path))
    influx.ok("DELETE", path, status=204)
    status, said = influx.send("DELETE", f"/remotes/{made['id']}")
    check((status, said["code"]) == (422, "conflict"), f"{status} {said}")
    used = influx.ok("GET", "/replications", {"orgID": ORG, "remoteID": made["id"]})["replications"]
    check([one["id"] for one in used] == [by_id["id"]], "what uses it")
    influx.ok("DELETE", f"/replications/{by_id['id']}", status=204)
    for remote in (made, second):
        influx.remote(influx.ok("GET", f"/remotes/{remote['id']}"))
        influx.ok("DELETE", f"/remotes/{remote['id']}", status=204)
    check(influx.ok("GET", "/remotes", {"orgID": ORG})["remotes"] == [], "none is left")
    check(influx.send("GET", f"/remotes/{made['id']}")[0] == 404, "gone")


def kiln(server, *arguments, token="id:secret"):
    ended = subprocess.run(
        [BINARY, *arguments, "--json", "--data-dir", server.folder / "data"],
        env={"KILN_MASTER_KEY_ID": KEY_ID, "KILN_MASTER_KEY": KEY, "KILN_REMOTE_API_TOKEN": token},
        capture_output=True, text=True, timeout=60)
    check(ended.returncode == 0, f"kiln {' '.join(arguments)}: {ended.stderr}")
    return json.loads(ended.stdout)


def what_one_command_line_makes_the_other_shows(server):
    local = bucket(server, "both-lines")
    influx = Influx(server)
    remote = kiln(server, "remote", "create", "--name", "ours", "--remote-url", "http://127.0.0.1:9")
    stream = kiln(server, "replication", "create", "--name", "ours", "--remote-id", remote["id"],
                  "--local-bucket", "both-lines", "--remote-bucket", "copies")
    check(stream["localBucketID"] == local, "a bucket by its name")
    check(influx.ok("GET", f"/remotes/{remote['id']}") == remote, "remote")
    check(influx.ok("GET", f"/replications/{stream['id']}") == stream, "stream")
    influx.ok("PATCH", f"/replications/{stream['id']}", body={"name": "theirs"})
    listed = kiln(server, "replication", "list")["replications"]
    check([one["name"] for one in listed] == ["theirs"], f"{listed}")
    kiln(server, "remote", "delete", "--id", remote["id"], "--delete-replications")
    check(influx.ok("GET", "/replications", {"orgID": ORG})["replications"] == [], "deleted")


def upload(server, token, bucket_id, name, body):
    """Uploads with the answer read to its end; raises when the server went away meanwhile."""
    address = server.call("b2_get_upload_url", {"bucketId": bucket_id}, token)
    request = urllib.request.Request(address["uploadUrl"], data=body, headers={
        "Authorization": address["authorizationToken"], "X-Bz-File-Name": name,
        "Content-Type": "text/plain", "X-Bz-Content-Sha1": hashlib.sha1(body).hexdigest()})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def versions(server, bucket_id):
    found, start = [], {}
    while True:
        page = server.call("b2_list_file_versions", {
            "bucketId": bucket_id, "maxFileCount": 1000, **start})
        found += page["files"]
        if page["nextFileName"] is None:
            return found
        start = {"startFileName": page["nextFileName"], "startFileId": page["nextFileId"]}


def replication_203_204_209_two_kilns_that_are_killed_lose_and_double_nothing(_):
    killed_amid_a_stream("peer")


def replication_203_205_209_a_b2_that_is_killed_is_looked_through_and_gets_nothing_twice(_):
    killed_amid_a_stream("b2")


def killed_amid_a_stream(kind):
    server, far = Server(), Server("--replication-accept-peers")
    try:
        chance = random.Random(204)
        local, there = bucket(server, "killed-here"), bucket(far, "killed-there")
        influx = Influx(server)
        remote = influx.ok("POST", "/remotes", body={
            "name": "far", "orgID": ORG, "remoteURL": f"{kind}+{far.url}", "allowInsecureTLS": False,
            "remoteAPIToken": f"{KEY_ID}:{KEY}", "multipartThresholdBytes": 6000000,
            "partSizeBytes": 5000000}, status=201)
        stream = influx.ok("POST", "/replications", body={
            "name": "killed", "orgID": ORG, "remoteID": remote["id"], "localBucketID": local,
            "remoteBucketID": there, "maxQueueSizeBytes": 67108860, "maxAgeSeconds": 604800},
            status=201)
        acknowledged = {}
        number = 0
        for kill in range(12):
            token = server.authorize(KEY_ID, KEY)["authorizationToken"]
            for _ in range(chance.randrange(20, 60)):
                number += 1
                size = 11000000 if number % 97 == 0 else chance.randrange(40000)
                body = number.to_bytes(4, "big") * (size // 4)
                name = f"f{number % 400:03}"
                made = upload(server, token, local, name, body)
                acknowledged[made["fileId"]] = (name, made["contentSha1"], made["uploadTimestamp"])
            if kill % 2:
                far.kill()
            else:
                server.kill()
            influx.host = server.admin
            influx.ok("PATCH", f"/remotes/{remote['id']}", body={"remoteURL": f"{kind}+{far.url}"})
        deadline = time.monotonic() + 60
        while True:
            shown = influx.ok("GET", f"/replications/{stream['id']}")
            if shown["remainingBytesToBeSynced"] == 0:
                break
            check(time.monotonic() < deadline, f"it never gets through: {shown}")
            # Waits of jobs that were lost with their worker are cut short.
            server.control("/admin/clock/advance?ms=300000")
            time.sleep(0.2)
        check(shown["currentQueueSizeBytes"] == 0, f"{shown}")
        def time_of(one):
            # Where the time is not kept, it is among the file infos.
            marked = one["fileInfo"].get("src_upload_millis")
            return one["uploadTimestamp"] if marked is None else int(marked)

        def sha1_of(one):
            # What goes to B2 in parts has its checksum there, too.
            return one["fileInfo"].get("large_file_sha1", one["contentSha1"])

        arrived = sorted((one["fileName"], sha1_of(one), time_of(one))
                         for one in versions(far, there))
        check(arrived == sorted(acknowledged.values()),
              f"{len(arrived)} arrived of {len(acknowledged)}")
        kept = versions(server, local)
        check({one["fileId"] for one in kept} == set(acknowledged), "and all are here")
        check(all(one["replicationStatus"] is None for one in kept), "streams say nothing of files")
        unfinished = far.call("b2_list_unfinished_large_files", {"bucketId": there})["files"]
        check(unfinished == [], "nothing is left unfinished there")
        difference = influx.ok("GET", f"/replications/{stream['id']}/diff")
        check(difference["differences"] == [], f"{difference}")
    finally:
        server.stop()
        far.stop()


class Moto:
    """An S3 server that is not ours, in memory."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [CLIENTS / "python", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            except OSError:
                check(self.process.poll() is None, "moto ended at once")
                check(time.monotonic() < deadline, "moto is not ready in time")
                time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def replication_98_113_161_224_another_s3_server_gets_files_whole_and_in_parts(_):
    server, far = Server(), Moto()
    try:
        s3 = boto3.client("s3", endpoint_url=far.url, aws_access_key_id="x",
                          aws_secret_access_key="y", region_name="us-east-1")
        s3.create_bucket(Bucket="far-files")
        influx, local = Influx(server), bucket(server, "to-another-s3")
        token = server.authorize(KEY_ID, KEY)["authorizationToken"]
        remote = influx.ok("POST", "/remotes", body={
            "name": "moto", "orgID": ORG, "remoteURL": f"s3+{far.url}?region=us-east-1",
            "remoteAPIToken": "x:y", "allowInsecureTLS": False,
            "multipartThresholdBytes": 6000000, "partSizeBytes": 5242880}, status=201)
        wanted = {"name": "to s3", "orgID": ORG, "remoteID": remote["id"], "localBucketID": local,
                  "remoteBucketName": "far-files", "maxQueueSizeBytes": 67108860,
                  "maxAgeSeconds": 604800}
        influx.ok("POST", "/replications", {"validate": "true"}, wanted, status=204)
        missing = influx.send("POST", "/replications", {"validate": "true"},
                              {**wanted, "remoteBucketName": "not-there"})
        check(missing[0] == 400, f"{missing}")
        check("Contents" not in s3.list_objects_v2(Bucket="far-files"), "a try leaves nothing")
        stream = influx.ok("POST", "/replications", body=wanted, status=201)
        files = {f"dir/file {size} \u00e9+%": b"x" * size for size in (0, 1, 5000, 100000)}
        files["big"] = b"0123456789" * 1500000
        for name, body in files.items():
            upload(server, token, local, urllib.parse.quote(name), body)
        server.drain()
        for name, body in files.items():
            there = s3.get_object(Bucket="far-files", Key=name)
            check(there["Body"].read() == body, f"{name} is what it is here")
            check(there["ContentType"] == "text/plain", f"{there}")
        check("-" in there["ETag"], "the big one went in parts")
        check("Uploads" not in s3.list_multipart_uploads(Bucket="far-files"), "all are finished")
        shown = influx.ok("GET", f"/replications/{stream['id']}")
        check((shown["remainingBytesToBeSynced"], shown["latestResponseCode"]) == (0, 200), f"{shown}")
        s3.delete_object(Bucket="far-files", Key="big")
        difference = influx.ok("GET", f"/replications/{stream['id']}/diff")["differences"]
        check([one["fileName"] for one in difference] == ["big"], f"{difference}")
        influx.ok("POST", f"/replications/{stream['id']}/resync", body={})
        server.drain()
        check(s3.get_object(Bucket="far-files", Key="big")["Body"].read() == files["big"], "again")
    finally:
        server.stop()
        far.stop()


class Processor:
    """The program that docs/streams.md gives as an example."""

    def __init__(self, server, results):
        self.secret = "0123456789abcdefghijklmnopqrstuv"
        self.process = subprocess.Popen(
            [CLIENTS / "python", "-B", ROOT / "docs" / "processor.py", "0", results],
            env={"KILN_ENDPOINT": server.url, "B2_APPLICATION_KEY_ID": KEY_ID,
                 "B2_APPLICATION_KEY": KEY, "SIGNING_SECRET": self.secret},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/"

    def post(self, body):
        """Sends what a webhook is sent; answers the status."""
        digest = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(self.url, data=body, headers={
            "X-Bz-Event-Notification-Signature": f"v1={digest}"})
        with urllib.request.urlopen(request) as answer:
            return answer.status

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


def processed_files_are_carried_and_what_they_were_made_of_is_not(_):
    near = Server("--notifications-allow-http", "--notifications-allow-private-targets")
    far, processor = Server("--replication-accept-peers"), None
    try:
        raw, results = bucket(near, "raw-files"), bucket(near, "processed")
        there = bucket(far, "all-results")
        processor = Processor(near, "processed")
        influx = Influx(near)
        remote = influx.ok("POST", "/remotes", body={
            "name": "far", "orgID": ORG, "remoteURL": f"peer+{far.url}", "allowInsecureTLS": False,
            "remoteAPIToken": f"{KEY_ID}:{KEY}"}, status=201)
        influx.ok("POST", "/replications", body={
            "name": "results", "orgID": ORG, "remoteID": remote["id"], "localBucketID": results,
            "remoteBucketName": "all-results", "maxQueueSizeBytes": 67108860,
            "maxAgeSeconds": 604800}, status=201)
        near.call("b2_set_bucket_notification_rules", {
            "bucketId": raw, "eventNotificationRules": [{
                "eventTypes": ["b2:ObjectCreated:*"], "isEnabled": True, "name": "made-rule",
                "objectNamePrefix": "logs/", "targetConfiguration": {
                    "targetType": "webhook", "url": processor.url,
                    "hmacSha256SigningSecret": processor.secret}}]})
        lines = [f"line {number}\n".encode() for number in range(100)]
        token = near.authorize(KEY_ID, KEY)["authorizationToken"]
        made = upload(near, token, raw, "logs/day", b"".join(lines))
        upload(near, token, raw, "private", b"stays here")
        deadline = time.monotonic() + 20
        while not versions(far, there):
            check(time.monotonic() < deadline, f"a result arrives: {near.notifications()}")
            time.sleep(0.02)
        [result] = versions(far, there)
        check(result["fileName"] == f"logs/day.{made['fileId']}", f"{result}")
        digest = hashlib.sha1(b"".join(lines[::10])).hexdigest()
        check(result["contentSha1"] == digest, "each tenth line")
        # The event once more, as it comes when its answer was lost.
        event = {"eventType": "b2:ObjectCreated:Upload", "objectName": "logs/day",
                 "objectVersionId": made["fileId"]}
        check(processor.post(json.dumps({"events": [event]}).encode()) == 200, "taken again")
        near.drain()
        check(versions(far, there) == [result], "and nothing is made of it")
        check(len(versions(near, results)) == 1, "here neither")
    finally:
        if processor is not None:
            processor.stop()
        far.stop()
        near.stop()


CHECKS = [
    processed_files_are_carried_and_what_they_were_made_of_is_not,
    replication_98_113_161_224_another_s3_server_gets_files_whole_and_in_parts,
    replication_203_204_209_two_kilns_that_are_killed_lose_and_double_nothing,
    replication_203_205_209_a_b2_that_is_killed_is_looked_through_and_gets_nothing_twice,
    replication_147_the_requests_of_the_influx_command_line_are_answered,
    what_one_command_line_makes_the_other_shows,
]
