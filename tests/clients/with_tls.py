"""TLS on the data listener, with clients that trust the certificate the server made for itself."""

import contextlib
import hashlib
import io
import os
import pathlib
import subprocess
import tempfile
import urllib.error
import urllib.request

from boto3.s3.transfer import TransferConfig

from kiln import CLIENTS, KEY, KEY_ID, Cli, check
from s3 import client, keys_of

ARGUMENTS = ["--tls-self-signed"]
# What each kind of client reads the certificates from that it trusts.
TRUST = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"]


@contextlib.contextmanager
def trusting(server):
    """Lets clients trust the server's own certificate meanwhile, and nothing else."""
    certificate = str(server.folder / "data" / "tls-cert.pem")
    before = {name: os.environ.get(name) for name in TRUST}
    os.environ.update(dict.fromkeys(TRUST, certificate))
    try:
        yield certificate
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def whoever_does_not_trust_the_certificate_does_not_connect(server):
    check(server.url.startswith("https://127.0.0.1:"), server.url)
    try:
        urllib.request.urlopen(server.url + "/b2api/v4/b2_authorize_account")
    except urllib.error.URLError as error:
        check("CERTIFICATE_VERIFY_FAILED" in str(error), error)
    else:
        check(False, "a certificate that nobody vouches for was trusted")


def the_b2_command_line_works_over_tls(server):
    with trusting(server), tempfile.TemporaryDirectory() as folder:
        answer = server.authorize(KEY_ID, KEY)["apiInfo"]["storageApi"]
        for url in ("apiUrl", "downloadUrl", "s3ApiUrl"):
            check(answer[url] == server.url, answer)
        b2 = Cli(server)
        b2("bucket", "create", "tls-cli", "allPrivate")
        file = pathlib.Path(folder) / "up"
        file.write_bytes(os.urandom(12_000_000))
        b2("file", "upload", "tls-cli", file, "dir/file")
        b2("file", "download", "b2://tls-cli/dir/file", pathlib.Path(folder) / "down")
        check((pathlib.Path(folder) / "down").read_bytes() == file.read_bytes(), "the content")


def rclone_works_over_tls_with_both_of_its_backends(server):
    with trusting(server) as certificate, tempfile.TemporaryDirectory() as folder:
        key_id, secret = keys_of(server)
        environment = dict(
            os.environ, RCLONE_CONFIG="/dev/null", RCLONE_CONFIG_N_TYPE="b2",
            RCLONE_CONFIG_N_ACCOUNT=KEY_ID, RCLONE_CONFIG_N_KEY=KEY,
            RCLONE_CONFIG_N_ENDPOINT=server.url, RCLONE_CONFIG_S_TYPE="s3",
            RCLONE_CONFIG_S_PROVIDER="Other", RCLONE_CONFIG_S_ENDPOINT=server.url,
            RCLONE_CONFIG_S_REGION="us-west-000", RCLONE_CONFIG_S_ACCESS_KEY_ID=key_id,
            RCLONE_CONFIG_S_SECRET_ACCESS_KEY=secret)
        environment.pop("SSL_CERT_FILE")

        def rclone(*arguments):
            ended = subprocess.run(
                [CLIENTS / "rclone", "--ca-cert", certificate, "--retries", "1",
                 "--low-level-retries", "1", *map(str, arguments)],
                env=environment, capture_output=True, text=True, timeout=120)
            check(ended.returncode == 0, f"rclone {arguments}: {ended.stderr[-1500:]}")
            return ended.stdout

        folder = pathlib.Path(folder)
        (folder / "up" / "dir").mkdir(parents=True)
        (folder / "up" / "small").write_bytes(b"small")
        (folder / "up" / "dir" / "with space+plus%").write_bytes(os.urandom(6_000_000))
        rclone("mkdir", "n:tls-rclone")
        for one, other in (("n", "s"), ("s", "n")):
            rclone("copy", folder / "up", f"{one}:tls-rclone/{one}")
            rclone("check", folder / "up", f"{one}:tls-rclone/{one}")
            rclone("check", "--download", folder / "up", f"{other}:tls-rclone/{one}")


