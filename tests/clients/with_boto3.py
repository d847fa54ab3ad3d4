"""boto3 and requests signed by hand: the S3-compatible API, each side of it read on the other."""

import hashlib
import io
import os

from kiln import KEY, KEY_ID, check
from s3 import (
    answers, bucket_id, client, make_key, native_bucket, native_info, quoted, raw, refused)
from with_b2sdk import api_v3


def md5(*pieces):
    return hashlib.md5(b"".join(pieces)).hexdigest()


def empty_and_delete(s3, bucket):
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        doomed = [{"Key": one["Key"], "VersionId": one["VersionId"]}
                  for kind in ("Versions", "DeleteMarkers") for one in page.get(kind, [])]
        if doomed:
            told = s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed})
            check("Errors" not in told, told)
    s3.delete_bucket(Bucket=bucket)


def s3_51_52_53_54_buckets_are_made_in_both_kinds_and_shown_natively(server):
    s3 = client(server)
    made = s3.create_bucket(Bucket="boto-made")
    check(made["Location"] == "/boto-made", made)
    check(native_bucket(server, "boto-made")["bucketType"] == "allPrivate", "private")
    s3.create_bucket(Bucket="boto-public", ACL="public-read",
                     CreateBucketConfiguration={"LocationConstraint": "us-west-000"})
    check(native_bucket(server, "boto-public")["bucketType"] == "allPublic", "public")
    for acl in ("public-read-write", "authenticated-read"):
        refused("InvalidArgument", 400, s3.create_bucket, Bucket="boto-acl", ACL=acl)
    refused("InvalidLocationConstraint", 400, s3.create_bucket, Bucket="boto-elsewhere",
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for name in ("ab", "a.b.cdef", "Foo_Bar", "-abcdef", "b2-foo1", "abcdef-", "x" * 64):
        answers(raw(server, "PUT", "/" + name), 400, "InvalidBucketName")
    s3.create_bucket(Bucket="x" * 63)
    for name in ("boto-made", "boto-public", "x" * 63):
        s3.delete_bucket(Bucket=name)


def s3_55_56_57_58_buckets_are_looked_at_and_deleted_when_empty(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-life")
    refused("BucketAlreadyOwnedByYou", 409, s3.create_bucket, Bucket="boto-life")
    head = s3.head_bucket(Bucket="boto-life")["ResponseMetadata"]["HTTPHeaders"]
    check(head["x-amz-bucket-region"] == "us-west-000", head)
    refused("404", 404, s3.head_bucket, Bucket="boto-nowhere")
    bound = client(server, make_key(server, ["listBuckets"], [bucket_id(server, "boto-life")]))
    bound.head_bucket(Bucket="boto-life")
    refused("403", 403, bound.head_bucket, Bucket="boto-nowhere")
    check(s3.get_bucket_location(Bucket="boto-life")["LocationConstraint"] == "us-west-000",
          "region")
    check(s3.get_bucket_versioning(Bucket="boto-life")["Status"] == "Enabled", "versions")
    s3.put_object(Bucket="boto-life", Key="k", Body=b"x")
    s3.delete_object(Bucket="boto-life", Key="k")
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket="boto-life")
    versions = s3.list_object_versions(Bucket="boto-life")
    s3.delete_object(Bucket="boto-life", Key="k", VersionId=versions["Versions"][0]["VersionId"])
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket="boto-life")
    empty_and_delete(s3, "boto-life")
    refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket="boto-life")
    s3.create_bucket(Bucket="boto-life")
    upload = s3.create_multipart_upload(Bucket="boto-life", Key="k")["UploadId"]
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket="boto-life")
    s3.abort_multipart_upload(Bucket="boto-life", Key="k", UploadId=upload)
    s3.delete_bucket(Bucket="boto-life")


