"""Multipart uploads and copies over the S3-compatible API, each read on the native side too."""

import hashlib
import os
import threading

import boto3.s3.transfer

from kiln import KEY_ID, Server, check
from s3 import (
    answers, bucket_id, client, make_key, native_info, raw, refused)
from with_b2sdk import api_v3

PART = 5_000_000


def md5(*pieces):
    return hashlib.md5(b"".join(pieces)).hexdigest()


def tag_of(pieces):
    digests = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    return f'"{md5(digests)}-{len(pieces)}"'


def send(s3, at, upload, pieces, first=1):
    tags = []
    for number, piece in enumerate(pieces, first):
        told = s3.upload_part(**at, UploadId=upload, PartNumber=number, Body=piece)
        check(told["ETag"] == f'"{md5(piece)}"', told)
        tags.append({"PartNumber": number, "ETag": told["ETag"]})
    return tags


def s3_109_118_uploads_in_parts_become_objects(server):
    s3 = client(server)
    s3.create_bucket(Bucket="parts-made")
    for pieces in ([b"lonely"], [os.urandom(PART), os.urandom(PART), b"end"]):
        at = {"Bucket": "parts-made", "Key": f"of {len(pieces)}"}
        begun = s3.create_multipart_upload(
            **at, Metadata={"a": "b"}, ContentType="x/y", CacheControl="no-store",
            ServerSideEncryption="AES256", ACL="private")
        upload = begun["UploadId"]
        check(begun["ResponseMetadata"]["HTTPHeaders"]["x-amz-version-id"] == upload, begun)
        check(begun["ServerSideEncryption"] == "AES256", begun)
        tags = send(s3, at, upload, pieces)
        told = s3.complete_multipart_upload(
            **at, UploadId=upload, MultipartUpload={"Parts": tags})
        check(told["ETag"] == tag_of(pieces) and told["VersionId"] == upload, told)
        check(told["Location"] == f"/parts-made/of {len(pieces)}", told)
        got = s3.get_object(**at)
        check(got["Body"].read() == b"".join(pieces) and got["ETag"] == told["ETag"], "content")
        check((got["Metadata"], got["ContentType"], got["CacheControl"],
               got["ServerSideEncryption"]) == ({"a": "b"}, "x/y", "no-store", "AES256"), got)
        info = native_info(server, upload)
        check(info["contentSha1"] == "none" and info["contentMd5"] is None, info)
        check(info["serverSideEncryption"]["mode"] == "SSE-B2", info)


def s3_109_116_a_thousand_parts(_):
    server = Server("--limits-part-size-min", "1")
    try:
        s3 = client(server)
        s3.create_bucket(Bucket="parts-thousand")
        at = {"Bucket": "parts-thousand", "Key": "k"}
        upload = s3.create_multipart_upload(**at)["UploadId"]
        pieces = [b"%d" % number for number in range(1000)]
        tags = send(s3, at, upload, pieces)
        listed = []
        for page in s3.get_paginator("list_parts").paginate(
                **at, UploadId=upload, PaginationConfig={"PageSize": 300}):
            listed += [(one["PartNumber"], one["ETag"], one["Size"]) for one in page["Parts"]]
        check(listed == [(tag["PartNumber"], tag["ETag"], len(piece))
                         for tag, piece in zip(tags, pieces)], "listed")
        told = s3.list_parts(**at, UploadId=upload, MaxParts=2, PartNumberMarker=5)
        check([one["PartNumber"] for one in told["Parts"]] == [6, 7], told)
        check((told["IsTruncated"], told["NextPartNumberMarker"]) == (True, 7), told)
        check(told["Owner"]["ID"] == told["Initiator"]["ID"] == KEY_ID, told)
        told = s3.complete_multipart_upload(
            **at, UploadId=upload, MultipartUpload={"Parts": tags})
        check(told["ETag"] == tag_of(pieces), told)
        check(s3.get_object(**at)["Body"].read() == b"".join(pieces), "content")
    finally:
        server.stop()


