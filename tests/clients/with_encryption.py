"""Server-side encryption with the real clients, on a server whose parts may be small."""

import base64
import io
import json
import pathlib
import random
import tempfile

import b2sdk.v3
from b2sdk.v3.exception import B2Error, SSECKeyError

from kiln import CLIENTS, Cli, Failed, check
from with_b2sdk import api_v3
from with_rclone import rclone

ARGUMENTS = ["--limits-part-size-min", "100000", "--limits-part-size-recommended", "1000000"]
MARKER = b"kiln-marker-of-readable-content!"
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
SSE_B2 = {"mode": "SSE-B2", "algorithm": "AES256"}
NONE = {"mode": None, "algorithm": None}


def b64(key):
    return base64.b64encode(key).decode()


def nothing_readable(server):
    """No file of the data folder holds the marker."""
    for path in (server.folder / "data").rglob("*"):
        check(not path.is_file() or MARKER not in path.read_bytes(), f"readable in {path}")


def command_line(server, **variables):
    b2 = Cli(server)
    b2.environment.update(variables)
    return b2


def the_command_line_sets_and_clears_the_default_of_a_bucket(server):
    b2 = Cli(server)
    shown = lambda: json.loads(b2("bucket", "get", "sse-default"))["defaultServerSideEncryption"]
    b2("bucket", "create", "--default-server-side-encryption", "SSE-B2", "sse-default",
       "allPrivate")
    check(shown()["mode"] == "SSE-B2", shown())
    with tempfile.TemporaryDirectory() as folder:
        up, down = pathlib.Path(folder) / "up", pathlib.Path(folder) / "down"
        up.write_bytes(MARKER * 100_000)
        b2("file", "upload", "sse-default", up, "f")
        listed = json.loads(b2("ls", "--json", "b2://sse-default"))
        check(listed[0]["serverSideEncryption"] == SSE_B2, listed)
        b2("file", "download", "b2://sse-default/f", down)
        check(down.read_bytes() == up.read_bytes(), "whole")
    b2("bucket", "create", "sse-plain", "allPrivate")
    b2("bucket", "update", "--default-server-side-encryption", "SSE-B2", "sse-plain")
    plain = json.loads(b2("bucket", "get", "sse-plain"))["defaultServerSideEncryption"]
    check(plain["mode"] == "SSE-B2", plain)
    nothing_readable(server)


