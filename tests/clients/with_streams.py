"""Remotes and replication streams with the requests of the influx command line, and with our own.

That command line comes as a Go program only, which none of the registries that the tests use has. What
it sends is known from its source: these requests are those, header by header and field by field, and
the answers are read as strictly as its generated types read them.
"""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request

from kiln import BINARY, KEY, KEY_ID, check

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


CHECKS = [
    replication_147_the_requests_of_the_influx_command_line_are_answered,
    what_one_command_line_makes_the_other_shows,
]