def s3_110_one_upload_is_both_sides(server):
    s3 = client(server)
    s3.create_bucket(Bucket="parts-mixed")
    at = {"Bucket": "parts-mixed", "Key": "k"}
    upload = s3.create_multipart_upload(**at)["UploadId"]
    send(s3, at, upload, [b"one", b"two"])
    listed = server.call("b2_list_parts", {"fileId": upload})["parts"]
    check([part["contentSha1"] for part in listed]
          == ["unverified:" + hashlib.sha1(piece).hexdigest() for piece in (b"one", b"two")]
          or [part["contentSha1"] for part in listed]
          == [hashlib.sha1(piece).hexdigest() for piece in (b"one", b"two")], listed)
    server.call("b2_cancel_large_file", {"fileId": upload})
    refused("NoSuchUpload", 404, s3.list_parts, **at, UploadId=upload)
    native = server.call("b2_start_large_file", {
        "bucketId": bucket_id(server, "parts-mixed"), "fileName": "k", "contentType": "a/b"})
    pieces = [os.urandom(PART), b"end"]
    tags = send(s3, at, native["fileId"], pieces)
    s3.complete_multipart_upload(
        **at, UploadId=native["fileId"], MultipartUpload={"Parts": tags})
    check(s3.get_object(**at)["Body"].read() == b"".join(pieces), "content")
    upload = s3.create_multipart_upload(**at)["UploadId"]
    send(s3, at, upload, pieces)
    server.call("b2_finish_large_file", {
        "fileId": upload, "partSha1Array": [hashlib.sha1(piece).hexdigest() for piece in pieces]})
    check(s3.get_object(**at)["VersionId"] == upload, "finished natively")


def s3_111_112_113_114_what_completes_an_upload(server):
    s3 = client(server)
    s3.create_bucket(Bucket="parts-rules")
    at = {"Bucket": "parts-rules", "Key": "k"}
    upload = s3.create_multipart_upload(**at)["UploadId"]
    for number in ("0", "10001", "abc", ""):
        answers(raw(server, "PUT", f"/parts-rules/k?uploadId={upload}&partNumber={number}",
                    body=b"x"), 400, "InvalidArgument")
    done = lambda tags, upload=upload, **more: {
        **at, "UploadId": upload, "MultipartUpload": {"Parts": tags}, **more}
    big, small = os.urandom(PART), os.urandom(PART - 1)
    tags = send(s3, at, upload, [b"other", small, b"end", b"unused"])
    tags[0] = send(s3, at, upload, [big])[0]
    complete = s3.complete_multipart_upload
    refused("InvalidPartOrder", 400, complete, **done([tags[2], tags[0]]))
    refused("InvalidPartOrder", 400, complete, **done([tags[0], tags[0]]))
    refused("InvalidPart", 400, complete, **done([{"PartNumber": 1, "ETag": tags[1]["ETag"]}]))
    refused("InvalidPart", 400, complete, **done([{"PartNumber": 9, "ETag": tags[1]["ETag"]}]))
    refused("EntityTooSmall", 400, complete, **done([tags[0], tags[1], tags[2]]))
    body = b"<CompleteMultipartUpload></CompleteMultipartUpload>"
    answers(raw(server, "POST", f"/parts-rules/k?uploadId={upload}", body=body), 400,
            "MalformedXML")
    for wrong in ("x", upload.replace("_f2", "_f3")):
        refused("NoSuchUpload", 404, complete, **done([tags[0]], wrong))
    refused("NoSuchUpload", 404, complete, **{**done([tags[0]]), "Key": "another"})
    bare = [{"PartNumber": one["PartNumber"], "ETag": one["ETag"].strip('"')}
            for one in (tags[0], tags[2])]
    told = complete(**done(bare))
    check(told["ETag"] == tag_of([big, b"end"]), told)
    check(s3.get_object(**at)["Body"].read() == big + b"end", "only the parts that were named")
    again = complete(**done([tags[0], tags[2]]))
    check((again["ETag"], again["VersionId"]) == (told["ETag"], upload), "the same answer again")
    refused("NoSuchUpload", 404, complete, **done([tags[0]]))
    check(len(s3.list_object_versions(Bucket="parts-rules")["Versions"]) == 1, "one version")