def the_command_line_uploads_copies_and_reads_with_keys(server):
    """As Backblaze's own integration test of SSE-C does, and SSE-B2 beside it."""
    b2 = command_line(
        server, B2_DESTINATION_SSE_C_KEY_B64=b64(KEY), B2_DESTINATION_SSE_C_KEY_ID="my-key")
    right = command_line(server, B2_SOURCE_SSE_C_KEY_B64=b64(KEY))
    wrong = command_line(server, B2_SOURCE_SSE_C_KEY_B64=b64(OTHER))
    moved = command_line(
        server, B2_SOURCE_SSE_C_KEY_B64=b64(KEY), B2_DESTINATION_SSE_C_KEY_B64=b64(OTHER),
        B2_DESTINATION_SSE_C_KEY_ID="other-key")
    b2("bucket", "create", "sse-cli", "allPrivate")
    into, source = "--destination-server-side-encryption", "--source-server-side-encryption"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, content in (("small", MARKER * 3), ("large", MARKER * 100_000)):
            up, down = folder / name, folder / "down"
            up.write_bytes(content)
            b2("file", "upload", into, "SSE-C", "sse-cli", up, name)
            b2("file", "upload", into, "SSE-B2", "sse-cli", up, f"{name}-b2")
            info = json.loads(b2("file", "info", f"b2://sse-cli/{name}-b2"))
            check(info["serverSideEncryption"] == SSE_B2, info)
            read = lambda cli, path: cli("file", "download", source, "SSE-C", path, down)
            read(right, f"b2://sse-cli/{name}")
            check(down.read_bytes() == content, name)
            text = b2.refused("file", "download", f"b2://sse-cli/{name}", down)
            check("correct parameters must be provided to retrieve the object" in text, text)
            text = wrong.refused("file", "download", source, "SSE-C", f"b2://sse-cli/{name}", down)
            check("ERROR: Wrong or no SSE-C key provided" in text, text)
            listed = json.loads(b2("ls", "--json", "--versions", f"b2://sse-cli/{name}"))
            version = f"b2id://{listed[0]['fileId']}"
            check(listed[0]["serverSideEncryption"]["mode"] == "SSE-C", listed)
            check(listed[0]["fileInfo"]["sse_c_key_id"] == "my-key", listed)

            text = right.refused("file", "server-side-copy", version, f"b2://sse-cli/{name}-x")
            check("correct parameters must be provided to retrieve the object" in text, text)
            text = wrong.refused(
                "file", "server-side-copy", source, "SSE-C", into, "SSE-B2", "--no-info",
                "--content-type", "text/plain", version, f"b2://sse-cli/{name}-x")
            check("Wrong or no SSE-C key provided" in text, text)
            moved("file", "server-side-copy", "--fetch-metadata", source, "SSE-C", into, "SSE-C",
                  version, f"b2://sse-cli/{name}-other")
            other = command_line(server, B2_SOURCE_SSE_C_KEY_B64=b64(OTHER))
            read(other, f"b2://sse-cli/{name}-other")
            check(down.read_bytes() == content, f"{name}, under another key")
            right("file", "server-side-copy", source, "SSE-C", into, "SSE-B2", "--no-info",
                  "--content-type", "text/plain", version, f"b2://sse-cli/{name}-moved")
            right("file", "server-side-copy", "--range", "5,70", source, "SSE-C", into, "SSE-B2",
                  "--no-info", "--content-type", "text/plain", version, f"b2://sse-cli/{name}-cut")
            b2("file", "download", f"b2://sse-cli/{name}-moved", down)
            check(down.read_bytes() == content, f"{name}, under a key of the server")
            b2("file", "download", f"b2://sse-cli/{name}-cut", down)
            check(down.read_bytes() == content[5:71], f"{name}, a part of it")
        nothing_readable(server)
        # Tells that the check above can fail.
        right("file", "server-side-copy", source, "SSE-C", "--no-info", "--content-type",
              "text/plain", version, "b2://sse-cli/plain")
        try:
            nothing_readable(server)
            check(False, "what is not encrypted is readable")
        except Failed as error:
            check("readable in" in str(error), error)
        for listed in json.loads(b2("ls", "--json", "--versions", "-r", "b2://sse-cli")):
            b2("rm", f"b2id://{listed['fileId']}")


def the_command_line_synchronises_with_keys(server):
    b2 = command_line(
        server, B2_DESTINATION_SSE_C_KEY_B64=b64(KEY), B2_DESTINATION_SSE_C_KEY_ID="sync-key",
        B2_SOURCE_SSE_C_KEY_B64=b64(KEY))
    b2("bucket", "create", "sse-sync", "allPrivate")
    with tempfile.TemporaryDirectory() as folder:
        up, down = pathlib.Path(folder) / "up", pathlib.Path(folder) / "down"
        up.mkdir(), down.mkdir()
        for number in range(4):
            (up / f"f{number}").write_bytes(MARKER * 10 ** number)
        b2("sync", "--no-progress", "--destination-server-side-encryption", "SSE-C", up,
           "b2://sse-sync/up")
        b2("sync", "--no-progress", "--source-server-side-encryption", "SSE-C",
           "b2://sse-sync/up", down)
        for path in up.iterdir():
            check((down / path.name).read_bytes() == path.read_bytes(), path.name)
        b2("sync", "--no-progress", "--source-server-side-encryption", "SSE-C",
           "--destination-server-side-encryption", "SSE-C", "b2://sse-sync/up",
           "b2://sse-sync/twin")
        check(len(b2("ls", "-r", "b2://sse-sync/twin").split()) == 4, "from bucket to bucket")


def customer(key):
    return b2sdk.v3.EncryptionSetting(
        b2sdk.v3.EncryptionMode.SSE_C, b2sdk.v3.EncryptionAlgorithm.AES256,
        b2sdk.v3.EncryptionKey(secret=key, key_id=None))


