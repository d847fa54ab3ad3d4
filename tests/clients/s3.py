"""What the checks of the S3-compatible API share: keys, boto3 clients, requests signed by hand."""

import http.client
import urllib.parse

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from kiln import KEY_ID, Failed, check

REGION = "us-west-000"
ALL = [
    "bypassGovernance", "deleteBuckets", "deleteFiles", "deleteKeys", "listAllBucketNames",
    "listBuckets", "listFiles", "listKeys", "readBucketEncryption", "readBucketLifecycleRules",
    "readBucketLogging", "readBucketNotifications", "readBucketReplications",
    "readBucketRetentions", "readBuckets", "readFileLegalHolds", "readFileRetentions", "readFiles",
    "shareFiles", "writeBucketEncryption", "writeBucketLifecycleRules", "writeBucketLogging",
    "writeBucketNotifications", "writeBucketReplications", "writeBucketRetentions",
    "writeBuckets", "writeFileLegalHolds", "writeFileRetentions", "writeFiles", "writeKeys"]


def make_key(server, capabilities=ALL, buckets=None, prefix=None):
    """A key's id and secret."""
    made = server.call("b2_create_key", {
        "accountId": KEY_ID, "capabilities": capabilities, "keyName": "s3-key",
        "bucketIds": buckets, "namePrefix": prefix})
    return made["applicationKeyId"], made["applicationKey"]


def keys_of(server):
    """The key with all rights that the checks of one server share."""
    if not hasattr(server, "s3_key"):
        server.s3_key = make_key(server)
    return server.s3_key


def client(server, key=None, style="path", **more):
    """A boto3 client."""
    key_id, secret = key or keys_of(server)
    config = Config(region_name=REGION, retries={"total_max_attempts": 1},
                    s3={"addressing_style": style}, **more)
    return boto3.client("s3", endpoint_url=server.url, aws_access_key_id=key_id,
                        aws_secret_access_key=secret, config=config)


class Answer:
    """What came back of a request, read whole."""

    def __init__(self, asked, headers, answer):
        self.asked, self.asked_headers = asked, headers
        self.status_code = answer.status
        self.headers, self.content = answer.headers, answer.read()

    @property
    def text(self):
        return self.content.decode(errors="replace")


def raw(server, method, path, headers=None, body=b"", key=None, signed=True, host=None):
    """A request exactly as it is written; `path` is encoded already and may have a query."""
    scheme, _, address = server.url.partition("://")
    request = AWSRequest(method=method, url=f"{scheme}://{host or address}{path}", data=body,
                         headers=headers or {})
    if signed:
        key_id, secret = key or keys_of(server)
        S3SigV4Auth(Credentials(key_id, secret), "s3", REGION).add_auth(request)
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(address, timeout=60)
    try:
        sent = dict(request.headers)
        if host:
            sent["Host"] = host
        connection.request(method, path, body=body or None, headers=sent)
        return Answer(f"{method} {path}", sent, connection.getresponse())
    finally:
        connection.close()


def code_of(answer):
    """The code in the body of an error."""
    return answer.text.partition("<Code>")[2].partition("</Code>")[0]


def answers(answer, status, code=None):
    """Checks status and code of a raw answer."""
    wanted = (status, code) if code else (status,)
    got = (answer.status_code, code_of(answer)) if code else (answer.status_code,)
    check(got == wanted, f"{answer.asked}: {got} {answer.text[:300]}")
    return answer


def refused(code, status, call, **arguments):
    """A call that must be refused; answers what it said."""
    try:
        got = call(**arguments)
    except ClientError as error:
        told = error.response
        got = (told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"])
        check(got == (code, status), f"{arguments.keys()}: {got} {told['Error']['Message']}")
        return told
    raise Failed(f"{code} was expected, and not {str(got)[:300]}")


def bucket_id(server, name):
    found = server.call("b2_list_buckets", {"accountId": KEY_ID, "bucketName": name})["buckets"]
    return found[0]["bucketId"]


def native_bucket(server, name):
    return server.call("b2_list_buckets", {"accountId": KEY_ID, "bucketName": name})["buckets"][0]


def native_info(server, version_id):
    return server.call("b2_get_file_info", {"fileId": version_id})


def quoted(text):
    return urllib.parse.quote(text, safe="/-_.~")
