"""What buckets do with what is in them, set and read over the S3-compatible API and natively."""

import base64
import datetime
import hashlib
import os

from kiln import KEY_ID, Server, check
from s3 import (
    answers, bucket_id, client, keys_of, make_key, native_bucket, native_info, raw, refused)
from with_b2sdk import api_v3

MARKER = b"kiln-marker-of-readable-content!"
NOW = lambda: datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def s3_66_67_cors_rules_are_those_of_b2(server):
    s3 = client(server)
    s3.create_bucket(Bucket="cors-rules")
    at = {"Bucket": "cors-rules"}
    refused("NoSuchCORSConfiguration", 404, s3.get_bucket_cors, **at)
    rules = [{"ID": "first-rule", "AllowedMethods": ["GET", "PUT"], "MaxAgeSeconds": 60,
              "AllowedOrigins": ["https://a.example"], "AllowedHeaders": ["*"],
              "ExposeHeaders": ["ETag"]},
             {"AllowedMethods": ["HEAD"], "AllowedOrigins": ["*"]},
             {"ID": "a name that B2 cannot have \u00fc", "AllowedMethods": ["GET"],
              "AllowedOrigins": ["https://b.example"]}]
    s3.put_bucket_cors(**at, CORSConfiguration={"CORSRules": rules})
    check(s3.get_bucket_cors(**at)["CORSRules"] == rules, s3.get_bucket_cors(**at))
    native = native_bucket(server, "cors-rules")["corsRules"]
    check([(rule["corsRuleName"], rule["allowedOperations"]) for rule in native]
          == [("first-rule", ["s3_get", "s3_put"]), ("s3-rule-2", ["s3_head"]),
              ("s3-rule-3", ["s3_get"])], native)
    both = [{"corsRuleName": "native-only", "allowedOrigins": ["*"], "maxAgeSeconds": 1,
             "allowedOperations": ["b2_upload_file"]},
            {"corsRuleName": "both-sides", "allowedOrigins": ["*"], "maxAgeSeconds": 1,
             "allowedOperations": ["b2_upload_file", "s3_get"]}]
    server.call("b2_update_bucket", {
        "accountId": KEY_ID, "bucketId": bucket_id(server, "cors-rules"), "corsRules": both})
    shown = s3.get_bucket_cors(**at)["CORSRules"]
    check([(rule["ID"], rule["AllowedMethods"]) for rule in shown] == [("both-sides", ["GET"])],
          shown)
    check(len(native_bucket(server, "cors-rules")["corsRules"]) == 2, "both are there natively")
    refused("InvalidRequest", 400, s3.put_bucket_cors, **at, CORSConfiguration={"CORSRules": [
        {"AllowedMethods": ["PATCH"], "AllowedOrigins": ["*"]}]})
    s3.delete_bucket_cors(**at)
    refused("NoSuchCORSConfiguration", 404, s3.get_bucket_cors, **at)