def the_library_sends_large_files_under_a_key(server):
    """Native 269 with the real client: parts, copies of parts, ranges, an interrupted upload."""
    api = api_v3(server)
    bucket = api.create_bucket("sse-sdk", "allPrivate")
    content = random.Random(1).randbytes(6_400_001)
    key, other = customer(KEY), customer(OTHER)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "up"
        path.write_bytes(content)
        version = bucket.upload_local_file(path, "large", encryption=key)
        info = server.call("b2_get_file_info", {"fileId": version.id_})
        check(info["contentSha1"] == "none", "it was sent in parts")
        check(version.server_side_encryption.mode == b2sdk.v3.EncryptionMode.SSE_C, version)

    def read(name, encryption, **more):
        into = io.BytesIO()
        bucket.download_file_by_name(name, encryption=encryption, **more).save(into)
        return into.getvalue()

    check(read("large", key) == content, "whole")
    check(read("large", key, range_=(999_990, 1_000_010)) == content[999_990:1_000_011], "part")
    for encryption in (other, None):
        try:
            read("large", encryption)
            check(False, "should be refused")
        except SSECKeyError:
            pass
        except B2Error as error:
            check(encryption is None, error)
    joined = bucket.concatenate([
        b2sdk.v3.CopySource(version.id_, offset=10, length=2_000_000, encryption=key),
        b2sdk.v3.UploadSourceBytes(content[:1_000_000]),
    ], "joined", encryption=other, recommended_upload_part_size=1_000_000)
    wanted = content[10:2_000_010] + content[:1_000_000]
    check(joined.size == len(wanted) and read("joined", other) == wanted, "joined")
    copied = bucket.copy(version.id_, "copied", source_encryption=key, destination_encryption=None,
                         file_info={}, content_type="b2/x-auto")
    check(read("copied", None) == content, copied)
    stored = bucket.upload_bytes(
        content, "managed", encryption=b2sdk.v3.EncryptionSetting(
            b2sdk.v3.EncryptionMode.SSE_B2, b2sdk.v3.EncryptionAlgorithm.AES256))
    check(stored.server_side_encryption.mode == b2sdk.v3.EncryptionMode.SSE_B2, stored)
    check(read("managed", None) == content, "managed")
    shown = bucket.get_file_info_by_name("managed")
    check(shown.server_side_encryption.mode == b2sdk.v3.EncryptionMode.SSE_B2, shown)


def rclone_uses_a_customer_key(server):
    """The options of SSE-C came after the release that most systems have."""
    program = CLIENTS / "rclone"
    keyed = ["--b2-sse-customer-algorithm", "AES256", "--b2-sse-customer-key-base64", b64(KEY),
             "--b2-upload-cutoff", "5M", "--b2-chunk-size", "5M"]

    def run(*arguments):
        return rclone(server, *keyed, *arguments, program=program)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "up").mkdir()
        (folder / "up" / "small").write_bytes(MARKER)
        (folder / "up" / "big").write_bytes(MARKER * 400_000)
        run("copy", folder / "up", "k:rclone-sse/x")
        run("check", "--download", folder / "up", "k:rclone-sse/x")
        run("copy", "k:rclone-sse/x", "k:rclone-sse/y")
        run("check", "--download", folder / "up", "k:rclone-sse/y")
        check(run("cat", "--offset", "3", "--count", "4", "k:rclone-sse/x/small") ==
              MARKER[3:7].decode(), "part")
        refused = ""
        try:
            rclone(server, "copy", "k:rclone-sse/x", folder / "down", program=program)
        except Failed as error:
            refused = str(error)
        check("Failed to copy with 2 errors" in refused, "without the key: " + refused)
        check(not (folder / "down").exists(), "no byte without the key")


CHECKS = [
    the_command_line_sets_and_clears_the_default_of_a_bucket,
    the_command_line_uploads_copies_and_reads_with_keys,
    the_command_line_synchronises_with_keys,
    the_library_sends_large_files_under_a_key,
    rclone_uses_a_customer_key,
]
