"""Random sequences of acts on kiln and on b2sdk's RawSimulator, which must agree.

    differential.py [--sequences N] [--seed N] [--workers N]

Both start each sequence with two empty buckets. An act that kiln refuses for a reason in LAX is not
put to the simulator, which would do it; everything else is put to both, and both must refuse it or
answer the same. After each sequence both hold the same versions with the same bytes. What is
compared otherwise than literally stands in SHAPES. docs/differential.md explains both tables, and
must name every entry of them.
"""

import argparse
import collections
import hashlib
import http.client
import io
import json
import multiprocessing
import os
import pathlib
import random
import sys
import time
import traceback
import urllib.parse

import b2sdk._internal.raw_simulator as simulator
from b2sdk.v3 import MetadataDirectiveMode
from b2sdk.v3.exception import B2Error

from kiln import KEY, KEY_ID, ROOT, Server, check

ACTS_MAX = 50
NAMES = ["a", "a/1", "a/2", "b", "\u00fc %+"]
PART_BYTES_MIN = 200

# Acts that the simulator does although the service refuses them: (act, kiln's code).
LAX = {
    ("hide", "no_such_file"),
    ("hide", "already_hidden"),
    ("info", "not_found"),
    ("finish", "bad_request"),
    ("finish", "missing_part"),
    ("copy", "bad_request"),
    ("copy_part", "bad_request"),
    ("upload_part", "bad_request"),
    ("list_parts", "bad_request"),
    ("cancel", "bad_request"),
    ("delete_bucket", "cannot_delete_non_empty_bucket"),
}

# What is compared in another way than literally.
SHAPES = [
    "hide-marker-shape", "large-file-sha1", "names-behind-unfinished-files", "replaced-file-info",
    "revision-from-1", "part-list-of-file", "timestamps", "encryption-default", "one-count-of-files",
]