def s3_115_an_aborted_upload_is_gone(server):
    s3 = client(server)
    s3.create_bucket(Bucket="parts-abort")
    at = {"Bucket": "parts-abort", "Key": "k"}
    upload = s3.create_multipart_upload(**at)["UploadId"]
    send(s3, at, upload, [os.urandom(PART)])
    told = s3.abort_multipart_upload(**at, UploadId=upload)
    check(told["ResponseMetadata"]["HTTPStatusCode"] == 204, told)
    for call, more in ((s3.abort_multipart_upload, {}), (s3.list_parts, {}),
                       (s3.upload_part, {"PartNumber": 1, "Body": b"x"})):
        refused("NoSuchUpload", 404, call, **at, UploadId=upload, **more)
    check("Uploads" not in s3.list_multipart_uploads(Bucket="parts-abort"), "none")
    s3.delete_bucket(Bucket="parts-abort")


def s3_120_uploads_of_one_key_are_independent(server):
    s3 = client(server)
    s3.create_bucket(Bucket="parts-two")
    at = {"Bucket": "parts-two", "Key": "k"}
    uploads = [s3.create_multipart_upload(**at)["UploadId"] for _ in range(2)]
    tags = [send(s3, at, upload, [b"%d" % number]) for number, upload in enumerate(uploads)]
    for upload, parts in list(zip(uploads, tags))[::-1]:
        s3.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts})
    check(s3.get_object(**at)["Body"].read() == b"1", "the one that was begun last")
    check(s3.get_object(**at, VersionId=uploads[0])["Body"].read() == b"0", "and the other")


def s3_88_parts_are_read_one_by_one(server):
    s3 = client(server)
    s3.create_bucket(Bucket="parts-read")
    at = {"Bucket": "parts-read", "Key": "k"}
    upload = s3.create_multipart_upload(**at)["UploadId"]
    pieces = [os.urandom(PART), os.urandom(PART), b"end"]
    tags = send(s3, at, upload, pieces)
    s3.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": tags})
    for number, piece in enumerate(pieces, 1):
        told = s3.get_object(**at, PartNumber=number)
        check((told["Body"].read() == piece, told["PartsCount"]) == (True, 3), number)
        check(told["ResponseMetadata"]["HTTPStatusCode"] == 206, told)
        check(s3.head_object(**at, PartNumber=number)["ContentLength"] == len(piece), number)
    refused("InvalidPartNumber", 416, s3.get_object, **at, PartNumber=4)
    s3.put_object(Bucket="parts-read", Key="whole", Body=b"x")
    told = s3.get_object(Bucket="parts-read", Key="whole", PartNumber=1)
    check(told["Body"].read() == b"x" and "PartsCount" not in told, told)
    refused("InvalidPartNumber", 416, s3.get_object, Bucket="parts-read", Key="whole",
            PartNumber=2)
    s3.put_object(Bucket="parts-read", Key="empty", Body=b"")
    check(s3.get_object(Bucket="parts-read", Key="empty", PartNumber=1)["Body"].read() == b"",
          "empty")


