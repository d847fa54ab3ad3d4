"""aws, s3cmd, rclone, restic and the SDK of MinIO: what each writes is read with b2sdk, and back."""

import io
import json
import os
import pathlib
import subprocess
import tempfile

from minio import Minio
from minio.commonconfig import CopySource

from kiln import CLIENTS, Server, check
from s3 import REGION, answers, client, keys_of, native_bucket, raw
from with_b2sdk import api_v3

MIB = 1024 * 1024


def run(environment, *command, ok=True):
    # What other programs of this machine are told about AWS is not for these.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                           env={**ours, **environment}, timeout=300)
    check((ended.returncode == 0) == ok,
          f"{command}: {ended.stdout[-800:]} {ended.stderr[-1500:]}")
    return ended.stdout


def credentials(server):
    key_id, secret = keys_of(server)
    return {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": REGION, "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_PAGER": ""}


def tree(folder):
    """A folder with files of several sizes and names; answers their contents."""
    made = {}
    for name, size in (("plain.txt", 10), ("sub/with space", 1000), ("sub/deeper/\u00fcml+\u00e4ut", 5),
                       ("empty", 0), ("twelve-megabytes", 12_000_000)):
        place = pathlib.Path(folder) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        made[name] = os.urandom(size)
        place.write_bytes(made[name])
    return made


def same(folder, wanted):
    folder = pathlib.Path(folder)
    found = {str(path.relative_to(folder)): path.read_bytes()
             for path in folder.rglob("*") if path.is_file()}
    check(found == wanted, sorted(found))


def natively(server, bucket, prefix, wanted):
    """What b2sdk reads below a prefix."""
    found = {}
    for version, _ in api_v3(server).get_bucket_by_name(bucket).ls(prefix, recursive=True):
        down = io.BytesIO()
        version.api.download_file_by_id(version.id_).save(down)
        found[version.file_name.removeprefix(prefix)] = down.getvalue()
    check(found == wanted, sorted(found))


def upload_natively(server, bucket, prefix, wanted):
    target = api_v3(server).get_bucket_by_name(bucket)
    for name, content in wanted.items():
        target.upload_bytes(content, prefix + name)


def s3_164_aws_cli(server):
    aws = lambda *arguments, **more: run(
        credentials(server), CLIENTS / "aws", "--endpoint-url", server.url, *arguments, **more)
    api = lambda *arguments: json.loads(aws("s3api", *arguments) or "{}")
    aws("s3", "mb", "s3://with-aws-cli")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        wanted = tree(folder / "up")
        aws("s3", "sync", folder / "up", "s3://with-aws-cli/t", "--metadata", "a=b")
        check(aws("s3", "sync", folder / "up", "s3://with-aws-cli/t").strip() == "", "nothing more")
        natively(server, "with-aws-cli", "t/", wanted)
        aws("s3", "cp", "--recursive", "s3://with-aws-cli/t", folder / "down")
        same(folder / "down", wanted)
        listed = aws("s3", "ls", "--recursive", "s3://with-aws-cli/t/")
        check("12000000 t/twelve-megabytes" in listed, listed)
        (folder / "big").write_bytes(os.urandom(64 * MIB))
        aws("s3", "cp", folder / "big", "s3://with-aws-cli/big")
        head = api("head-object", "--bucket", "with-aws-cli", "--key", "big")
        check(head["ETag"].endswith('-8"'), head)
        aws("s3", "cp", "s3://with-aws-cli/big", folder / "big-down")
        check((folder / "big-down").read_bytes() == (folder / "big").read_bytes(), "64 MiB")
        aws("s3", "mv", "s3://with-aws-cli/t/plain.txt", "s3://with-aws-cli/moved")
        address = aws("s3", "presign", "s3://with-aws-cli/t/empty").strip()
        answers(raw(server, "GET", address.removeprefix(server.url), signed=False), 200)
        upload_natively(server, "with-aws-cli", "n/", wanted)
        aws("s3", "sync", "s3://with-aws-cli/n", folder / "native")
        same(folder / "native", wanted)
    versions = api("list-object-versions", "--bucket", "with-aws-cli", "--prefix", "t/plain.txt")
    check(len(versions["DeleteMarkers"]) == 1 and len(versions["Versions"]) == 1, versions)
    aws("s3", "rm", "--recursive", "s3://with-aws-cli")
    check(aws("s3", "ls", "s3://with-aws-cli").strip() == "", "all hidden")
    check("BucketNotEmpty" in run(credentials(server), "bash", "-c",
          f"{CLIENTS / 'aws'} --endpoint-url {server.url} s3 rb s3://with-aws-cli 2>&1 || true"),
          "versions are left")


def s3_164_aws_cli_makes_each_call(server):
    aws = lambda *arguments: run(
        credentials(server), CLIENTS / "aws", "--endpoint-url", server.url, "s3api", *arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "f").write_bytes(b"content")
        at = ("--bucket", "with-aws-calls")
        k = (*at, "--key", "k")
        aws("create-bucket", *at, "--object-lock-enabled-for-bucket")
        aws("list-buckets")
        aws("head-bucket", *at)
        aws("get-bucket-location", *at)
        aws("get-bucket-versioning", *at)
        aws("put-bucket-acl", *at, "--acl", "private")
        aws("get-bucket-acl", *at)
        rules = '{"CORSRules":[{"AllowedMethods":["GET"],"AllowedOrigins":["*"]}]}'
        aws("put-bucket-cors", *at, "--cors-configuration", rules)
        aws("get-bucket-cors", *at)
        aws("delete-bucket-cors", *at)
        sse = '{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}]}'
        aws("put-bucket-encryption", *at, "--server-side-encryption-configuration", sse)
        aws("get-bucket-encryption", *at)
        aws("delete-bucket-encryption", *at)
        lock = '{"ObjectLockEnabled":"Enabled"}'
        aws("put-object-lock-configuration", *at, "--object-lock-configuration", lock)
        aws("get-object-lock-configuration", *at)
        life = ('{"Rules":[{"ID":"r","Status":"Enabled","Filter":{"Prefix":"x/"},'
                '"NoncurrentVersionExpiration":{"NoncurrentDays":1}}]}')
        aws("put-bucket-lifecycle-configuration", *at, "--lifecycle-configuration", life)
        aws("get-bucket-lifecycle-configuration", *at)
        aws("delete-bucket-lifecycle", *at)
        logs = '{"LoggingEnabled":{"TargetBucket":"with-aws-calls","TargetPrefix":"l/"}}'
        aws("put-bucket-logging", *at, "--bucket-logging-status", logs)
        aws("get-bucket-logging", *at)
        stored = json.loads(aws("put-object", *k, "--body", folder / "f"))
        aws("get-object", *k, folder / "got")
        check((folder / "got").read_bytes() == b"content", "content")
        aws("head-object", *k)
        aws("get-object-acl", *k)
        aws("put-object-acl", *k, "--acl", "private")
        until = "2099-01-01T00:00:00Z"
        aws("put-object-retention", *k, "--retention",
            '{"Mode":"GOVERNANCE","RetainUntilDate":"%s"}' % until)
        aws("get-object-retention", *k)
        aws("put-object-legal-hold", *k, "--legal-hold", "Status=ON")
        aws("get-object-legal-hold", *k)
        aws("put-object-legal-hold", *k, "--legal-hold", "Status=OFF")
        aws("copy-object", *at, "--key", "c", "--copy-source", "with-aws-calls/k")
        aws("list-objects", *at)
        aws("list-objects-v2", *at)
        aws("list-object-versions", *at)
        upload = json.loads(aws("create-multipart-upload", *at, "--key", "m"))["UploadId"]
        m = (*at, "--key", "m", "--upload-id", upload)
        aws("list-multipart-uploads", *at)
        part = json.loads(aws("upload-part", *m, "--part-number", 2, "--body", folder / "f"))
        aws("upload-part-copy", *m, "--part-number", 1, "--copy-source", "with-aws-calls/k")
        aws("list-parts", *m)
        aws("complete-multipart-upload", *m, "--multipart-upload",
            json.dumps({"Parts": [{"PartNumber": 2, "ETag": part["ETag"]}]}))
        upload = json.loads(aws("create-multipart-upload", *at, "--key", "m"))["UploadId"]
        aws("abort-multipart-upload", *at, "--key", "m", "--upload-id", upload)
        aws("delete-object", *k, "--version-id", stored["VersionId"],
            "--bypass-governance-retention")
        aws("delete-objects", *at, "--delete", '{"Objects":[{"Key":"c"},{"Key":"m"}]}')
        listed = json.loads(aws("list-object-versions", *at))
        doomed = [{"Key": one["Key"], "VersionId": one["VersionId"]}
                  for kind in ("Versions", "DeleteMarkers") for one in listed.get(kind, [])]
        aws("delete-objects", *at, "--delete", json.dumps({"Objects": doomed}))
        aws("delete-bucket", *at)


def s3_166_s3cmd(server):
    key_id, secret = keys_of(server)
    address = server.url.removeprefix("http://")
    s3cmd = lambda *arguments: run(
        {}, CLIENTS / "s3cmd", "--config", "/dev/null", "--access_key", key_id, "--secret_key", secret,
        "--host", address, "--host-bucket", address, "--no-ssl", "--region", REGION,
        "--no-progress", *arguments)
    s3cmd("mb", "s3://with-s3cmd")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        wanted = tree(folder / "up")
        s3cmd("put", folder / "up" / "plain.txt", "s3://with-s3cmd/one")
        s3cmd("get", "s3://with-s3cmd/one", folder / "one")
        check((folder / "one").read_bytes() == wanted["plain.txt"], "one")
        s3cmd("sync", "--multipart-chunk-size-mb=5", f"{folder / 'up'}/", "s3://with-s3cmd/t/")
        natively(server, "with-s3cmd", "t/", wanted)
        again = s3cmd("sync", f"{folder / 'up'}/", "s3://with-s3cmd/t/")
        check("upload:" not in again, again)
        s3cmd("sync", "s3://with-s3cmd/t/", f"{folder / 'down'}/")
        same(folder / "down", wanted)
        s3cmd("cp", "s3://with-s3cmd/t/plain.txt", "s3://with-s3cmd/copied")
        s3cmd("mv", "s3://with-s3cmd/copied", "s3://with-s3cmd/moved")
        upload_natively(server, "with-s3cmd", "n/", {"a b": b"x", "c": b""})
        listed = s3cmd("ls", "s3://with-s3cmd/n/")
        check("s3://with-s3cmd/n/a b" in listed, listed)
        s3cmd("info", "s3://with-s3cmd/moved")
    s3cmd("del", "--recursive", "--force", "s3://with-s3cmd")
    check(s3cmd("ls", "s3://with-s3cmd").strip() == "", "hidden")


def rclone(server, *arguments, program=CLIENTS / "rclone"):
    key_id, secret = keys_of(server)
    return run({
        "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_S_TYPE": "s3",
        "RCLONE_CONFIG_S_PROVIDER": "Other", "RCLONE_CONFIG_S_ENDPOINT": server.url,
        "RCLONE_CONFIG_S_REGION": REGION, "RCLONE_CONFIG_S_ACCESS_KEY_ID": key_id,
        "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": secret}, program, "--retries", "1", *arguments)


def s3_166_rclone(server):
    for program in ("rclone", CLIENTS / "rclone"):
        bucket = f"with-rclone-s3-{'new' if program != 'rclone' else 'old'}"
        go = lambda *arguments: rclone(server, *arguments, program=program)
        go("mkdir", f"s:{bucket}")
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            wanted = tree(folder / "up")
            go("sync", "--s3-upload-cutoff", "6M", "--s3-chunk-size", "5M", folder / "up",
               f"s:{bucket}/t")
            go("check", folder / "up", f"s:{bucket}/t")
            go("check", "--download", folder / "up", f"s:{bucket}/t")
            natively(server, bucket, "t/", wanted)
            go("copy", f"s:{bucket}/t", folder / "down")
            same(folder / "down", wanted)
            go("copyto", f"s:{bucket}/t/plain.txt", f"s:{bucket}/copied")
            upload_natively(server, bucket, "n/", {"x/y": b"1", "z": b"22"})
            listed = json.loads(go("lsjson", "-R", "--files-only", f"s:{bucket}/n"))
            check([(one["Path"], one["Size"]) for one in sorted(listed, key=lambda o: o["Path"])]
                  == [("x/y", 1), ("z", 2)], listed)
            (folder / "up" / "plain.txt").write_bytes(b"changed")
            go("sync", folder / "up", f"s:{bucket}/t")
            versions = go("lsf", "--s3-versions", f"s:{bucket}/t").split()
            check(sum(name.startswith("plain") for name in versions) == 2, versions)
            go("purge", f"s:{bucket}/t")
            check(go("lsf", f"s:{bucket}/t").strip() == "", "hidden")


def s3_166_restic(server):
    client(server).create_bucket(Bucket="with-restic")
    environment = {**credentials(server), "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": "/dev/null",
                   "RESTIC_REPOSITORY": f"s3:{server.url}/with-restic"}
    restic = lambda *arguments: run(environment, "restic", "--no-cache", *arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        wanted = tree(folder / "up")
        restic("init")
        restic("backup", folder / "up")
        (folder / "up" / "plain.txt").unlink()
        restic("backup", folder / "up")
        restic("check", "--read-data")
        restic("forget", "--keep-last", "1", "--prune")
        restic("check", "--read-data")
        restic("restore", "latest", "--target", folder / "down")
        wanted.pop("plain.txt")
        same(next((folder / "down").rglob("up")), wanted)
    names = [version.file_name for version, _ in
             api_v3(server).get_bucket_by_name("with-restic").ls("", recursive=True)]
    check("config" in names and any(name.startswith("data/") for name in names), names)


def s3_165_the_sdk_of_minio(server):
    key_id, secret = keys_of(server)
    sdk = Minio(server.url.removeprefix("http://"), access_key=key_id, secret_key=secret,
                secure=False, region=REGION)
    sdk.make_bucket("with-minio-sdk")
    check(sdk.bucket_exists("with-minio-sdk") and not sdk.bucket_exists("with-minio-none"), "exists")
    wanted = {"small": b"small", "dir/\u00fc x": b"", "big": os.urandom(12 * MIB)}
    for name, content in wanted.items():
        sdk.put_object("with-minio-sdk", "t/" + name, io.BytesIO(content), len(content),
                       part_size=5 * MIB, metadata={"a": "b"})
    natively(server, "with-minio-sdk", "t/", wanted)
    sdk.put_object("with-minio-sdk", "stream", io.BytesIO(b"y" * (6 * MIB)), -1, part_size=5 * MIB)
    for name, content in wanted.items():
        answer = sdk.get_object("with-minio-sdk", "t/" + name)
        check(answer.read() == content, name)
        answer.close()
        check(sdk.stat_object("with-minio-sdk", "t/" + name).metadata["x-amz-meta-a"] == "b", name)
    sdk.copy_object("with-minio-sdk", "copied", CopySource("with-minio-sdk", "t/small"))
    upload_natively(server, "with-minio-sdk", "n/", {"x": b"1"})
    names = [one.object_name for one in sdk.list_objects("with-minio-sdk", recursive=True)]
    check(names == ["copied", "n/x", "stream", "t/big", "t/dir/\u00fc x", "t/small"], names)
    folders = [one.object_name for one in sdk.list_objects("with-minio-sdk", prefix="t/")]
    check(folders == ["t/dir/", "t/big", "t/small"] or sorted(folders)
          == ["t/big", "t/dir/", "t/small"], folders)
    answers(raw(server, "GET", sdk.presigned_get_object("with-minio-sdk", "t/small").removeprefix(
        server.url), signed=False), 200)
    sdk.remove_object("with-minio-sdk", "copied")
    check(not list(sdk.list_objects("with-minio-sdk", prefix="copied")), "hidden")


def s3_23_buckets_have_host_names(_):
    server = Server("--s3-domain", "s3.us-west-000.localhost,localhost")
    try:
        port = server.url.rsplit(":", 1)[1]
        s3 = client(server)
        s3.create_bucket(Bucket="hosted-bucket")
        host = f"hosted-bucket.s3.us-west-000.localhost:{port}"
        for key in ("k", "b2api/v4/b2_list_buckets", "file/x"):
            answers(raw(server, "PUT", f"/{key}", body=key.encode(), host=host), 200)
            got = answers(raw(server, "GET", f"/{key}", host=host), 200)
            check(got.content == key.encode(), key)
            check(s3.get_object(Bucket="hosted-bucket", Key=key)["Body"].read() == key.encode(), key)
        listed = answers(raw(server, "GET", "/?list-type=2", host=host), 200)
        check("<Name>hosted-bucket</Name>" in listed.text, listed.text)
        answers(raw(server, "GET", "/hosted-bucket/k", host=f"s3.us-west-000.localhost:{port}"), 200)
        answers(raw(server, "GET", "/", host=f"hosted-bucket.localhost:{port}"), 200)
        answers(raw(server, "GET", "/k", host=f"hosted-nothing.localhost:{port}"), 404, "NoSuchBucket")
        check(native_bucket(server, "hosted-bucket"), "the Native API is where it was")
    finally:
        server.stop()


def s3_85_the_extended_profile_writes_on_conditions(_):
    import concurrent.futures
    server = Server("--s3-profile", "extended", "--limits-part-size-min", "1")
    try:
        s3 = client(server)
        s3.create_bucket(Bucket="extended-one")
        at = {"Bucket": "extended-one", "Key": "k"}
        from s3 import refused
        stored = s3.put_object(**at, Body=b"one", IfNoneMatch="*")
        refused("PreconditionFailed", 412, s3.put_object, **at, Body=b"two", IfNoneMatch="*")
        refused("PreconditionFailed", 412, s3.put_object, **at, Body=b"two", IfMatch='"x"')
        refused("NoSuchKey", 404, s3.put_object, Bucket="extended-one", Key="n", Body=b"",
                IfMatch='"x"')
        s3.put_object(**at, Body=b"two", IfMatch=stored["ETag"])
        check(s3.get_object(**at)["Body"].read() == b"two", "changed")
        upload = s3.create_multipart_upload(**at)["UploadId"]
        tag = s3.upload_part(**at, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
        done = {**at, "UploadId": upload,
                "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": tag}]}}
        refused("PreconditionFailed", 412, s3.complete_multipart_upload, **done, IfNoneMatch="*")
        s3.delete_object(**at)

        def race(number):
            try:
                return client(server).put_object(**at, Body=b"%d" % number, IfNoneMatch="*")
            except Exception as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            won = [one for one in pool.map(race, range(8)) if one != 412]
        check(len(won) == 1, won)
        told = s3.get_object_attributes(**at, ObjectAttributes=["ETag", "ObjectSize", "StorageClass"])
        check((told["ETag"], told["ObjectSize"], told["StorageClass"])
              == (won[0]["ETag"].strip('"'), 1, "STANDARD"), told)
        answers(raw(server, "PUT", "/extended-one/t", {"x-amz-tagging": "a=b"}, b""), 200)
        s3.put_bucket_lifecycle_configuration(Bucket="extended-one", LifecycleConfiguration={
            "Rules": [{"ID": "one", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 1}}]})
        told = s3.get_bucket_lifecycle_configuration(Bucket="extended-one")["Rules"]
        check(len(told) == 1 and told[0]["Expiration"] == {"Days": 1}, told)
        s3.create_bucket(Bucket="extended-two")
        told = s3.list_buckets(MaxBuckets=1)
        check([one["Name"] for one in told["Buckets"]] == ["extended-one"], told)
        told = s3.list_buckets(MaxBuckets=5, ContinuationToken=told["ContinuationToken"])
        check([one["Name"] for one in told["Buckets"]] == ["extended-two"], told)
    finally:
        server.stop()


CHECKS = [
    s3_164_aws_cli,
    s3_164_aws_cli_makes_each_call,
    s3_166_s3cmd,
    s3_166_rclone,
    s3_166_restic,
    s3_165_the_sdk_of_minio,
    s3_23_buckets_have_host_names,
    s3_85_the_extended_profile_writes_on_conditions,
]