def s3_19_dates_of_botocore_are_taken(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-dates")
    told = raw(server, "PUT", "/boto-dates/k", {"Date": "x"}, b"content")
    check("-0000" in told.asked_headers["Date"], told.asked_headers)
    answers(told, 200)


def s3_59_versions_cannot_be_turned_off(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-versioning")
    s3.put_bucket_versioning(Bucket="boto-versioning",
                             VersioningConfiguration={"Status": "Enabled"})
    off = {"Status": "Suspended"}
    refused("NotImplemented", 501, s3.put_bucket_versioning, Bucket="boto-versioning",
            VersioningConfiguration=off)
    s3.create_bucket(Bucket="boto-versioning-lock", ObjectLockEnabledForBucket=True)
    refused("InvalidBucketState", 409, s3.put_bucket_versioning, Bucket="boto-versioning-lock",
            VersioningConfiguration=off)


def s3_60_all_buckets_are_listed_by_name(server):
    s3 = client(server)
    for name in ("boto-list-b", "boto-list-a"):
        s3.create_bucket(Bucket=name)
    listed = s3.list_buckets()
    names = [bucket["Name"] for bucket in listed["Buckets"]]
    check(names == sorted(names) and "boto-list-a" in names, names)
    check(listed["Owner"] == {"ID": KEY_ID, "DisplayName": ""}, listed["Owner"])
    check(all(bucket["CreationDate"].year > 2020 for bucket in listed["Buckets"]), listed)
    one = [bucket_id(server, "boto-list-a")]
    bound = client(server, make_key(server, ["listBuckets"], one))
    refused("AccessDenied", 403, bound.list_buckets)
    knowing = client(server, make_key(server, ["listBuckets", "listAllBucketNames"], one))
    check([bucket["Name"] for bucket in knowing.list_buckets()["Buckets"]] == names, "all")


def s3_61_62_63_acls_are_the_kind_of_the_bucket(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-acl")
    stored = s3.put_object(Bucket="boto-acl", Key="k", Body=b"x", ACL="private")
    grants = s3.get_bucket_acl(Bucket="boto-acl")
    own = {"Grantee": {"ID": KEY_ID, "DisplayName": "", "Type": "CanonicalUser"},
           "Permission": "FULL_CONTROL"}
    check(grants["Owner"]["ID"] == KEY_ID and grants["Grants"] == [own], grants)
    s3.put_bucket_acl(Bucket="boto-acl", ACL="public-read")
    check(native_bucket(server, "boto-acl")["bucketType"] == "allPublic", "public")
    everybody = {"Grantee": {"URI": "http://acs.amazonaws.com/groups/global/AllUsers",
                             "Type": "Group"}, "Permission": "READ"}
    check(s3.get_bucket_acl(Bucket="boto-acl")["Grants"] == [own, everybody], "two grants")
    check(s3.get_object_acl(Bucket="boto-acl", Key="k")["Grants"] == [own, everybody], "object")
    told = s3.put_object_acl(Bucket="boto-acl", Key="k", ACL="public-read")
    check(told["ResponseMetadata"]["HTTPHeaders"]["x-amz-version-id"] == stored["VersionId"], told)
    refused("InvalidArgument", 400, s3.put_object_acl, Bucket="boto-acl", Key="k", ACL="private")
    refused("InvalidArgument", 400, s3.put_object, Bucket="boto-acl", Key="k", Body=b"",
            ACL="private")
    s3.put_bucket_acl(Bucket="boto-acl", ACL="private")
    check(native_bucket(server, "boto-acl")["bucketType"] == "allPrivate", "private again")
    body = (b'<AccessControlPolicy xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            b"<AccessControlList/></AccessControlPolicy>")
    answers(raw(server, "PUT", "/boto-acl?acl", body=body), 400, "InvalidArgument")
    answers(raw(server, "PUT", "/boto-acl?acl"), 400, "InvalidArgument")


def s3_64_65_what_others_have_is_refused_and_changes_nothing(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-refused")
    s3.put_object(Bucket="boto-refused", Key="k", Body=b"kept")
    for sub in ("tagging", "policy", "policyStatus", "publicAccessBlock", "ownershipControls",
                "website", "notification", "replication", "requestPayment", "accelerate",
                "analytics", "inventory", "metrics", "intelligent-tiering", "torrent", "select",
                "restore", "attributes"):
        for path in ("/boto-refused", "/boto-refused/k"):
            for method in ("GET", "PUT", "POST", "DELETE"):
                if sub == "attributes" and (path, method) != ("/boto-refused/k", "GET"):
                    continue
                if (sub, path, method) == ("replication", "/boto-refused", "GET"):
                    continue  # Shown, but not set.
                answers(raw(server, method, f"{path}?{sub}", body=b"<x/>"), 501, "NotImplemented")
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    answers(raw(server, "POST", "/boto-refused", form, b"--b--", signed=False), 501,
            "NotImplemented")
    check(s3.get_object(Bucket="boto-refused", Key="k")["Body"].read() == b"kept", "unchanged")


def s3_77_the_expected_owner_must_be_the_owner(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-owner")
    s3.put_object(Bucket="boto-owner", Key="k", Body=b"x", ExpectedBucketOwner=KEY_ID)
    wrong = {"ExpectedBucketOwner": "000000000000"}
    for call, more in ((s3.put_object, {"Key": "k"}), (s3.get_object, {"Key": "k"}),
                       (s3.list_objects_v2, {}), (s3.delete_object, {"Key": "k"}),
                       (s3.get_bucket_location, {}), (s3.delete_bucket, {})):
        refused("AccessDenied", 403, call, Bucket="boto-owner", **more, **wrong)


def s3_78_79_96_objects_are_kept_in_versions_and_read_on_both_sides(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-objects")
    native = api_v3(server).get_bucket_by_name("boto-objects")
    for size in (0, 1, 65_535, 65_536, 65_537, 16 * 1024 * 1024):
        body, name = os.urandom(size), f"size/{size}"
        stored = s3.put_object(Bucket="boto-objects", Key=name, Body=body)
        check(stored["ETag"] == f'"{md5(body)}"', stored)
        info = native_info(server, stored["VersionId"])
        check(info["contentMd5"] == md5(body) and info["fileName"] == name, info)
        check(info["contentSha1"] == "unverified:" + hashlib.sha1(body).hexdigest(), info)
        check(info["contentType"] == "binary/octet-stream", info)
        got = s3.get_object(Bucket="boto-objects", Key=name)
        check(got["Body"].read() == body and got["ETag"] == stored["ETag"], name)
        check(got["VersionId"] == stored["VersionId"], got)
        down = io.BytesIO()
        native.download_file_by_name(name).save(down)
        check(down.getvalue() == body, f"{name} natively")
    first = s3.put_object(Bucket="boto-objects", Key="twice", Body=b"one")["VersionId"]
    second = s3.put_object(Bucket="boto-objects", Key="twice", Body=b"two")["VersionId"]
    read = lambda **more: s3.get_object(Bucket="boto-objects", Key="twice", **more)["Body"].read()
    check(first != second and read() == b"two", "the newest")
    check(read(VersionId=first) == b"one" and read(VersionId=second) == b"two", "each")


def s3_80_81_82_headers_and_metadata_are_kept_and_shown_natively(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-meta")
    kept = {"CacheControl": "max-age=3", "ContentDisposition": 'attachment; filename="a.txt"',
            "ContentEncoding": "gzip", "ContentLanguage": "de", "ContentType": "text/x-a; b=c"}
    stored = s3.put_object(Bucket="boto-meta", Key="k", Body=b"x",
                           Expires="Tue, 04 Jan 2022 15:01:18 GMT",
                           Metadata={"Foo": "bar", "empty": "",
                                     "src_last_modified_millis": "1700000000123"}, **kept)
    for told in (s3.get_object(Bucket="boto-meta", Key="k"),
                 s3.head_object(Bucket="boto-meta", Key="k")):
        check({name: told[name] for name in kept} == kept, told)
        check(told["ExpiresString"] == "Tue, 04 Jan 2022 15:01:18 GMT", told)
        check(told["Metadata"] == {"foo": "bar", "empty": "",
                                   "src_last_modified_millis": "1700000000123"}, told)
    info = native_info(server, stored["VersionId"])
    check(info["fileInfo"] == {
        "b2-cache-control": "max-age=3", "b2-content-disposition": 'attachment; filename="a.txt"',
        "b2-content-encoding": "gzip", "b2-content-language": "de",
        "b2-expires": "Tue, 04 Jan 2022 15:01:18 GMT", "foo": "bar", "empty": "",
        "src_last_modified_millis": "1700000000123"}, info)
    native = api_v3(server).get_bucket_by_name("boto-meta")
    native.upload_bytes(b"y", "n", file_info={"src_last_modified_millis": "1", "uml": "\u00fc"})
    told = s3.head_object(Bucket="boto-meta", Key="n")["Metadata"]
    check(told == {"src_last_modified_millis": "1", "uml": "=?UTF-8?B?w7w=?="}, told)
    sent = raw(server, "PUT", "/boto-meta/u", {"x-amz-meta-uml": "=?UTF-8?B?w7w=?="})
    answers(sent, 200)
    told = s3.head_object(Bucket="boto-meta", Key="u")["Metadata"]
    check(told == {"uml": "=?UTF-8?B?w7w=?="}, told)
    check(native_info(server, sent.headers["x-amz-version-id"])["fileInfo"] == {"uml": "\u00fc"},
          "natively")
    refused("InvalidArgument", 400, s3.put_object, Bucket="boto-meta", Key="many", Body=b"",
            Metadata={f"m{number}": "" for number in range(11)})
    refused("MetadataTooLarge", 400, s3.put_object, Bucket="boto-meta", Key="long", Body=b"",
            Metadata={"m": "v" * 7100})


def s3_83_84_85_unknown_headers_classes_and_conditions_are_refused(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-headers")
    for name, value in (("x-amz-tagging", ""), ("x-amz-website-redirect-location", "/"),
                        ("x-amz-grant-read", "id=1"), ("x-amz-unheard-of", "1")):
        told = raw(server, "PUT", "/boto-headers/k", {name: value})
        answers(told, 400, "InvalidArgument")
        check(f"Unsupported header '{name}' received for this API call." in told.text, told.text)
    s3.put_object(Bucket="boto-headers", Key="k", Body=b"", StorageClass="STANDARD")
    refused("InvalidStorageClass", 400, s3.put_object, Bucket="boto-headers", Key="k", Body=b"",
            StorageClass="GLACIER")
    before = len(s3.list_object_versions(Bucket="boto-headers")["Versions"])
    for name, value in (("If-None-Match", "*"), ("If-Match", '"x"')):
        told = raw(server, "PUT", "/boto-headers/k", {name: value}, b"x")
        answers(told, 501, "NotImplemented")
        check(f"<Header>{name}</Header>" in told.text, told.text)
        check("A header you provided implies functionality that is not implemented" in told.text,
              told.text)
    check(len(s3.list_object_versions(Bucket="boto-headers")["Versions"]) == before, "nothing made")


def s3_86_conditions_of_reads_are_kept(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-conditions")
    stored = s3.put_object(Bucket="boto-conditions", Key="k", Body=b"content")
    tag, at = stored["ETag"], s3.head_object(Bucket="boto-conditions", Key="k")["LastModified"]
    day = __import__("datetime").timedelta(days=1)
    table = [
        ({"IfMatch": tag}, 200), ({"IfMatch": '"x"'}, 412), ({"IfNoneMatch": tag}, 304),
        ({"IfNoneMatch": '"x"'}, 200), ({"IfModifiedSince": at - day}, 200),
        ({"IfModifiedSince": at}, 304), ({"IfUnmodifiedSince": at - day}, 412),
        ({"IfUnmodifiedSince": at}, 200),
        ({"IfMatch": tag, "IfUnmodifiedSince": at - day}, 200),
        ({"IfNoneMatch": '"x"', "IfModifiedSince": at}, 200),
        ({"IfNoneMatch": tag, "IfModifiedSince": at - day}, 304),
        ({"IfMatch": '"x"', "IfNoneMatch": tag}, 412)]
    for asked, status in table:
        for call, coded in ((s3.get_object, True), (s3.head_object, False)):
            if status == 200:
                call(Bucket="boto-conditions", Key="k", **asked)
                continue
            code = {412: "PreconditionFailed" if coded else "412", 304: "304"}[status]
            refused(code, status, call, Bucket="boto-conditions", Key="k", **asked)
    told = raw(server, "GET", "/boto-conditions/k", {"If-None-Match": tag})
    check((told.status_code, told.headers["ETag"], told.content) == (304, tag, b""), told.headers)


def s3_87_89_ranges_and_heads(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-ranges")
    s3.put_object(Bucket="boto-ranges", Key="k", Body=b"0123456789", ContentType="a/b")
    s3.put_object(Bucket="boto-ranges", Key="empty", Body=b"")
    for asked, status, body in (
            ("bytes=0-3", 206, b"0123"), ("bytes=4-6", 206, b"456"), ("bytes=-3", 206, b"789"),
            ("bytes=7-", 206, b"789"), ("bytes=8-99", 206, b"89"), ("bytes=1-2,4-5", 200, None),
            ("bytes=x", 200, None), ("bytes=5-2", 200, None)):
        told = raw(server, "GET", "/boto-ranges/k", {"Range": asked})
        check((told.status_code, told.content) == (status, body or b"0123456789"), asked)
        head = raw(server, "HEAD", "/boto-ranges/k", {"Range": asked})
        check(head.status_code == status and head.content == b"", asked)
        for name in ("Content-Length", "Content-Range", "ETag", "Content-Type", "Last-Modified",
                     "x-amz-version-id", "Accept-Ranges"):
            check(head.headers.get(name) == told.headers.get(name), f"{asked} {name}")
        check(int(head.headers["Content-Length"]) == len(told.content), asked)
    for name, asked, size in (("k", "bytes=10-", 10), ("empty", "bytes=0-", 0)):
        told = answers(raw(server, "GET", f"/boto-ranges/{name}", {"Range": asked}), 416,
                       "InvalidRange")
        check(told.headers["Content-Range"] == f"bytes */{size}", told.headers)
    check(raw(server, "GET", "/boto-ranges/empty").status_code == 200, "an empty object")


def s3_90_91_92_93_98_deleting_hides_and_versions_are_deleted(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-delete")
    at = {"Bucket": "boto-delete"}
    kept = s3.put_object(**at, Key="k", Body=b"x")["VersionId"]
    told = s3.delete_object(**at, Key="k")
    marker = told["VersionId"]
    check(told["DeleteMarker"] and told["ResponseMetadata"]["HTTPStatusCode"] == 204, told)
    absent = refused("NoSuchKey", 404, s3.get_object, **at, Key="k")
    headers = absent["ResponseMetadata"]["HTTPHeaders"]
    check((headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == ("true", marker), headers)
    listed = server.call("b2_list_file_versions", {"bucketId": bucket_id(server, "boto-delete")})
    check([(one["action"], one["fileId"]) for one in listed["files"]]
          == [("hide", marker), ("upload", kept)], listed)
    shown = refused("MethodNotAllowed", 405, s3.get_object, **at, Key="k", VersionId=marker)
    check(shown["ResponseMetadata"]["HTTPHeaders"]["allow"] == "DELETE", shown)
    check(s3.get_object(**at, Key="k", VersionId=kept)["Body"].read() == b"x", "by id")
    again = s3.delete_object(**at, Key="k")["VersionId"]
    check(again != marker, "another marker")
    for one in (again, marker):
        told = s3.delete_object(**at, Key="k", VersionId=one)
        check(told["DeleteMarker"] and told["VersionId"] == one, told)
    check(s3.get_object(**at, Key="k")["Body"].read() == b"x", "shown again")
    refused("InvalidArgument", 400, s3.get_object, **at, Key="k", VersionId="nonsense")
    refused("NoSuchVersion", 404, s3.get_object, **at, Key="other", VersionId=kept)
    unknown = kept.replace("_f1", "_f3", 1)
    refused("NoSuchVersion", 404, s3.get_object, **at, Key="k", VersionId=unknown)
    s3.delete_object(**at, Key="k", VersionId=unknown)
    check(s3.get_object(**at, Key="k")["Body"].read() == b"x", "nothing happened")
    check("DeleteMarker" not in s3.delete_object(**at, Key="k", VersionId=kept), "a version")
    check("Contents" not in s3.list_objects_v2(**at), "gone")
    told = s3.delete_object(**at, Key="never")
    check(told["DeleteMarker"], "a marker for what never was")
    native = api_v3(server).get_bucket_by_name("boto-delete")
    hidden = native.upload_bytes(b"n", "native")
    native.hide_file("native")
    markers = s3.list_object_versions(**at, Prefix="native")["DeleteMarkers"]
    check(len(markers) == 1 and markers[0]["IsLatest"], markers)
    native.api.delete_file_version(hidden.id_, "native")
    check("Versions" not in s3.list_object_versions(**at, Prefix="native"), "gone here too")


def s3_94_many_are_deleted_at_once(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-many", ObjectLockEnabledForBucket=True)
    at = {"Bucket": "boto-many"}
    ids = [s3.put_object(**at, Key=f"k{number}", Body=b"")["VersionId"] for number in range(3)]
    held = s3.put_object(**at, Key="held", Body=b"", ObjectLockLegalHoldStatus="ON")["VersionId"]
    told = s3.delete_objects(**at, Delete={"Objects": [
        {"Key": "k0", "VersionId": ids[0]}, {"Key": "k1"}, {"Key": "k1"}, {"Key": "a b&<"},
        {"Key": "held", "VersionId": held}]})
    gone = told["Deleted"]
    check([one["Key"] for one in gone] == ["k0", "k1", "k1", "a b&<"], told)
    check("DeleteMarker" not in gone[0] and all(one["DeleteMarker"] for one in gone[1:]), told)
    check([(one["Key"], one["Code"]) for one in told["Errors"]] == [("held", "AccessDenied")], told)
    quiet = s3.delete_objects(**at, Delete={"Quiet": True, "Objects": [{"Key": "k2"}]})
    check("Deleted" not in quiet and "Errors" not in quiet, quiet)
    thousand = [{"Key": f"never/{number}"} for number in range(1000)]
    check(len(s3.delete_objects(**at, Delete={"Objects": thousand})["Deleted"]) == 1000, "1000")
    refused("MalformedXML", 400, s3.delete_objects, **at,
            Delete={"Objects": thousand + [{"Key": "one more"}]})
    body = b"<Delete><Object><Key>k2</Key></Object></Delete>"
    answers(raw(server, "POST", "/boto-many?delete", body=body), 400, "InvalidRequest")
    digest = __import__("base64").b64encode(hashlib.md5(body).digest()).decode()
    answers(raw(server, "POST", "/boto-many?delete", {"Content-MD5": digest}, body), 200)
    wrong = __import__("base64").b64encode(hashlib.md5(b"").digest()).decode()
    answers(raw(server, "POST", "/boto-many?delete", {"Content-MD5": wrong}, body), 400,
            "BadDigest")


def s3_95_152_keys_are_bytes_and_never_paths(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-keys")
    keys = ["a/../b", "//x", "x/", ".", "..", "../../../../etc/passwd", "k" * 1024,
            "\U0001f600/\u00fc", "%2F", "a%2Fb", "a/b", "a+b", "a b", "a?b", "a#b", "\\", "&<>\"'"]
    for number, key in enumerate(keys):
        answers(raw(server, "PUT", "/boto-keys/" + quoted(key), body=b"%d" % number), 200)
    for number, key in enumerate(keys):
        got = answers(raw(server, "GET", "/boto-keys/" + quoted(key)), 200)
        check(got.content == b"%d" % number, key)
    listed = s3.list_objects_v2(Bucket="boto-keys")["Contents"]
    check([one["Key"] for one in listed] == sorted(keys, key=str.encode), listed)
    answers(raw(server, "PUT", "/boto-keys/%2e%2e%2f%2e%2e%2fx", body=b"dots"), 200)
    check(s3.get_object(Bucket="boto-keys", Key="../../x")["Body"].read() == b"dots", "decoded once")
    answers(raw(server, "PUT", "/boto-keys/" + "k" * 1025), 400, "KeyTooLongError")
    answers(raw(server, "PUT", "/boto-keys/a%00b"), 400, "InvalidArgument")
    names = {path.name for path in server.folder.rglob("*")}
    check(not names & {"passwd", "x", "b"}, "no file is named after a key")


def s3_97_native_uploads_are_read_with_their_tags(server):
    s3 = client(server)
    s3.create_bucket(Bucket="boto-native")
    native = api_v3(server).get_bucket_by_name("boto-native")
    native.upload_bytes(b"small", "small", content_type="text/plain", file_info={"a": "b"})
    got = s3.get_object(Bucket="boto-native", Key="small")
    check(got["ETag"] == f'"{md5(b"small")}"' and got["Body"].read() == b"small", got)
    check(got["ContentType"] == "text/plain" and got["Metadata"] == {"a": "b"}, got)
    parts = [os.urandom(5_000_000), os.urandom(5_000_000), b"end"]
    from b2sdk.v3 import UploadSourceBytes, WriteIntent
    large = native.create_file(
        [WriteIntent(UploadSourceBytes(b"".join(parts)))], "large",
        min_part_size=5_000_000, recommended_upload_part_size=5_000_000)
    shown = s3.head_object(Bucket="boto-native", Key="large")
    count = int(shown["ETag"].strip('"').split("-")[1])
    check(shown["VersionId"] == large.id_ and count >= 2, shown)
    whole = s3.get_object(Bucket="boto-native", Key="large")["Body"].read()
    check(whole == b"".join(parts), "content")
    read = [s3.get_object(Bucket="boto-native", Key="large", PartNumber=number + 1)
            for number in range(count)]
    pieces = [one["Body"].read() for one in read]
    check(b"".join(pieces) == whole and all(one["PartsCount"] == count for one in read), "parts")
    digests = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    check(shown["ETag"] == f'"{md5(digests)}-{count}"', shown)


CHECKS = [
    s3_51_52_53_54_buckets_are_made_in_both_kinds_and_shown_natively,
    s3_55_56_57_58_buckets_are_looked_at_and_deleted_when_empty,
    s3_19_dates_of_botocore_are_taken,
    s3_59_versions_cannot_be_turned_off,
    s3_60_all_buckets_are_listed_by_name,
    s3_61_62_63_acls_are_the_kind_of_the_bucket,
    s3_64_65_what_others_have_is_refused_and_changes_nothing,
    s3_77_the_expected_owner_must_be_the_owner,
    s3_78_79_96_objects_are_kept_in_versions_and_read_on_both_sides,
    s3_80_81_82_headers_and_metadata_are_kept_and_shown_natively,
    s3_83_84_85_unknown_headers_classes_and_conditions_are_refused,
    s3_86_conditions_of_reads_are_kept,
    s3_87_89_ranges_and_heads,
    s3_90_91_92_93_98_deleting_hides_and_versions_are_deleted,
    s3_94_many_are_deleted_at_once,
    s3_95_152_keys_are_bytes_and_never_paths,
    s3_97_native_uploads_are_read_with_their_tags,
]