def s3_100_101_102_107_108_objects_are_copied(server):
    s3 = client(server)
    for name in ("copy-from", "copy-to"):
        s3.create_bucket(Bucket=name)
    old = s3.put_object(Bucket="copy-from", Key="a+b/\u00fc c", Body=b"old")["VersionId"]
    new = s3.put_object(Bucket="copy-from", Key="a+b/\u00fc c", Body=b"new", ContentType="x/y",
                        Metadata={"a": "b"})["VersionId"]
    source = {"Bucket": "copy-from", "Key": "a+b/\u00fc c"}
    for bucket in ("copy-from", "copy-to"):
        told = s3.copy_object(Bucket=bucket, Key="copied", CopySource=source)
        check(told["CopySourceVersionId"] == new and told["VersionId"] != new, told)
        check(told["CopyObjectResult"]["ETag"] == f'"{md5(b"new")}"', told)
        check(told["CopyObjectResult"]["LastModified"].year > 2020, told)
        got = s3.get_object(Bucket=bucket, Key="copied")
        check((got["Body"].read(), got["ContentType"], got["Metadata"])
              == (b"new", "x/y", {"a": "b"}), got)
    s3.copy_object(Bucket="copy-to", Key="copied", CopySource={**source, "VersionId": old})
    check(s3.get_object(Bucket="copy-to", Key="copied")["Body"].read() == b"old", "by version")
    told = raw(server, "PUT", "/copy-to/slash", {
        "x-amz-copy-source": "/copy-from/a%2Bb/%C3%BC%20c", "x-amz-tagging-directive": "COPY"})
    answers(told, 200)
    answers(raw(server, "PUT", "/copy-to/t", {
        "x-amz-copy-source": "/copy-from/a%2Bb/%C3%BC%20c", "x-amz-tagging": ""}), 400,
        "InvalidArgument")
    s3.copy_object(Bucket="copy-to", Key="replaced", CopySource=source, ContentType="n/t",
                   MetadataDirective="REPLACE", Metadata={"c": "d"})
    got = s3.head_object(Bucket="copy-to", Key="replaced")
    check((got["ContentType"], got["Metadata"]) == ("n/t", {"c": "d"}), got)
    refused("InvalidRequest", 400, s3.copy_object, **source, CopySource=source)
    s3.copy_object(**source, CopySource=source, MetadataDirective="REPLACE", Metadata={})
    check(s3.head_object(**source)["Metadata"] == {}, "onto itself")
    check(s3.get_object(**source)["Body"].read() == b"new", "the same content")
    big = os.urandom(1_000_000)
    one = s3.put_object(Bucket="copy-from", Key="big", Body=big)["VersionId"]
    s3.copy_object(Bucket="copy-to", Key="big", CopySource={"Bucket": "copy-from", "Key": "big"})
    blobs = [path for path in (server.folder / "data" / "blobs").rglob("*")
             if path.is_file() and path.read_bytes() == big]
    check(len(blobs) == 1, blobs)
    pieces = [os.urandom(PART), b"end"]
    at = {"Bucket": "copy-from", "Key": "parts"}
    upload = s3.create_multipart_upload(**at)["UploadId"]
    s3.complete_multipart_upload(
        **at, UploadId=upload, MultipartUpload={"Parts": send(s3, at, upload, pieces)})
    told = s3.copy_object(Bucket="copy-to", Key="parts", CopySource=at)
    shown = s3.head_object(Bucket="copy-to", Key="parts", PartNumber=2)
    check(told["CopyObjectResult"]["ETag"] == shown["ETag"] == tag_of(pieces), (told, shown))
    check((shown["PartsCount"], shown["ContentLength"]) == (2, 3), shown)
    digest = hashlib.sha1(b"".join(pieces)).hexdigest()
    check(native_info(server, shown["VersionId"])["contentSha1"] == digest, "natively")
    s3.delete_object(Bucket="copy-from", Key="big", VersionId=one)
    check(s3.get_object(Bucket="copy-to", Key="big")["Body"].read() == big, "still there")