def s3_26_40_boto3_sends_its_chunks_over_tls_and_what_it_reads_is_right(server):
    with trusting(server):
        s3 = client(server)
        sent = []
        s3.meta.events.register("before-send.s3", lambda request, **_: sent.append(request))
        s3.create_bucket(Bucket="tls-boto")
        content = os.urandom(300_000)
        told = s3.put_object(Bucket="tls-boto", Key="k", Body=io.BytesIO(content))
        headers = {name.lower(): value for name, value in sent[-1].headers.items()}
        mode = headers["x-amz-content-sha256"]
        mode = mode.decode() if isinstance(mode, bytes) else mode
        check(mode == "STREAMING-UNSIGNED-PAYLOAD-TRAILER", headers)
        check("content-length" not in headers, headers)
        check(told["ETag"] == f'"{hashlib.md5(content).hexdigest()}"', told)
        check(told["ChecksumCRC32"], told)
        read = s3.get_object(Bucket="tls-boto", Key="k")
        check(read["Body"].read() == content and "ContentEncoding" not in read, "the content")
        for algorithm in ("CRC32", "SHA1", "SHA256"):
            s3.put_object(Bucket="tls-boto", Key=algorithm, Body=io.BytesIO(content),
                          ChecksumAlgorithm=algorithm)
            check(s3.get_object(Bucket="tls-boto", Key=algorithm)["Body"].read() == content,
                  algorithm)
        large = os.urandom(12_000_000)
        parts = TransferConfig(multipart_threshold=5_000_000, multipart_chunksize=5_000_000)
        s3.upload_fileobj(io.BytesIO(large), "tls-boto", "large", Config=parts)
        back = io.BytesIO()
        s3.download_fileobj("tls-boto", "large", back, Config=parts)
        check(back.getvalue() == large, "the large content")
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "tls-boto", "Key": "k"})
        check(urllib.request.urlopen(url).read() == content, "the presigned address")
        url = s3.generate_presigned_url("put_object", Params={"Bucket": "tls-boto", "Key": "p"})
        put = urllib.request.Request(url, data=b"put", method="PUT", headers={"Content-Type": ""})
        urllib.request.urlopen(put).read()
        check(s3.get_object(Bucket="tls-boto", Key="p")["Body"].read() == b"put", "put")
        names = [{"Key": name} for name in ("k", "CRC32", "SHA1", "SHA256", "large", "p")]
        told = s3.delete_objects(Bucket="tls-boto", Delete={"Objects": names})
        check(len(told["Deleted"]) == len(names) and "Errors" not in told, told)


def the_aws_command_line_works_over_tls(server):
    with trusting(server), tempfile.TemporaryDirectory() as folder:
        key_id, secret = keys_of(server)
        environment = dict(
            os.environ, AWS_ACCESS_KEY_ID=key_id, AWS_SECRET_ACCESS_KEY=secret,
            AWS_DEFAULT_REGION="us-west-000", AWS_EC2_METADATA_DISABLED="true", HOME=folder)

        def aws(*arguments):
            ended = subprocess.run(
                [CLIENTS / "aws", "--endpoint-url", server.url, *map(str, arguments)],
                env=environment, capture_output=True, text=True, timeout=120)
            check(ended.returncode == 0, f"aws {arguments}: {ended.stderr[-1500:]}")
            return ended.stdout

        folder = pathlib.Path(folder)
        (folder / "up").mkdir()
        (folder / "up" / "small").write_bytes(b"small")
        (folder / "up" / "large").write_bytes(os.urandom(12_000_000))
        aws("s3", "mb", "s3://tls-aws-cli")
        aws("s3", "sync", folder / "up", "s3://tls-aws-cli/x")
        check("small" in aws("s3", "ls", "--recursive", "s3://tls-aws-cli"), "listed")
        aws("s3", "sync", "s3://tls-aws-cli/x", folder / "down")
        for name in ("small", "large"):
            same = (folder / "down" / name).read_bytes() == (folder / "up" / name).read_bytes()
            check(same, name)
        aws("s3", "rm", "--recursive", "s3://tls-aws-cli")


CHECKS = [
    whoever_does_not_trust_the_certificate_does_not_connect,
    the_b2_command_line_works_over_tls,
    rclone_works_over_tls_with_both_of_its_backends,
    s3_26_40_boto3_sends_its_chunks_over_tls_and_what_it_reads_is_right,
    the_aws_command_line_works_over_tls,
]