def s3_68_69_157_pages_are_let_through_by_rules(server):
    s3 = client(server)
    s3.create_bucket(Bucket="cors-pages", ACL="public-read")
    s3.put_object(Bucket="cors-pages", Key="k", Body=b"x")
    s3.put_bucket_cors(Bucket="cors-pages", CORSConfiguration={"CORSRules": [
        {"AllowedMethods": ["GET"], "AllowedOrigins": ["https://*.a.example"],
         "AllowedHeaders": ["x-amz-*"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 9},
        {"AllowedMethods": ["HEAD"], "AllowedOrigins": ["*"]}]})

    def ask(origin, method, headers=None, path="/cors-pages/k"):
        sent = {"Origin": origin, "Access-Control-Request-Method": method}
        if headers:
            sent["Access-Control-Request-Headers"] = headers
        return raw(server, "OPTIONS", path, sent, signed=False)

    told = answers(ask("https://b.a.example", "GET", "x-amz-date, x-amz-meta-a"), 200).headers
    check((told["Access-Control-Allow-Origin"], told["Access-Control-Allow-Methods"],
           told["Access-Control-Allow-Headers"], told["Access-Control-Expose-Headers"],
           told["Access-Control-Max-Age"])
          == ("https://b.a.example", "GET", "x-amz-date, x-amz-meta-a", "ETag", "9"), told)
    check(told["Vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
          told)
    check("Access-Control-Allow-Credentials" not in told, told)
    check(answers(ask("https://any.example", "HEAD"), 200).headers["Access-Control-Allow-Origin"]
          == "*", "everybody")
    for origin, method, headers in (("https://a.example", "GET", None),
                                    ("https://b.a.example", "PUT", None),
                                    ("https://b.a.example", "GET", "authorization"),
                                    ("https://evil.example", "GET", None)):
        answers(ask(origin, method, headers), 403, "AccessForbidden")
    answers(ask("https://b.a.example", "GET", path="/cors-nowhere/k"), 403)
    answers(raw(server, "OPTIONS", "/cors-pages/k", signed=False), 400)
    for path, status in (("/cors-pages/k", 200), ("/cors-pages/absent", 404)):
        told = raw(server, "GET", path, {"Origin": "https://b.a.example"}, signed=False)
        answers(told, status)
        check((told.headers["Access-Control-Allow-Origin"], told.headers["Vary"],
               told.headers["Access-Control-Expose-Headers"])
              == ("https://b.a.example", "Origin", "ETag"), told.headers)
    told = raw(server, "GET", "/cors-pages/k", {"Origin": "https://evil.example"}, signed=False)
    check("Access-Control-Allow-Origin" not in told.headers, told.headers)


def s3_70_148_149_encryption_is_set_and_told(server):
    s3 = client(server)
    s3.create_bucket(Bucket="sse-bucket")
    at = {"Bucket": "sse-bucket"}
    refused("ServerSideEncryptionConfigurationNotFoundError", 404, s3.get_bucket_encryption, **at)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(**at, ServerSideEncryptionConfiguration={"Rules": [rule]})
    told = s3.get_bucket_encryption(**at)["ServerSideEncryptionConfiguration"]["Rules"][0]
    check(told["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256", told)
    shown = native_bucket(server, "sse-bucket")["defaultServerSideEncryption"]["value"]
    check(shown["mode"] == "SSE-B2", shown)
    stored = s3.put_object(**at, Key="k", Body=MARKER * 1000)
    check(stored["ServerSideEncryption"] == "AES256", stored)
    check(native_info(server, stored["VersionId"])["serverSideEncryption"]["mode"] == "SSE-B2",
          "natively")
    for call in (s3.get_object, s3.head_object):
        check(call(**at, Key="k")["ServerSideEncryption"] == "AES256", call)
    copied = s3.copy_object(**at, Key="c", CopySource={**at, "Key": "k"})
    check(copied["ServerSideEncryption"] == "AES256", copied)
    for path in (server.folder / "data").rglob("*"):
        check(not path.is_file() or MARKER not in path.read_bytes(), f"readable in {path}")
    s3.delete_bucket_encryption(**at)
    refused("ServerSideEncryptionConfigurationNotFoundError", 404, s3.get_bucket_encryption, **at)
    check("ServerSideEncryption" not in s3.put_object(**at, Key="p", Body=b""), "plain again")
    stored = s3.put_object(**at, Key="asked", Body=b"x", ServerSideEncryption="AES256")
    check(stored["ServerSideEncryption"] == "AES256", stored)
    kms = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    refused("InvalidArgument", 400, s3.put_bucket_encryption, **at,
            ServerSideEncryptionConfiguration={"Rules": [kms]})
    refused("InvalidArgument", 400, s3.put_object, **at, Key="k", Body=b"",
            ServerSideEncryption="aws:kms")
    refused("InvalidArgument", 400, s3.put_object, **at, Key="k", Body=b"",
            ServerSideEncryption="AES256", SSECustomerAlgorithm="AES256", SSECustomerKey="k" * 32)
    begun = s3.create_multipart_upload(**at, Key="m", ServerSideEncryption="AES256")
    part = s3.upload_part(**at, Key="m", UploadId=begun["UploadId"], PartNumber=1, Body=b"x")
    told = s3.complete_multipart_upload(
        **at, Key="m", UploadId=begun["UploadId"],
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    check(begun["ServerSideEncryption"] == part["ServerSideEncryption"]
          == told["ServerSideEncryption"] == "AES256", told)


def sse(key, prefix="SSECustomer"):
    return {f"{prefix}Algorithm": "AES256", f"{prefix}Key": key}


def s3_121_145_146_147_keys_of_customers(server):
    s3 = client(server)
    s3.create_bucket(Bucket="sse-customer")
    at = {"Bucket": "sse-customer"}
    key, other = os.urandom(32), os.urandom(32)
    digest = base64.b64encode(hashlib.md5(key).digest()).decode()
    body = MARKER * 2000
    stored = s3.put_object(**at, Key="k", Body=body, **sse(key))
    check((stored["SSECustomerAlgorithm"], stored["SSECustomerKeyMD5"]) == ("AES256", digest), stored)
    for call in (s3.get_object, s3.head_object):
        told = call(**at, Key="k", **sse(key))
        check(told["SSECustomerKeyMD5"] == digest, told)
    check(s3.get_object(**at, Key="k", **sse(key))["Body"].read() == body, "content")
    refused("InvalidRequest", 400, s3.get_object, **at, Key="k")
    refused("AccessDenied", 403, s3.get_object, **at, Key="k", **sse(other))
    s3.put_object(**at, Key="plain", Body=b"x")
    refused("InvalidRequest", 400, s3.get_object, **at, Key="plain", **sse(key))
    headers = {"x-amz-server-side-encryption-customer-algorithm": "AES256",
               "x-amz-server-side-encryption-customer-key": base64.b64encode(key).decode(),
               "x-amz-server-side-encryption-customer-key-md5": digest}
    names = list(headers)
    for changed, code in (({names[0]: "AES128"}, "InvalidEncryptionAlgorithmError"),
                          ({names[0]: None}, "InvalidArgument"),
                          ({names[1]: "c2hvcnQ="}, "InvalidArgument"),
                          ({names[2]: base64.b64encode(b"x" * 16).decode()}, "InvalidArgument"),
                          ({names[2]: None}, "InvalidArgument")):
        sent = {name: value for name, value in {**headers, **changed}.items() if value}
        answers(raw(server, "PUT", "/sse-customer/w", sent, b"x"), 400, code)
    for path in server.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            check(MARKER not in content, f"readable in {path}")
            check(key not in content and headers[names[1]].encode() not in content, f"key in {path}")
    upload = s3.create_multipart_upload(**at, Key="m", **sse(key))["UploadId"]
    part = {**at, "Key": "m", "UploadId": upload, "PartNumber": 1, "Body": b"part"}
    refused("InvalidArgument", 400, s3.upload_part, **part)
    refused("AccessDenied", 403, s3.upload_part, **part, **sse(other))
    tag = s3.upload_part(**part, **sse(key))["ETag"]
    s3.complete_multipart_upload(**at, Key="m", UploadId=upload,
                                 MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
    check(s3.get_object(**at, Key="m", **sse(key))["Body"].read() == b"part", "in parts")
    info = native_info(server, stored["VersionId"])
    check(info["serverSideEncryption"]["mode"] == "SSE-C", info)


def s3_106_copies_change_the_encryption(server):
    s3 = client(server)
    s3.create_bucket(Bucket="sse-copies")
    at = {"Bucket": "sse-copies"}
    one, two = os.urandom(32), os.urandom(32)
    for size in (1, 1024, 1_000_000, 8 * 1024 * 1024):
        body = os.urandom(size)
        sources = {"plain": {}, "managed": {"ServerSideEncryption": "AES256"},
                   "customer": sse(one)}
        for name, asked in sources.items():
            s3.put_object(**at, Key=name, Body=body, **asked)
            key = sse(one, "CopySourceSSECustomer") if name == "customer" else {}
            for wanted in ({}, {"ServerSideEncryption": "AES256"}, sse(two)):
                s3.copy_object(**at, Key="copy", CopySource={**at, "Key": name}, **key, **wanted)
                reads = wanted if "SSECustomerKey" in wanted else {}
                got = s3.get_object(**at, Key="copy", **reads)
                check(got["Body"].read() == body, f"{size} {name} {list(wanted)}")
                check(got.get("ServerSideEncryption") == wanted.get("ServerSideEncryption"), got)
    refused("InvalidRequest", 400, s3.copy_object, **at, Key="copy",
            CopySource={**at, "Key": "customer"})


def s3_71_73_75_lifecycle_rules_are_those_of_b2(server):
    s3 = client(server)
    s3.create_bucket(Bucket="life-rules")
    at = {"Bucket": "life-rules"}
    get = lambda: s3.get_bucket_lifecycle_configuration(**at)["Rules"]
    put = lambda rules: s3.put_bucket_lifecycle_configuration(
        **at, LifecycleConfiguration={"Rules": rules})
    told = refused("NoSuchLifecycleConfiguration", 404, get)
    check(told["Error"]["Message"] == "The lifecycle configuration does not exist.", told)
    rule = lambda id, prefix, **deed: {
        "ID": id, "Status": "Enabled", "Filter": {"Prefix": prefix}, **deed}
    rules = [rule("hide", "logs/", Expiration={"Days": 3}),
             rule("markers", "logs/", Expiration={"ExpiredObjectDeleteMarker": True}),
             rule("old", "tmp/", NoncurrentVersionExpiration={"NoncurrentDays": 1},
                  AbortIncompleteMultipartUpload={"DaysAfterInitiation": 2})]
    put(rules)
    check(sorted(get(), key=lambda one: one["ID"]) == sorted(rules, key=lambda one: one["ID"]), get())
    native = native_bucket(server, "life-rules")["lifecycleRules"]
    check(sorted(native, key=lambda one: one["fileNamePrefix"]) == [
        {"fileNamePrefix": "logs/", "daysFromUploadingToHiding": 3,
         "daysFromHidingToDeleting": None},
        {"fileNamePrefix": "tmp/", "daysFromUploadingToHiding": None,
         "daysFromHidingToDeleting": 1, "daysFromStartingToCancelingUnfinishedLargeFiles": 2}],
        native)
    # As many as S3 takes, which are more than one native call may set.
    many = [rule(f"r{number}", f"p{number:04}/", NoncurrentVersionExpiration={"NoncurrentDays": 1})
            for number in range(1000)]
    put(many)
    check(sorted(get(), key=lambda one: one["Filter"]["Prefix"]) == many, "a thousand")
    check(len(native_bucket(server, "life-rules")["lifecycleRules"]) == 1000, "natively")
    refused("MalformedXML", 400, put, rules=[
        *many, rule("one more", "q/", NoncurrentVersionExpiration={"NoncurrentDays": 1})])
    server.call("b2_update_bucket", {
        "accountId": KEY_ID, "bucketId": bucket_id(server, "life-rules"), "lifecycleRules": [
            {"fileNamePrefix": "x/", "daysFromUploadingToHiding": 5,
             "daysFromHidingToDeleting": 6}]})
    shown = get()
    check([one.get("Expiration") for one in shown]
          == [{"Days": 5}, {"ExpiredObjectDeleteMarker": True}], shown)
    put(shown)
    check(get() == shown, "what is shown is taken")
    for _ in range(2):
        s3.delete_bucket_lifecycle(**at)
    refused("NoSuchLifecycleConfiguration", 404, get)


def s3_72_74_lifecycle_rules_that_b2_does_not_have_are_refused(server):
    s3 = client(server)
    s3.create_bucket(Bucket="life-refused")
    put = lambda *rules: {"Bucket": "life-refused", "LifecycleConfiguration": {"Rules": list(rules)}}
    call = s3.put_bucket_lifecycle_configuration
    base = {"ID": "one", "Status": "Enabled", "Filter": {"Prefix": "p/"}}
    old = {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    for changed in ({"Expiration": {"Days": 1}},
                    {"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]},
                    {"Expiration": {"Date": datetime.datetime(2030, 1, 1)}},
                    {"Expiration": {"ExpiredObjectDeleteMarker": False}},
                    {"Status": "Disabled", **old},
                    {"Filter": {"Tag": {"Key": "k", "Value": "v"}}, **old},
                    {"Filter": {"ObjectSizeGreaterThan": 5}, **old},
                    {"NoncurrentVersionExpiration": {"NoncurrentDays": 1,
                                                     "NewerNoncurrentVersions": 2}}):
        told = refused("NotSupported", 400, call, **put({**base, **changed}))
        check(told["Error"]["Message"]
              == "The specified lifecycle configuration feature is not supported.", told)
    refused("NotSupported", 400, call, **put(
        {**base, **old}, {**base, **old, "ID": "two", "Filter": {"Prefix": "p/q"}}))
    refused("InvalidArgument", 400, call, **put({**base, **old}, {**base, **old}))
    refused("InvalidArgument", 400, call, **put({**base, **old, "ID": "i" * 256}))
    refused("InvalidArgument", 400, call, **put({**base, "Expiration": {"Days": 0}}))
    refused("MalformedXML", 400, call, **put({**base, **old, "Status": "enabled"}))


def s3_122_lifecycle_gives_up_uploads(_):
    server = Server()
    try:
        s3 = client(server)
        s3.create_bucket(Bucket="life-uploads")
        at = {"Bucket": "life-uploads"}
        s3.put_bucket_lifecycle_configuration(**at, LifecycleConfiguration={"Rules": [
            {"ID": "one", "Status": "Enabled", "Filter": {"Prefix": ""},
             "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}]})
        upload = s3.create_multipart_upload(**at, Key="k")["UploadId"]
        listed = lambda: server.call(
            "b2_list_unfinished_large_files", {"bucketId": bucket_id(server, "life-uploads")})
        check([one["fileId"] for one in listed()["files"]] == [upload], "there")
        server.control("/admin/clock/advance?ms=259200000")
        import time
        deadline = time.monotonic() + 20
        while listed()["files"]:
            check(time.monotonic() < deadline, "the rule has not acted")
            time.sleep(0.05)
    finally:
        server.stop()


def s3_76_logging_is_kept(server):
    s3 = client(server)
    for name in ("log-from", "log-to"):
        s3.create_bucket(Bucket=name)
    at = {"Bucket": "log-from"}
    check("LoggingEnabled" not in s3.get_bucket_logging(**at), "none")
    wanted = {"TargetBucket": "log-to", "TargetPrefix": "p/"}
    s3.put_bucket_logging(**at, BucketLoggingStatus={"LoggingEnabled": wanted})
    told = s3.get_bucket_logging(**at)["LoggingEnabled"]
    check({name: told[name] for name in wanted} == wanted, told)
    for target in ("log-nowhere", "copy-foreign"):
        refused("InvalidTargetBucketForLogging", 400, s3.put_bucket_logging, **at,
                BucketLoggingStatus={"LoggingEnabled": {**wanted, "TargetBucket": target}})
    s3.put_bucket_logging(**at, BucketLoggingStatus={})
    check("LoggingEnabled" not in s3.get_bucket_logging(**at), "cleared")


def s3_135_136_137_locks_of_buckets(server):
    s3 = client(server)
    s3.create_bucket(Bucket="lock-made", ObjectLockEnabledForBucket=True)
    s3.create_bucket(Bucket="lock-later")
    shown = lambda name: native_bucket(server, name)["fileLockConfiguration"]["value"]
    check(shown("lock-made")["isFileLockEnabled"] and not shown("lock-later")["isFileLockEnabled"],
          "natively")
    refused("ObjectLockConfigurationNotFoundError", 404, s3.get_object_lock_configuration,
            Bucket="lock-later")
    put = lambda name, **rule: {"Bucket": name, "ObjectLockConfiguration": {
        "ObjectLockEnabled": "Enabled", **({"Rule": {"DefaultRetention": rule}} if rule else {})}}
    s3.put_object_lock_configuration(**put("lock-later"))
    check(shown("lock-later")["isFileLockEnabled"], "turned on")
    s3.put_object_lock_configuration(**put("lock-later", Mode="GOVERNANCE", Days=7))
    told = s3.get_object_lock_configuration(Bucket="lock-later")["ObjectLockConfiguration"]
    check(told == put("lock-later", Mode="GOVERNANCE", Days=7)["ObjectLockConfiguration"], told)
    native = shown("lock-later")["defaultRetention"]
    check(native == {"mode": "governance", "period": {"duration": 7, "unit": "days"}}, native)
    call = s3.put_object_lock_configuration
    for rule, code in (({"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, "MalformedXML"),
                       ({"Mode": "GOVERNANCE"}, "MalformedXML"),
                       ({"Mode": "governance", "Days": 1}, "MalformedXML"),
                       ({"Mode": "GOVERNANCE", "Days": 0}, "InvalidRetentionPeriod"),
                       ({"Mode": "COMPLIANCE", "Years": -1}, "InvalidRetentionPeriod")):
        refused(code, 400, call, **put("lock-later", **rule))
    disabled = b"<ObjectLockConfiguration><ObjectLockEnabled>Disabled</ObjectLockEnabled></ObjectLockConfiguration>"
    answers(raw(server, "PUT", "/lock-later?object-lock", body=disabled), 400, "MalformedXML")
    at = {"Bucket": "lock-later"}
    upload = s3.create_multipart_upload(**at, Key="parts")["UploadId"]
    tag = s3.upload_part(**at, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(**at, Key="parts", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": tag}]})
    s3.put_object(**at, Key="put", Body=b"x")
    s3.copy_object(**at, Key="copied", CopySource={**at, "Key": "put"})
    api_v3(server).get_bucket_by_name("lock-later").upload_bytes(b"x", "native")
    for key in ("parts", "put", "copied", "native"):
        told = s3.get_object_retention(**at, Key=key)["Retention"]
        left = told["RetainUntilDate"] - NOW()
        check(told["Mode"] == "GOVERNANCE" and 6.9 * DAY < left < 7.1 * DAY, f"{key} {told}")
    until = NOW() + 2 * DAY
    s3.put_object(**at, Key="own", Body=b"x", ObjectLockMode="COMPLIANCE",
                  ObjectLockRetainUntilDate=until)
    told = s3.get_object_retention(**at, Key="own")["Retention"]
    check(told["Mode"] == "COMPLIANCE" and abs(told["RetainUntilDate"] - until) < DAY / 86400, told)


def s3_138_139_140_141_142_144_locks_of_versions(server):
    s3 = client(server)
    s3.create_bucket(Bucket="lock-versions", ObjectLockEnabledForBucket=True)
    s3.create_bucket(Bucket="lock-without")
    at = {"Bucket": "lock-versions"}
    until = NOW() + 2 * DAY
    lock = lambda mode, until=until: {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}
    refused("InvalidRequest", 400, s3.put_object, Bucket="lock-without", Key="k", Body=b"",
            **lock("GOVERNANCE"))
    refused("InvalidArgument", 400, s3.put_object, **at, Key="k", Body=b"",
            **lock("GOVERNANCE", NOW() - DAY))
    refused("InvalidArgument", 400, s3.put_object, **at, Key="k", Body=b"",
            ObjectLockMode="GOVERNANCE")
    governed = s3.put_object(**at, Key="g", Body=b"g", **lock("GOVERNANCE"))["VersionId"]
    kept = s3.put_object(**at, Key="c", Body=b"c", **lock("COMPLIANCE"))["VersionId"]
    weak = client(server, make_key(server, ["readFiles", "deleteFiles", "writeFiles"]))
    g = {**at, "Key": "g", "VersionId": governed}
    refused("AccessDenied", 403, s3.delete_object, **g)
    refused("AccessDenied", 403, weak.delete_object, **g, BypassGovernanceRetention=True)
    marker = s3.delete_object(**at, Key="g")
    check(marker["DeleteMarker"], "a marker may always be put")
    check(s3.get_object(**g)["Body"].read() == b"g", "readable by its id")
    c = {**at, "Key": "c", "VersionId": kept}
    shorter = {"Mode": "COMPLIANCE", "RetainUntilDate": until - DAY}
    for bypass in ({}, {"BypassGovernanceRetention": True}):
        refused("AccessDenied", 403, s3.delete_object, **c, **bypass)
        refused("AccessDenied", 403, s3.put_object_retention, **c, Retention=shorter, **bypass)
    s3.put_object_retention(**c, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until + DAY})
    less = {"Mode": "GOVERNANCE", "RetainUntilDate": until - DAY}
    refused("AccessDenied", 403, s3.put_object_retention, **g, Retention=less)
    s3.put_object_retention(**g, Retention=less, BypassGovernanceRetention=True)
    check(native_info(server, governed)["fileRetention"]["value"]["mode"] == "governance", "natively")
    s3.delete_object(**g, BypassGovernanceRetention=True)
    refused("NoSuchVersion", 404, s3.get_object, **g)
    s3.put_object(**at, Key="h", Body=b"h")
    refused("NoSuchObjectLockConfiguration", 404, s3.get_object_retention, **at, Key="h")
    refused("NoSuchObjectLockConfiguration", 404, s3.get_object_legal_hold, **at, Key="h")
    refused("InvalidRequest", 400, s3.get_object_retention, Bucket="lock-without", Key="h")
    held = s3.head_object(**at, Key="h")["VersionId"]
    s3.put_object_legal_hold(**at, Key="h", LegalHold={"Status": "ON"})
    check(s3.get_object_legal_hold(**at, Key="h")["LegalHold"] == {"Status": "ON"}, "on")
    refused("AccessDenied", 403, s3.delete_object, **at, Key="h", VersionId=held,
            BypassGovernanceRetention=True)
    told = s3.head_object(**at, Key="h")
    check(told["ObjectLockLegalHoldStatus"] == "ON" and "ObjectLockMode" not in told, told)
    s3.put_object_legal_hold(**at, Key="h", LegalHold={"Status": "OFF"})
    s3.delete_object(**at, Key="h", VersionId=held)
    told = s3.head_object(**c)
    check((told["ObjectLockMode"], told["ObjectLockRetainUntilDate"].date())
          == ("COMPLIANCE", (until + DAY).date()), told)
    told = weak.head_object(**c)
    check("ObjectLockMode" not in told and "ObjectLockRetainUntilDate" not in told, told)
    looks = client(server, make_key(server, ["readFiles", "readFileRetentions"]))
    check("ObjectLockMode" in looks.head_object(**c), "with the right")
    malformed = b"<Retention><Mode>governance</Mode><RetainUntilDate>x</RetainUntilDate></Retention>"
    answers(raw(server, "PUT", "/lock-versions/c?retention", body=malformed), 400, "MalformedXML")


def s3_99_replication_138_139_uploads_enter_replication(server):
    s3 = client(server)
    for name in ("repl-source", "repl-target"):
        s3.create_bucket(Bucket=name)
    reader = make_key(server, ["readFiles", "readFileLegalHolds", "readFileRetentions"])[0]
    writer = make_key(server, ["writeFiles", "writeFileLegalHolds", "writeFileRetentions"])[0]
    source, target = bucket_id(server, "repl-source"), bucket_id(server, "repl-target")
    server.call("b2_update_bucket", {
        "accountId": KEY_ID, "bucketId": target, "replicationConfiguration": {
            "asReplicationDestination": {"sourceToDestinationKeyMapping": {reader: writer}}}})
    server.call("b2_update_bucket", {
        "accountId": KEY_ID, "bucketId": source, "replicationConfiguration": {
            "asReplicationSource": {"sourceApplicationKeyId": reader, "replicationRules": [{
                "destinationBucketId": target, "fileNamePrefix": "", "isEnabled": True,
                "includeExistingFiles": False, "priority": 1,
                "replicationRuleName": "rule-one"}]}}})
    server.control("/admin/replication/hold")
    put = s3.put_object(Bucket="repl-source", Key="k", Body=b"x" * 100_000, Metadata={"a": "b"})
    upload = s3.create_multipart_upload(Bucket="repl-source", Key="m")["UploadId"]
    pieces, tags = [os.urandom(5_000_000), b"end"], []
    for number, piece in enumerate(pieces, 1):
        tags.append({"PartNumber": number, "ETag": s3.upload_part(
            Bucket="repl-source", Key="m", UploadId=upload, PartNumber=number,
            Body=piece)["ETag"]})
    s3.complete_multipart_upload(Bucket="repl-source", Key="m", UploadId=upload,
                                 MultipartUpload={"Parts": tags})
    s3.copy_object(Bucket="repl-source", Key="c", CopySource={"Bucket": "repl-source", "Key": "k"})
    for key in "kmc":
        told = s3.head_object(Bucket="repl-source", Key=key)
        check(told["ReplicationStatus"] == "PENDING", told)
    server.control("/admin/replication/release")
    server.drain()
    for key in "kmc":
        told = s3.head_object(Bucket="repl-source", Key=key)
        there = s3.head_object(Bucket="repl-target", Key=key)
        check((told["ReplicationStatus"], there["ReplicationStatus"]) == ("COMPLETED", "REPLICA"),
              (told, there))
        check(told["ETag"] == there["ETag"] and told["VersionId"] != there["VersionId"], there)
        check(told["Metadata"] == there["Metadata"], there)
    check(there["VersionId"] != put["VersionId"], there)
    s3.create_bucket(Bucket="repl-none")
    s3.put_object(Bucket="repl-none", Key="k", Body=b"")
    check("ReplicationStatus" not in s3.head_object(Bucket="repl-none", Key="k"), "no status")
    for number, piece in enumerate(pieces, 1):
        got = s3.get_object(Bucket="repl-target", Key="m", PartNumber=number)["Body"].read()
        check(got == piece, number)


def s3_26_to_31_addresses_signed_in_advance(server):
    import urllib.parse
    s3 = client(server, signature_version="s3v4")
    s3.create_bucket(Bucket="presigned")
    at = {"Bucket": "presigned", "Key": "k \u00fc"}

    def ask(method, name, headers=None, body=b"", **more):
        url = urllib.parse.urlsplit(s3.generate_presigned_url(
            name, Params={**at, **more}, ExpiresIn=60, HttpMethod=method))
        return raw(server, method, f"{url.path}?{url.query}", headers, body, signed=False)

    answers(ask("PUT", "put_object", body=b"content"), 200)
    check(answers(ask("GET", "get_object"), 200).content == b"content", "read")
    answers(ask("HEAD", "head_object"), 200)
    typed = ask("PUT", "put_object", {"Content-Type": "a/b"}, b"content", ContentType="a/b")
    answers(typed, 200)
    answers(ask("PUT", "put_object", {"Content-Type": "c/d"}, b"x", ContentType="a/b"), 403,
            "SignatureDoesNotMatch")
    url = urllib.parse.urlsplit(s3.generate_presigned_url("get_object", Params=at, ExpiresIn=60))
    answers(raw(server, "PUT", f"{url.path}?{url.query}", body=b"x", signed=False), 403,
            "SignatureDoesNotMatch")
    told = ask("GET", "get_object", ResponseContentType="x/y", ResponseCacheControl="no-store",
               ResponseContentDisposition="attachment", ResponseContentEncoding="gzip",
               ResponseContentLanguage="de", ResponseExpires="Tue, 04 Jan 2022 15:01:18 GMT")
    answers(told, 200)
    check([told.headers[name] for name in (
        "Content-Type", "Cache-Control", "Content-Disposition", "Content-Encoding",
        "Content-Language", "Expires")] == [
            "x/y", "no-store", "attachment", "gzip", "de", "Tue, 04 Jan 2022 15:01:18 GMT"],
        told.headers)
    upload = s3.create_multipart_upload(**at)["UploadId"]
    answers(ask("PUT", "upload_part", body=b"x", UploadId=upload, PartNumber=1), 200)
    answers(ask("DELETE", "delete_object"), 204)
    refused("NoSuchKey", 404, s3.get_object, **at)
    s3.put_bucket_acl(Bucket="presigned", ACL="public-read")
    s3.put_object(Bucket="presigned", Key="p", Body=b"x")
    answers(raw(server, "GET", "/presigned/p?response-content-type=x%2Fy", signed=False), 400,
            "InvalidRequest")


def s3_26_headers_in_signed_addresses_count(server):
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    import urllib.parse
    s3 = client(server)
    s3.create_bucket(Bucket="presigned-moved")

    def put(key, body, **moved):
        query = urllib.parse.urlencode(moved, quote_via=urllib.parse.quote)
        request = AWSRequest(method="PUT", url=f"{server.url}/presigned-moved/{key}?{query}")
        S3SigV4QueryAuth(Credentials(*keys_of(server)), "s3", "us-west-000", 60).add_auth(request)
        path = request.url.partition(server.url)[2]
        return raw(server, "PUT", path, body=body, signed=False)

    content = b"content"
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    answers(put("k", content, **{
        "x-amz-meta-colour": "sky blue", "x-amz-checksum-sha256": digest,
        "x-amz-sdk-checksum-algorithm": "SHA256", "x-amz-server-side-encryption": "AES256"}), 200)
    told = s3.head_object(Bucket="presigned-moved", Key="k", ChecksumMode="ENABLED")
    check((told["Metadata"], told["ChecksumSHA256"], told["ServerSideEncryption"])
          == ({"colour": "sky blue"}, digest, "AES256"), told)
    answers(put("other", b"other", **{"x-amz-checksum-sha256": digest}), 400, "BadDigest")
    answers(put("other", b"other", **{"x-amz-tagging": "a=b"}), 400, "InvalidArgument")
    answers(put("other", b"other", **{"x-amz-acl": "public-read"}), 400, "InvalidArgument")
    refused("404", 404, s3.head_object, Bucket="presigned-moved", Key="other")


def s3_34_35_everybody_reads_what_is_public_and_nothing_else(server):
    s3 = client(server)
    s3.create_bucket(Bucket="anyone-public", ACL="public-read")
    s3.create_bucket(Bucket="anyone-private")
    for name in ("anyone-public", "anyone-private"):
        s3.put_object(Bucket=name, Key="k", Body=b"x")
    ask = lambda method, path: raw(server, method, path, signed=False)
    for method in ("GET", "HEAD"):
        answers(ask(method, "/anyone-public/k"), 200)
        answers(ask(method, "/anyone-private/k"), 403)
        answers(ask(method, "/anyone-public/absent"), 404)
        answers(ask(method, "/anyone-private/absent"), 403)
    for path in ("/anyone-public", "/anyone-public?list-type=2", "/anyone-public?versions", "/",
                 "/anyone-public?acl", "/anyone-public?uploads"):
        answers(ask("GET", path), 403, "AccessDenied")
    for method in ("PUT", "DELETE"):
        answers(ask(method, "/anyone-public/k"), 403, "AccessDenied")


def s3_9_10_151_keys_reach_their_buckets_and_names(server):
    s3 = client(server)
    for name in ("reach-one", "reach-two", "reach-three"):
        s3.create_bucket(Bucket=name)
        for key in ("p/a", "q/a"):
            s3.put_object(Bucket=name, Key=key, Body=b"x")
    ids = [bucket_id(server, name) for name in ("reach-one", "reach-two")]
    both = client(server, make_key(server, ["listFiles", "readFiles", "writeFiles"], ids))
    for name in ("reach-one", "reach-two"):
        both.list_objects_v2(Bucket=name)
        both.get_object(Bucket=name, Key="p/a")
    for call, more in ((both.list_objects_v2, {}), (both.get_object, {"Key": "p/a"}),
                       (both.put_object, {"Key": "p/a"})):
        told = refused("AccessDenied", 403, call, Bucket="reach-three", **more)
        check(told["Error"]["Message"] == "not entitled", told)
    bound = client(server, make_key(
        server, ["listFiles", "readFiles", "writeFiles", "deleteFiles"], ids[:1], "p/"))
    at = {"Bucket": "reach-one"}
    bound.put_object(**at, Key="p/b", Body=b"x")
    bound.get_object(**at, Key="p/a")
    bound.delete_object(**at, Key="p/b")
    outside = s3.head_object(**at, Key="q/a")["VersionId"]
    inside = s3.head_object(**at, Key="p/a")["VersionId"]
    bound.get_object(**at, Key="p/a", VersionId=inside)
    for call in (bound.put_object, bound.get_object, bound.delete_object):
        refused("AccessDenied", 403, call, **at, Key="q/a")
    for call in (bound.get_object, bound.delete_object):
        refused("AccessDenied", 403, call, **at, Key="q/a", VersionId=outside)
        if call == bound.get_object:
            refused("NoSuchVersion", 404, call, **at, Key="p/a", VersionId=outside)
    check(s3.get_object(**at, Key="q/a", VersionId=outside)["Body"].read() == b"x", "still there")
    bound.list_objects_v2(**at, Prefix="p/")
    refused("AccessDenied", 403, bound.list_objects_v2, **at)
    refused("AccessDenied", 403, bound.list_objects_v2, **at, Prefix="p")
    refused("AccessDenied", 403, bound.list_object_versions, **at, Prefix="q/")
    told = bound.delete_objects(**at, Delete={"Objects": [{"Key": "q/a"}, {"Key": "p/a"}]})
    check([one["Key"] for one in told["Deleted"]] == ["p/a"], told)
    check([(one["Key"], one["Code"]) for one in told["Errors"]] == [("q/a", "AccessDenied")], told)


def s3_156_documents_that_are_too_much_are_refused_quickly(server):
    import time
    s3 = client(server)
    s3.create_bucket(Bucket="xml-bombs")
    laughs = "".join(f'<!ENTITY l{n} "{"&l%d;" % (n - 1) * 10}">' for n in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><CORSConfiguration>&l9;</CORSConfiguration>'
    deep = "<CORSConfiguration>" + "<a>" * 17 + "</a>" * 17 + "</CORSConfiguration>"
    wide = "<CORSConfiguration " + "a='1' " * 80_000 + "/>"
    huge = "<CORSConfiguration>" + " " * (1024 * 1024) + "</CORSConfiguration>"
    external = '<!DOCTYPE x SYSTEM "file:///etc/passwd"><CORSConfiguration/>'
    for body, code in ((bomb, "MalformedXML"), (deep, "MalformedXML"), (wide, "MalformedXML"),
                       (huge, "MaxMessageLengthExceeded"), (external, "MalformedXML"),
                       ("", "MalformedXML"), ("<CORSConfiguration>", "MalformedXML"),
                       ("<Other/>", "MalformedXML"), ("\x00", "MalformedXML")):
        began = time.monotonic()
        answers(raw(server, "PUT", "/xml-bombs?cors", body=body.encode()), 400, code)
        check(time.monotonic() - began < 1, f"{body[:50]} takes too long")


def faults_strike_s3_calls_too(server):
    s3 = client(server)
    s3.create_bucket(Bucket="s3-faults")
    server.control("/admin/faults", {"operation": "PutObject", "status": 503, "times": 1})
    told = refused("SlowDown", 503, s3.put_object, Bucket="s3-faults", Key="k", Body=b"x")
    check(told["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1", told)
    s3.put_object(Bucket="s3-faults", Key="k", Body=b"x")
    check(server.fired() == [1], "once")


CHECKS = [
    s3_66_67_cors_rules_are_those_of_b2,
    s3_68_69_157_pages_are_let_through_by_rules,
    s3_70_148_149_encryption_is_set_and_told,
    s3_121_145_146_147_keys_of_customers,
    s3_106_copies_change_the_encryption,
    s3_71_73_75_lifecycle_rules_are_those_of_b2,
    s3_72_74_lifecycle_rules_that_b2_does_not_have_are_refused,
    s3_122_lifecycle_gives_up_uploads,
    s3_76_logging_is_kept,
    s3_135_136_137_locks_of_buckets,
    s3_138_139_140_141_142_144_locks_of_versions,
    s3_99_replication_138_139_uploads_enter_replication,
    s3_26_to_31_addresses_signed_in_advance,
    s3_26_headers_in_signed_addresses_count,
    s3_34_35_everybody_reads_what_is_public_and_nothing_else,
    s3_9_10_151_keys_reach_their_buckets_and_names,
    s3_156_documents_that_are_too_much_are_refused_quickly,
    faults_strike_s3_calls_too,
]