def s3_103_104_105_150_sources_must_be_there_and_readable(server):
    s3 = client(server)
    s3.create_bucket(Bucket="copy-rules")
    at = {"Bucket": "copy-rules"}
    stored = s3.put_object(**at, Key="k", Body=b"x")
    from_k = {**at, "Key": "k"}
    modified = s3.head_object(**from_k)["LastModified"]
    day = __import__("datetime").timedelta(days=1)
    for condition, fits in (
            ({"CopySourceIfMatch": stored["ETag"]}, True), ({"CopySourceIfMatch": '"x"'}, False),
            ({"CopySourceIfNoneMatch": '"x"'}, True),
            ({"CopySourceIfNoneMatch": stored["ETag"]}, False),
            ({"CopySourceIfModifiedSince": modified - day}, True),
            ({"CopySourceIfModifiedSince": modified}, False),
            ({"CopySourceIfUnmodifiedSince": modified}, True),
            ({"CopySourceIfUnmodifiedSince": modified - day}, False)):
        asked = {**at, "Key": "copy", "CopySource": from_k, **condition}
        if fits:
            s3.copy_object(**asked)
        else:
            refused("PreconditionFailed", 412, s3.copy_object, **asked)
    made = __import__("kiln").post(
        server.admin + "/admin/accounts", {"name": "copy-other"},
        "Basic " + __import__("base64").b64encode(
            f"{KEY_ID}:{__import__('kiln').KEY}".encode()).decode())
    token = server.authorize(made["applicationKeyId"], made["applicationKey"])
    server.call("b2_create_bucket", {
        "accountId": made["accountId"], "bucketName": "copy-foreign", "bucketType": "allPrivate"},
        token["authorizationToken"])
    answers_to = lambda code, status, source, who=s3: refused(
        code, status, who.copy_object, **at, Key="copy", CopySource=source)
    answers_to("AccessDenied", 403, {"Bucket": "copy-foreign", "Key": "k"})
    answers_to("NoSuchBucket", 404, {"Bucket": "copy-nowhere", "Key": "k"})
    answers_to("NoSuchKey", 404, {**at, "Key": "nothing"})
    writer = client(server, make_key(server, ["writeFiles"]))
    answers_to("AccessDenied", 403, from_k, writer)
    reader = client(server, make_key(server, ["readFiles"]))
    answers_to("AccessDenied", 403, from_k, reader)
    s3.put_object(**at, Key="outside/k", Body=b"x")
    inside = client(server, make_key(
        server, ["readFiles", "writeFiles"], [bucket_id(server, "copy-rules")], "in/"))
    refused("AccessDenied", 403, inside.copy_object, **at, Key="in/k",
            CopySource={**at, "Key": "outside/k"})
    refused("AccessDenied", 403, inside.copy_object, **at, Key="outside/n",
            CopySource={**at, "Key": "in/k"})
    upload = s3.create_multipart_upload(**at, Key="in/parts")["UploadId"]
    refused("AccessDenied", 403, inside.upload_part_copy, **at, Key="in/parts", PartNumber=1,
            UploadId=upload, CopySource={**at, "Key": "outside/k"})
    refused("AccessDenied", 403, writer.upload_part_copy, **at, Key="in/parts", PartNumber=1,
            UploadId=upload, CopySource=from_k)
    refused("AccessDenied", 403, reader.upload_part_copy, **at, Key="in/parts", PartNumber=1,
            UploadId=upload, CopySource=from_k)
    marker = s3.delete_object(**from_k)["VersionId"]
    answers_to("NoSuchKey", 404, from_k)
    answers_to("InvalidRequest", 400, {**from_k, "VersionId": marker})


def s3_117_parts_are_copied_whole_and_in_stretches(server):
    s3 = client(server)
    s3.create_bucket(Bucket="copy-parts")
    body = os.urandom(PART + 1000)
    s3.put_object(Bucket="copy-parts", Key="from \u00fc", Body=body)
    at = {"Bucket": "copy-parts", "Key": "to"}
    upload = s3.create_multipart_upload(**at)["UploadId"]
    source = {"Bucket": "copy-parts", "Key": "from \u00fc"}
    copy = lambda number, **more: s3.upload_part_copy(
        **at, UploadId=upload, PartNumber=number, CopySource=source, **more)
    told = [copy(1)["CopyPartResult"],
            copy(2, CopySourceRange=f"bytes=1000-{PART + 999}")["CopyPartResult"],
            copy(3, CopySourceRange="bytes=5-14")["CopyPartResult"]]
    pieces = [body, body[1000:], body[5:15]]
    check([one["ETag"] for one in told] == [f'"{md5(piece)}"' for piece in pieces], told)
    for wrong, code, status in (("bytes=0-99999999", "InvalidRange", 416),
                                ("bytes=5", "InvalidArgument", 400),
                                ("bytes=9-5", "InvalidArgument", 400),
                                ("0-5", "InvalidArgument", 400), ("bytes=-5", "InvalidArgument", 400)):
        refused(code, status, copy, number=4, CopySourceRange=wrong)
    tags = [{"PartNumber": number, "ETag": one["ETag"]} for number, one in enumerate(told, 1)]
    done = s3.complete_multipart_upload(
        **at, UploadId=upload, MultipartUpload={"Parts": tags})
    check(done["ETag"] == tag_of(pieces), done)
    check(s3.get_object(**at)["Body"].read() == b"".join(pieces), "content")
    for number, piece in enumerate(pieces, 1):
        check(s3.get_object(**at, PartNumber=number)["Body"].read() == piece, number)