class Refused(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Kiln:
    """One connection to the server, and a session on it."""

    def __init__(self, server):
        place = urllib.parse.urlsplit(server.url)
        self.connection = http.client.HTTPConnection(place.hostname, place.port)
        self.token = server.authorize(KEY_ID, KEY)["authorizationToken"]
        self.upload_urls = {}

    def send(self, method, path, body, headers):
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise Refused(json.loads(content)["code"])
        return content

    def call(self, operation, **fields):
        body = json.dumps(fields).encode()
        return json.loads(self.send(
            "POST", f"/b2api/v4/{operation}", body, {"Authorization": self.token}))

    def upload(self, bucket, name, content, content_type, info):
        if bucket not in self.upload_urls:
            pair = self.call("b2_get_upload_url", bucketId=bucket)
            self.upload_urls[bucket] = (
                urllib.parse.urlsplit(pair["uploadUrl"]).path, pair["authorizationToken"])
        path, token = self.upload_urls[bucket]
        headers = {
            "Authorization": token, "X-Bz-File-Name": urllib.parse.quote(name),
            "Content-Type": content_type, "X-Bz-Content-Sha1": hashlib.sha1(content).hexdigest()}
        headers.update({f"X-Bz-Info-{key}": urllib.parse.quote(info[key]) for key in info})
        return json.loads(self.send("POST", path, content, headers))

    def upload_part(self, file_id, number, content):
        pair = self.call("b2_get_upload_part_url", fileId=file_id)
        return json.loads(self.send(
            "POST", urllib.parse.urlsplit(pair["uploadUrl"]).path, content, {
                "Authorization": pair["authorizationToken"], "X-Bz-Part-Number": str(number),
                "X-Bz-Content-Sha1": hashlib.sha1(content).hexdigest()}))

    def download(self, file_id, wanted):
        headers = {"Authorization": self.token}
        if wanted:
            headers["Range"] = f"bytes={wanted[0]}-{wanted[1]}"
        return self.send(
            "GET", f"/b2api/v4/b2_download_file_by_id?fileId={file_id}", None, headers)


class Simulated:
    """The simulator behind the same few calls."""

    URL = simulator.RawSimulator.API_URL

    def __init__(self):
        self.raw = simulator.RawSimulator()
        key_id, key = self.raw.create_account()
        entered = self.raw.authorize_account("production", key_id, key)
        self.account, self.token = entered["accountId"], entered["authorizationToken"]

    def asked(self, act, *arguments, **named):
        try:
            return getattr(self.raw, act)(self.URL, self.token, *arguments, **named)
        except (B2Error, KeyError, IndexError, AssertionError, TypeError, ValueError) as error:
            raise Refused(type(error).__name__) from error

    def upload(self, bucket, name, content, content_type, info):
        pair = self.asked("get_upload_url", bucket)
        return self.raw.upload_file(
            pair["uploadUrl"], pair["authorizationToken"], name, len(content), content_type,
            hashlib.sha1(content).hexdigest(), info, io.BytesIO(content))

    def upload_part(self, file_id, number, content):
        pair = self.asked("get_upload_part_url", file_id)
        try:
            return self.raw.upload_part(
                pair["uploadUrl"], pair["authorizationToken"], number, len(content),
                hashlib.sha1(content).hexdigest(), io.BytesIO(content))
        except B2Error as error:
            raise Refused(type(error).__name__) from error

    def bucket(self, bucket_id):
        return self.raw.bucket_id_to_bucket[bucket_id]

    def content(self, bucket_id, file_id, wanted):
        data = self.bucket(bucket_id).file_id_to_file[file_id].data_bytes
        return data if not wanted else data[wanted[0]:wanted[1] + 1]


class Sequence:
    """One random sequence on both sides. Files are known by the order in which they were made."""

    def __init__(self, kiln, seed, counts):
        self.dice = random.Random(seed)
        self.kiln, self.simulated, self.counts = kiln, Simulated(), counts
        self.seed, self.at = seed, 0
        self.buckets, self.files, self.revisions = [], [], []
        for number in range(2):
            name = f"differential-{seed}-{number}"
            ours = kiln.call("b2_create_bucket", accountId=KEY_ID, bucketName=name,
                             bucketType="allPrivate")
            theirs = self.simulated.asked(
                "create_bucket", self.simulated.account, name, "allPrivate")
            self.buckets.append((ours["bucketId"], theirs["bucketId"]))
            self.revisions.append(ours["revision"] - theirs["revision"])
        # one-count-of-files: a copy takes its number from the bucket of its source.
        one, two = (self.simulated.bucket(theirs) for _, theirs in self.buckets)
        two.file_id_counter = one.file_id_counter
        two.upload_timestamp_counter = one.upload_timestamp_counter

    def both(self, act, ours, theirs):
        """Puts an act to both sides; answers the two results, None when both refuse."""
        try:
            mine = ours()
        except Refused as refusal:
            self.counts[f"{act}: {refusal.code}"] += 1
            if (act, refusal.code) in LAX:
                return None
            try:
                theirs()
            except Refused:
                return None
            check(False, f"{self.place(act)}: kiln refuses with {refusal.code}, not the simulator")
        try:
            other = theirs()
        except Refused as refusal:
            check(False, f"{self.place(act)}: the simulator refuses with {refusal.code}, not kiln")
        self.counts[act] += 1
        return mine, other

    def place(self, act):
        return f"seed {self.seed}, act {self.at}, {act}"

    def same(self, act, ours, theirs, fields):
        for field in fields:
            mine, other = ours.get(field), theirs.get(field)
            if ours.get("action") == "hide" and field in ("contentType", "contentSha1"):
                continue  # hide-marker-shape
            check(mine == other, f"{self.place(act)}: {field} is {mine!r}, in the simulator {other!r}")

    FILE = ["action", "contentLength", "contentSha1", "contentType", "fileInfo", "fileName"]

    def keep(self, answers, where, act, fields=FILE):
        if answers is None:
            return
        ours, theirs = answers
        self.same(act, ours, theirs, fields)
        self.files.append((where, ours["fileId"], theirs["fileId"], ours["fileName"]))

    def pick(self):
        """A file that was made at some time: it may be gone, or hidden, or unfinished."""
        return self.dice.choice(self.files) if self.files else None

    def pick_unfinished(self):
        """Mostly a file to which parts can be given."""
        unfinished = [
            file for file in self.files
            if (sim := self.simulated_file(file)) is not None and sim.action == "start"]
        if unfinished and self.dice.randrange(8):
            return self.dice.choice(unfinished)
        return self.pick()

    def simulated_file(self, file):
        where, _, theirs, _ = file
        return self.simulated.bucket(self.buckets[where][1]).file_id_to_file.get(theirs)

    def part_body(self):
        return self.dice.randbytes(self.dice.choice([0, 199, 200, 200, 201, 400, 400]))

    def body(self):
        return self.dice.randbytes(self.dice.choice([0, 1, 50, 199, 200, 201, 400]))

    def info(self):
        return {f"k{number}": self.dice.choice(["v", "\u00e9 +%"])
                for number in range(self.dice.randrange(3))}

    def act(self):
        names = ["upload"] * 4 + ["start"] * 2 + ["upload_part"] * 5 + ["finish"] * 3 + [
            "hide", "delete", "info", "copy", "copy", "copy_part", "list_parts", "cancel",
            "download", "unfinished", "update"]
        getattr(self, "do_" + self.dice.choice(names))()

    def do_upload(self):
        where = self.dice.randrange(2)
        ours, theirs = self.buckets[where]
        arguments = (self.dice.choice(NAMES), self.body(), "text/plain", self.info())
        self.keep(self.both(
            "upload", lambda: self.kiln.upload(ours, *arguments),
            lambda: self.simulated.upload(theirs, *arguments)), where, "upload")

    def do_start(self):
        where = self.dice.randrange(2)
        ours, theirs = self.buckets[where]
        name, info = self.dice.choice(NAMES), self.info()
        self.keep(self.both(
            "start", lambda: self.kiln.call(
                "b2_start_large_file", bucketId=ours, fileName=name, contentType="text/plain",
                fileInfo=info),
            lambda: self.simulated.asked("start_large_file", theirs, name, "text/plain", info)),
            where, "start", ["contentType", "fileInfo", "fileName"])

    def do_upload_part(self):
        if (file := self.pick_unfinished()) is None:
            return
        _, ours, theirs, _ = file
        number, body = self.dice.choice([1, 1, 2, 2, 3]), self.part_body()
        answers = self.both(
            "upload_part", lambda: self.kiln.upload_part(ours, number, body),
            lambda: self.simulated.upload_part(theirs, number, body))
        if answers:
            self.same("upload_part", *answers, ["contentLength", "contentSha1", "partNumber"])

    def do_list_parts(self):
        if (file := self.pick_unfinished()) is None:
            return
        _, ours, theirs, _ = file
        start, most = self.dice.choice([None, 1, 2]), self.dice.choice([None, 1, 100])
        answers = self.both(
            "list_parts", lambda: self.kiln.call(
                "b2_list_parts", fileId=ours, startPartNumber=start, maxPartCount=most),
            lambda: self.simulated.asked("list_parts", theirs, start, most))
        if answers:
            mine, other = answers
            self.same("list_parts", mine, other, ["nextPartNumber"])
            check(len(mine["parts"]) == len(other["parts"]), self.place("list_parts"))
            for one, another in zip(mine["parts"], other["parts"]):
                self.same("list_parts", one, another, ["contentLength", "contentSha1", "partNumber"])

    def do_finish(self):
        if (file := self.pick_unfinished()) is None:
            return
        _, ours, theirs, _ = file
        sha1s = [hashlib.sha1(b"").hexdigest()]
        sim = self.simulated_file(file)
        if sim is not None and getattr(sim, "parts", None) and sim.action == "start":
            sha1s = [part.content_sha1 for part in sim.parts if part is not None]
        answers = self.both(
            "finish", lambda: self.kiln.call(
                "b2_finish_large_file", fileId=ours, partSha1Array=sha1s),
            lambda: self.simulated.asked("finish_large_file", theirs, sha1s))
        if answers:
            self.same("finish", *answers, self.FILE)

    def do_cancel(self):
        if (file := self.pick_unfinished()) is None:
            return
        _, ours, theirs, _ = file
        answers = self.both(
            "cancel", lambda: self.kiln.call("b2_cancel_large_file", fileId=ours),
            lambda: self.simulated.asked("cancel_large_file", theirs))
        if answers:
            self.same("cancel", *answers, ["fileName"])

    def do_hide(self):
        where, name = self.dice.randrange(2), self.dice.choice(NAMES)
        ours, theirs = self.buckets[where]
        self.keep(self.both(
            "hide", lambda: self.kiln.call("b2_hide_file", bucketId=ours, fileName=name),
            lambda: self.simulated.asked("hide_file", theirs, name)), where, "hide")

    def do_delete(self):
        if (file := self.pick()) is None:
            return
        _, ours, theirs, name = file
        name = self.dice.choice([name, name, name, "other"])
        answers = self.both(
            "delete", lambda: self.kiln.call("b2_delete_file_version", fileId=ours, fileName=name),
            lambda: self.simulated.asked("delete_file_version", theirs, name))
        if answers:
            self.same("delete", *answers, ["fileName"])

    def do_info(self):
        if (file := self.pick()) is None:
            return
        _, ours, theirs, _ = file
        answers = self.both(
            "info", lambda: self.kiln.call("b2_get_file_info", fileId=ours),
            lambda: self.simulated.asked("get_file_info_by_id", theirs))
        if answers:
            self.same("info", *answers, self.FILE)

    def do_copy(self):
        if (file := self.pick()) is None:
            return
        where, ours, theirs, _ = file
        target = self.dice.choice([where, self.dice.randrange(2)])
        mine, other = self.buckets[target]
        name, wanted = self.dice.choice(NAMES), self.range_of(file)
        fields = {"sourceFileId": ours, "fileName": name, "destinationBucketId": mine}
        named = {"destination_bucket_id": other, "bytes_range": wanted}
        if wanted:
            fields["range"] = f"bytes={wanted[0]}-{wanted[1]}"
        if self.dice.randrange(2):
            info = self.info() or {"only": "one"}  # replaced-file-info
            fields.update(metadataDirective="REPLACE", contentType="text/new", fileInfo=info)
            named.update(metadata_directive=MetadataDirectiveMode.REPLACE, content_type="text/new",
                         file_info=info)
        answers = self.both(
            "copy", lambda: self.kiln.call("b2_copy_file", **fields),
            lambda: self.simulated.asked("copy_file", theirs, name, **named))
        if answers:
            # The simulator does not note in which bucket the copy is.
            self.simulated.raw.file_id_to_bucket_id[answers[1]["fileId"]] = other
        self.keep(answers, target, "copy")

    def range_of(self, file):
        """A range inside the file, which is what clients ask for."""
        sim = self.simulated_file(file)
        size = len(sim.data_bytes or b"") if sim is not None else 0
        if size == 0 or self.dice.randrange(2):
            return None
        first = self.dice.randrange(size)
        return first, self.dice.randrange(first, size)

    def do_copy_part(self):
        source, file = self.pick(), self.pick_unfinished()
        if file is None:
            return
        _, ours, theirs, _ = file
        number, wanted = self.dice.randint(1, 3), self.range_of(source)
        fields = {"sourceFileId": source[1], "largeFileId": ours, "partNumber": number}
        if wanted:
            fields["range"] = f"bytes={wanted[0]}-{wanted[1]}"
        answers = self.both(
            "copy_part", lambda: self.kiln.call("b2_copy_part", **fields),
            lambda: self.simulated.asked(
                "copy_part", source[2], theirs, number, bytes_range=wanted))
        if answers:
            self.same("copy_part", *answers, ["contentLength", "partNumber"])

    def do_download(self):
        if (file := self.pick()) is None:
            return
        where, ours, theirs, _ = file
        sim = self.simulated_file(file)
        if sim is None or sim.action != "upload":
            try:
                self.kiln.download(ours, None)
            except Refused:
                self.counts["download: refused"] += 1
                return
            check(False, f"{self.place('download')}: what is no file was downloaded")
        wanted = self.range_of(file)
        got = self.kiln.download(ours, wanted)
        check(got == self.simulated.content(self.buckets[where][1], theirs, wanted),
              f"{self.place('download')}: other bytes")
        self.counts["download"] += 1

    def do_unfinished(self):
        where = self.dice.randrange(2)
        ours, theirs = self.buckets[where]
        prefix = self.dice.choice([None, "a", "a/"])
        mine = self.kiln.call("b2_list_unfinished_large_files", bucketId=ours, namePrefix=prefix)
        known = {theirs: ours for _, ours, theirs, _ in self.files}
        sims = self.simulated.bucket(theirs).file_id_to_file.values()
        other = sorted(
            (one.name, -int(one.file_id)) for one in sims
            if one.action == "start" and one.name.startswith(prefix or ""))
        listed = [file["fileId"] for file in mine["files"]]
        check(listed == [known[str(-number)] for _, number in other], self.place("unfinished"))
        self.counts["unfinished"] += 1

    def do_update(self):
        where = self.dice.randrange(2)
        ours, theirs = self.buckets[where]
        info, stale = self.info() or {"k": "v"}, self.dice.randrange(4) == 0
        sim = self.simulated.bucket(theirs).revision
        revision = sim - (1 if stale else 0)
        shift = self.revisions[where]  # revision-from-1
        answers = self.both(
            "update", lambda: self.kiln.call(
                "b2_update_bucket", accountId=KEY_ID, bucketId=ours, bucketInfo=info,
                ifRevisionIs=revision + shift),
            lambda: self.simulated.asked(
                "update_bucket", self.simulated.account, theirs, bucket_info=info,
                if_revision_is=revision))
        if answers:
            mine, other = answers
            self.same("update", mine, other, ["bucketInfo", "bucketName", "bucketType"])
            check(mine["revision"] == other["revision"] + shift, self.place("revision"))

    def versions(self, bucket):
        """All versions, fetched in pages of random size."""
        found, place = [], {}
        while True:
            page = self.kiln.call(
                "b2_list_file_versions", bucketId=bucket,
                maxFileCount=self.dice.choice([1, 2, 1000]), **place)
            found.extend(page["files"])
            if page["nextFileName"] is None:
                return found
            place = {"startFileName": page["nextFileName"], "startFileId": page["nextFileId"]}

    def names(self, bucket):
        found, place = [], {}
        while True:
            page = self.kiln.call("b2_list_file_names", bucketId=bucket,
                                  maxFileCount=self.dice.choice([1, 2, 1000]), **place)
            found.extend(page["files"])
            if page["nextFileName"] is None:
                return found
            place = {"startFileName": page["nextFileName"]}

    def compare_all(self):
        known = {theirs: ours for _, ours, theirs, _ in self.files}
        for ours, theirs in self.buckets:
            mine = self.versions(ours)
            sims = self.simulated.bucket(theirs).file_name_and_id_to_file
            other = [sims[key] for key in sorted(sims)]
            check([one["fileId"] for one in mine] == [known[one.file_id] for one in other],
                  f"{self.place('versions')}: other versions or another order")
            for one, another in zip(mine, other):
                self.same("versions", one, another.as_list_files_dict(self.simulated.token),
                          self.FILE)
                if another.action == "upload":
                    got = self.kiln.download(one["fileId"], None)
                    check(got == another.data_bytes, f"{self.place('content')}: other bytes")
            # names-behind-unfinished-files
            shown = {}
            for one in other:
                if one.action != "start":
                    shown.setdefault(one.name, one)
            expected = [known[one.file_id] for one in shown.values() if one.action == "upload"]
            check([one["fileId"] for one in self.names(ours)] == expected,
                  f"{self.place('names')}: other names are shown")

    def run(self):
        for self.at in range(self.dice.randint(1, ACTS_MAX)):
            self.act()
        self.compare_all()
        return self.at + 1


def every_entry_is_explained():
    page = (ROOT / "docs" / "differential.md").read_text()
    for act, code in sorted(LAX):
        check(f"`{act}` | `{code}`" in page, f"docs/differential.md: {act}, {code}")
    for shape in SHAPES:
        check(f"`{shape}`" in page, f"docs/differential.md: {shape}")


def run_share(server, seeds, results):
    """One worker: its own connection, its own seeds."""
    try:
        kiln, counts, acts = Kiln(server), collections.Counter(), 0
        for seed in seeds:
            acts += Sequence(kiln, seed, counts).run()
        results.put((acts, counts, None))
    except Exception:
        results.put((0, collections.Counter(), traceback.format_exc()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first sequence")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    every_entry_is_explained()
    # Only small files may be copied there; the limit of the service is tested elsewhere.
    simulator.BucketSimulator.MAX_SIMPLE_COPY_SIZE = 1_000_000
    server = Server("--limits-part-size-min", str(PART_BYTES_MIN), "--limits-buckets", "1000000",
                    folder="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None)
    counts, acts, started = collections.Counter(), 0, time.monotonic()
    seeds = range(arguments.seed, arguments.seed + arguments.sequences)
    results = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(
            target=run_share, args=(server, seeds[number::arguments.workers], results))
        for number in range(arguments.workers)]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            done, counted, failure = results.get()
            check(failure is None, failure)
            acts += done
            counts += counted
    finally:
        for worker in workers:
            worker.terminate()
        server.stop()
    for act, count in sorted(counts.items()):
        print(f"{act:45} {count}")
    print(f"{arguments.sequences} sequences, {acts} acts, {time.monotonic() - started:.0f} s: "
          "kiln and the simulator agree")
    # Acts that never succeed would prove nothing.
    for act in ("upload", "start", "upload_part", "finish", "cancel", "hide", "delete", "info",
                "copy", "copy_part", "list_parts", "download", "unfinished", "update"):
        check(counts[act] > 0, f"no {act} succeeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
