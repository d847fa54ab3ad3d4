"""Large files, copies and sync with the real clients, on a server whose parts may be small."""

import hashlib
import io
import json
import pathlib
import random
import tempfile
import urllib.request

import b2sdk.v3
from b2sdk.v3.exception import B2Error

from kiln import CLIENTS, Cli, KEY_ID, check
from with_b2sdk import api_v3
from with_rclone import rclone

ARGUMENTS = ["--limits-part-size-min", "100000", "--limits-part-size-recommended", "1000000"]


def noise(size, seed):
    return random.Random(seed).randbytes(size)


def native_402_the_command_line_uploads_parts_copies_and_reads_them_back(server):
    b2 = Cli(server)
    b2("bucket", "create", "large-cli", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        content = noise(5_300_007, 1)
        (folder / "up").write_bytes(content)
        b2("file", "upload", "--threads", "5", "--sha1", hashlib.sha1(content).hexdigest(),
           "large-cli", folder / "up", "big.bin")
        listed = json.loads(b2("ls", "--json", "-r", "b2://large-cli"))
        check(listed[0]["contentSha1"] == "none" and listed[0]["size"] == len(content), listed)
        b2("file", "download", "--threads", "4", "b2://large-cli/big.bin", folder / "down")
        check((folder / "down").read_bytes() == content, "whole")
        b2("file", "server-side-copy", f"b2id://{listed[0]['fileId']}", "b2://large-cli/copy.bin")
        b2("file", "download", "b2://large-cli/copy.bin", folder / "copied")
        check((folder / "copied").read_bytes() == content, "copied")
        b2("file", "server-side-copy", "--range", "1000,2000999",
           f"b2id://{listed[0]['fileId']}", "b2://large-cli/part.bin")
        b2("file", "download", "b2://large-cli/part.bin", folder / "part")
        check((folder / "part").read_bytes() == content[1000:2001000], "a part of it")


def unfinished_files_are_listed_and_canceled(server):
    b2 = Cli(server)
    b2("bucket", "create", "large-unfinished", "allPrivate")
    api = api_v3(server)
    bucket = api.get_bucket_by_name("large-unfinished")
    for name in ("one", "two"):
        api.session.start_large_file(bucket.id_, name, "text/plain", {})
    listed = b2("file", "large", "unfinished", "list", "b2://large-unfinished").split("\n")
    check(len([line for line in listed if line]) == 2, listed)
    file_id = listed[0].split()[0]
    b2("file", "large", "parts", f"b2id://{file_id}")
    b2("file", "large", "unfinished", "cancel", f"b2id://{file_id}")
    b2("file", "large", "unfinished", "cancel", "b2://large-unfinished")
    check(b2("file", "large", "unfinished", "list", "b2://large-unfinished").strip() == "", "none")


def native_406_an_interrupted_upload_goes_on_with_the_parts_that_are_there(server):
    api = api_v3(server)
    bucket = api.create_bucket("large-resume", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "up"
        content = noise(4_000_000, 2)
        path.write_bytes(content)
        started = api.session.start_large_file(
            bucket.id_, "resumed", "application/octet-stream", {
                "large_file_sha1": hashlib.sha1(content).hexdigest()})
        pair = api.session.get_upload_part_url(started["fileId"])
        part = content[1_000_000:2_000_000]
        api.raw_api.upload_part(
            pair["uploadUrl"], pair["authorizationToken"], 2, len(part),
            hashlib.sha1(part).hexdigest(), io.BytesIO(part))
        version = bucket.upload_local_file(
            path, "resumed", content_type="application/octet-stream",
            sha1_sum=hashlib.sha1(content).hexdigest())
        check(version.id_ == started["fileId"], "the same large file was finished")
        read = io.BytesIO()
        bucket.download_file_by_name("resumed").save(read)
        check(read.getvalue() == content, "whole")
        check(not list(bucket.list_unfinished_large_files()), "nothing is left")


def many_parts_are_sent_at_once_and_concatenated_with_copies(server):
    api = api_v3(server)
    bucket = api.create_bucket("large-many", "allPrivate")
    content = noise(6_000_001, 3)
    version = bucket.upload_bytes(content, "source")
    joined = bucket.concatenate([
        b2sdk.v3.CopySource(version.id_, offset=100, length=3_000_000),
        b2sdk.v3.UploadSourceBytes(content[:1_500_000]),
        b2sdk.v3.CopySource(version.id_, offset=5_000_000, length=1_000_001),
    ], "joined")
    read = io.BytesIO()
    bucket.download_file_by_id(joined.id_).save(read)
    expected = content[100:3_000_100] + content[:1_500_000] + content[5_000_000:]
    check(read.getvalue() == expected, "joined")
    for first, last in ((0, 0), (2_999_990, 3_000_010), (4_499_999, 5_400_000)):
        part = io.BytesIO()
        bucket.download_file_by_id(joined.id_, range_=(first, last)).save(part)
        check(part.getvalue() == expected[first:last + 1], (first, last))
    try:
        bucket.concatenate([b2sdk.v3.CopySource(version.id_, offset=6_000_001, length=1_000_000)],
                           "beyond")
        check(False, "bytes beyond the end cannot be copied")
    except B2Error:
        pass


def trees_are_synced_both_ways_with_versions(server):
    b2 = Cli(server)
    b2("bucket", "create", "sync-bucket", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        up, down = folder / "up", folder / "down"
        (up / "dir").mkdir(parents=True)
        down.mkdir()
        (up / "dir" / "a").write_text("one")
        (up / "b").write_bytes(noise(2_300_000, 4))
        b2("sync", up, "b2://sync-bucket/tree")
        (up / "dir" / "a").write_text("second")
        (up / "dir" / "c").write_text("new")
        (up / "b").unlink()
        b2("sync", "--keep-days", "10", up, "b2://sync-bucket/tree")
        names = b2("ls", "-r", "b2://sync-bucket").split()
        check(sorted(names) == ["tree/dir/a", "tree/dir/c"], names)
        versions = json.loads(b2("ls", "--json", "-r", "--versions", "b2://sync-bucket"))
        check(len(versions) == 5, versions)
        b2("sync", "b2://sync-bucket/tree", down)
        check((down / "dir" / "a").read_text() == "second", "down")
        check(not (down / "b").exists(), "what is hidden stays away")
        b2("sync", "--delete", up, "b2://sync-bucket/tree")
        b2("sync", "b2://sync-bucket/tree", "b2://sync-bucket/twin")
        check(len(b2("ls", "-r", "b2://sync-bucket/twin").split()) == 2, "from bucket to bucket")


def native_403_rclone_sends_chunks_copies_on_the_server_cleans_up_and_links(server):
    for number, program in enumerate(("rclone", CLIENTS / "rclone")):
        rclone_round(server, program, f"rclone-large-{number}")


def rclone_round(server, program, name):
    chunks = ["--b2-upload-cutoff", "5M", "--b2-chunk-size", "5M"]

    def run(*arguments):
        return rclone(server, *chunks, *arguments, program=program)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "up").mkdir()
        (folder / "up" / "big").write_bytes(noise(11_000_000, 5))
        (folder / "up" / "small").write_bytes(b"small")
        run("sync", folder / "up", f"k:{name}/x")
        run("check", "--download", folder / "up", f"k:{name}/x")
        run("copy", f"k:{name}/x", f"k:{name}/y")
        run("check", f"k:{name}/x", f"k:{name}/y")
        # Above the cut-off the copy is made of parts.
        run("--b2-copy-cutoff", "5M", "copy", f"k:{name}/x", f"k:{name}/z")
        run("check", "--download", folder / "up", f"k:{name}/z")
        (folder / "up" / "small").unlink()
        run("sync", folder / "up", f"k:{name}/x")
        check(run("lsf", f"k:{name}/x").split() == ["big"], "synced away")
        bucket = server.call(
            "b2_list_buckets", {"accountId": KEY_ID, "bucketName": name})["buckets"][0]["bucketId"]
        server.call("b2_start_large_file", {
            "bucketId": bucket, "fileName": "x/stale", "contentType": "text/plain"})
        # What was begun within the last day may still be in use, so rclone leaves it.
        run("cleanup", f"k:{name}")
        versions = server.call("b2_list_file_versions", {
            "bucketId": bucket, "maxFileCount": 1000})["files"]
        check([one["action"] for one in versions].count("hide") == 0, versions)
        link = run("link", "--expire", "60s", f"k:{name}/x/big").strip()
        with urllib.request.urlopen(link.split("\n")[-1]) as answer:
            check(len(answer.read()) == 11_000_000, "linked")
        run("--b2-hard-delete", "purge", f"k:{name}")


def replicas_of_large_files_are_whole(server):
    api = api_v3(server)
    cli = Cli(server)
    source = api.create_bucket("large-origin", "allPrivate")
    replica = api.create_bucket("large-replica", "allPrivate")
    cli("replication", "setup", "large-origin", "large-replica")
    content = noise(2_500_000, 6)
    version = source.upload_bytes(content, "big")
    server.drain()
    info = api.get_file_info(version.id_)
    check(str(info.replication_status.value).lower() == "completed", info.replication_status)
    read = io.BytesIO()
    found = next(iter(replica.ls()))[0]
    check(str(found.replication_status.value).lower() == "replica", found)
    check(found.content_sha1 is None or found.content_sha1 == "none", found.content_sha1)
    replica.download_file_by_name("big").save(read)
    check(read.getvalue() == content, "whole")


CHECKS = [
    native_402_the_command_line_uploads_parts_copies_and_reads_them_back,
    unfinished_files_are_listed_and_canceled,
    native_406_an_interrupted_upload_goes_on_with_the_parts_that_are_there,
    many_parts_are_sent_at_once_and_concatenated_with_copies,
    trees_are_synced_both_ways_with_versions,
    native_403_rclone_sends_chunks_copies_on_the_server_cleans_up_and_links,
    replicas_of_large_files_are_whole,
]