def s3_96_the_transfers_of_boto3_work_at_any_size(server):
    s3 = client(server)
    s3.create_bucket(Bucket="parts-transfer")
    config = boto3.s3.transfer.TransferConfig(multipart_threshold=PART, multipart_chunksize=5242880)
    folder = server.folder / "transfer"
    folder.mkdir()
    for size in (0, 1, PART - 1, 23_000_000):
        up, down = folder / f"up{size}", folder / f"down{size}"
        up.write_bytes(os.urandom(size))
        s3.upload_file(str(up), "parts-transfer", f"k{size}", Config=config)
        s3.download_file("parts-transfer", f"k{size}", str(down), Config=config)
        check(up.read_bytes() == down.read_bytes(), size)
        s3.copy({"Bucket": "parts-transfer", "Key": f"k{size}"}, "parts-transfer", f"c{size}",
                Config=config)
        native = folder / f"native{size}"
        api_v3(server).get_bucket_by_name("parts-transfer").download_file_by_name(
            f"c{size}").save_to(native)
        check(up.read_bytes() == native.read_bytes(), f"{size} natively")
    waiter = s3.get_waiter("object_exists")
    waiter.wait(Bucket="parts-transfer", Key="k1")


def value_of(algorithm, content):
    """A checksum in base64, computed by the libraries of Python."""
    import base64
    import zlib
    if algorithm == "CRC32":
        return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    return base64.b64encode(getattr(hashlib, algorithm.lower())(content).digest()).decode()


def s3_46_47_119_checksums_are_kept_and_told(server):
    import base64
    s3 = client(server)
    s3.create_bucket(Bucket="sums-kept")
    at = {"Bucket": "sums-kept"}
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        field = f"Checksum{algorithm}"
        value = value_of(algorithm, b"content")
        told = s3.put_object(**at, Key="k", Body=b"content", ChecksumAlgorithm=algorithm)
        check(told[field] == value, told)
        for call in (s3.get_object, s3.head_object):
            told = call(**at, Key="k", ChecksumMode="ENABLED")
            check((told[field], told["ChecksumType"]) == (value, "FULL_OBJECT"), told)
        plain = client(server, response_checksum_validation="when_required")
        check(field not in plain.get_object(**at, Key="k"), "not asked for")
        check(field not in s3.get_object(**at, Key="k", Range="bytes=0-2", ChecksumMode="ENABLED"),
              "of a part it would be another")
        refused("BadDigest", 400, s3.put_object, **at, Key="k", Body=b"other", **{field: value})
        refused("InvalidRequest", 400, s3.put_object, **at, Key="k", Body=b"x", **{field: "short"})
        copied = s3.copy_object(**at, Key="c", CopySource={**at, "Key": "k"})
        check(s3.head_object(**at, Key="c", ChecksumMode="ENABLED")[field] == value, copied)
    pieces = [os.urandom(PART), b"end"]
    for algorithm, kind in (("SHA256", "COMPOSITE"), ("CRC32", "COMPOSITE"),
                            ("CRC32", "FULL_OBJECT"), (None, None)):
        key = {**at, "Key": f"{algorithm} {kind}"}
        asked = {"ChecksumAlgorithm": algorithm, "ChecksumType": kind} if algorithm else {}
        upload = s3.create_multipart_upload(**key, **asked)["UploadId"]
        more = {"ChecksumAlgorithm": algorithm} if algorithm else {}
        tags = []
        for number, piece in enumerate(pieces, 1):
            sent = s3.upload_part(**key, UploadId=upload, PartNumber=number, Body=piece, **more)
            tags.append({"PartNumber": number, "ETag": sent["ETag"]})
            if algorithm:
                check(sent[f"Checksum{algorithm}"] == value_of(algorithm, piece), sent)
        told = s3.complete_multipart_upload(
            **key, UploadId=upload, MultipartUpload={"Parts": tags})
        head = s3.head_object(**key, ChecksumMode="ENABLED")
        whole = s3.get_object(**key)["Body"].read()
        check(whole == b"".join(pieces), key)
        if not algorithm:
            check("ChecksumType" not in head, head)
            continue
        field = f"Checksum{algorithm}"
        wanted = value_of(algorithm, whole)
        if kind == "COMPOSITE":
            joined = b"".join(base64.b64decode(value_of(algorithm, piece)) for piece in pieces)
            wanted = value_of(algorithm, joined) + "-2"
        check(told[field] == head[field] == wanted, (told, head, wanted))
        check(told["ChecksumType"] == head["ChecksumType"] == kind, (told, head))
    for kind, whole in (
            ("COMPOSITE", value_of("SHA256", b"".join(base64.b64decode(value_of("SHA256", piece))
                                                      for piece in pieces)) + "-2"),
            (None, value_of("CRC32", b"".join(pieces)))):
        algorithm = "SHA256" if kind else "CRC32"
        field, key = f"Checksum{algorithm}", {**at, "Key": f"claimed {kind}"}
        asked = {"ChecksumAlgorithm": algorithm, "ChecksumType": kind} if kind else {}
        upload = s3.create_multipart_upload(**key, **asked)["UploadId"]
        parts = []
        for number, piece in enumerate(pieces, 1):
            sent = s3.upload_part(**key, UploadId=upload, PartNumber=number, Body=piece,
                                  ChecksumAlgorithm=algorithm)
            parts.append({"PartNumber": number, "ETag": sent["ETag"], field: sent[field]})
        size = sum(map(len, pieces))
        end = lambda parts=parts, **more: s3.complete_multipart_upload(
            **key, UploadId=upload, MultipartUpload={"Parts": parts}, **more)
        refused("InvalidPart", 400, end,
                parts=[parts[0], {**parts[1], field: value_of(algorithm, b"other")}])
        refused("InvalidRequest", 400, end, parts=[parts[0], {**parts[1], field: "short"}])
        full = {} if kind else {"ChecksumType": "FULL_OBJECT"}
        refused("BadDigest", 400, end, **{field: value_of(algorithm, b"other")}, **full)
        refused("InvalidRequest", 400, end, MpuObjectSize=size + 1)
        told = end(MpuObjectSize=size, **{field: whole}, **full)
        check(told[field] == s3.head_object(**key, ChecksumMode="ENABLED")[field] == whole, told)
    for asked in ({"ChecksumAlgorithm": "SHA256", "ChecksumType": "FULL_OBJECT"},
                  {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "COMPOSITE"},
                  {"ChecksumAlgorithm": "MD4"}):
        refused("InvalidRequest", 400, s3.create_multipart_upload, **at, Key="k", **asked)


CHECKS = [
    s3_46_47_119_checksums_are_kept_and_told,
    s3_109_118_uploads_in_parts_become_objects,
    s3_109_116_a_thousand_parts,
    s3_110_one_upload_is_both_sides,
    s3_111_112_113_114_what_completes_an_upload,
    s3_115_an_aborted_upload_is_gone,
    s3_120_uploads_of_one_key_are_independent,
    s3_88_parts_are_read_one_by_one,
    s3_100_101_102_107_108_objects_are_copied,
    s3_103_104_105_150_sources_must_be_there_and_readable,
    s3_117_parts_are_copied_whole_and_in_stretches,
    s3_96_the_transfers_of_boto3_work_at_any_size,
]
