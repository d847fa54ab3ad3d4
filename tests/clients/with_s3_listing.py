"""Listings of the S3-compatible API against a model of them."""

import random
import xml.etree.ElementTree

from kiln import check
from s3 import answers, client, raw, refused


def model(keys, prefix, delimiter, after, size):
    """Keys and folders of one page, in order, and whether there is more; by the definition of S3."""
    found = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        entry = (key, False)
        if delimiter:
            inside = key[len(prefix):]
            if delimiter in inside:
                cut = inside.index(delimiter) + len(delimiter)
                entry = (prefix + inside[:cut], True)
        if entry[1]:
            passed = after is not None and (
                after == entry[0] or key.encode() <= after.encode())
        else:
            passed = after is not None and key.encode() <= after.encode()
        if not passed and entry not in found:
            found.append(entry)
    return found[:size], len(found) > size


def entries(told):
    keys = [(one["Key"], False) for one in told.get("Contents", [])]
    folders = [(one["Prefix"], True) for one in told.get("CommonPrefixes", [])]
    return sorted(keys + folders, key=lambda entry: entry[0].encode())


def s3_123_124_128_listings_are_those_of_the_model(server):
    s3 = client(server)
    s3.create_bucket(Bucket="list-model")
    drawn = random.Random(7)
    letters = ["a", "b", "A", "/", "//", "%", " ", "-", "\u00e1", "\u00fc", "\uffff", "\U00010000"]
    keys = {"".join(drawn.choice(letters) for _ in range(drawn.randint(1, 6)))
            for _ in range(150)}
    for key in keys:
        s3.put_object(Bucket="list-model", Key=key, Body=b"")
    for _ in range(700):
        prefix = drawn.choice(["", "", *keys])[:drawn.randint(0, 3)]
        delimiter = drawn.choice(["", "/", "//", "a", "%", " ", "a/", "\u00fc"])
        after = drawn.choice([None, None, *keys, prefix + "/", "zz"])
        size = drawn.choice([1, 2, 3, 7, 1000])
        asked = {"Bucket": "list-model", "Prefix": prefix, "MaxKeys": size}
        if delimiter:
            asked["Delimiter"] = delimiter
        case = (prefix, delimiter, after, size)
        first, more = model(keys, prefix, delimiter, after, size)
        v2 = s3.list_objects_v2(**asked, **({"StartAfter": after} if after else {}))
        wanted = sorted(first, key=lambda entry: entry[0].encode())
        check((entries(v2), v2["IsTruncated"]) == (wanted, more), f"v2 {case}")
        check(v2["KeyCount"] == len(first), f"v2 {case}")
        v1 = s3.list_objects(**asked, **({"Marker": after} if after else {}))
        check((entries(v1), v1["IsTruncated"]) == (wanted, more), f"v1 {case}")


def s3_123_126_131_pages_follow_each_other_without_loss(server):
    s3 = client(server)
    s3.create_bucket(Bucket="list-pages")
    at = {"Bucket": "list-pages"}
    keys = [f"{folder}/{number:03}" for folder in "abc" for number in range(23)] + ["top", "zoo"]
    versions = {}
    for _ in range(2):
        for key in keys:
            versions.setdefault(key, []).insert(0, s3.put_object(**at, Key=key, Body=b"")["VersionId"])
    for delimiter, wanted in ((None, sorted(keys)), ("/", ["a/", "b/", "c/", "top", "zoo"])):
        more = {"Delimiter": delimiter} if delimiter else {}
        for size in (1, 2, 7, 1000):
            for name in ("list_objects_v2", "list_objects", "list_object_versions"):
                got = []
                for page in s3.get_paginator(name).paginate(
                        **at, **more, PaginationConfig={"PageSize": size}):
                    found = [one["Key"] for one in page.get("Contents", page.get("Versions", []))]
                    found += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
                    check(len(found) <= size, f"{name} {size}")
                    got += sorted(found)
                expected = wanted
                if name == "list_object_versions":
                    expected = [key for key in wanted for _ in range(1 if key.endswith("/") else 2)]
                check(got == expected, f"{name} {size} {delimiter}: {got}")
    ids, latest = [], []
    for page in s3.get_paginator("list_object_versions").paginate(
            **at, PaginationConfig={"PageSize": 5}):
        ids += [one["VersionId"] for one in page["Versions"]]
        latest += [one["IsLatest"] for one in page["Versions"]]
    check(ids == [one for key in sorted(keys) for one in versions[key]], "newest first")
    check(latest == [True, False] * len(keys), "the first of each is the latest")
    for size, shown, status in ((0, 0, 200), (1, 1, 200), (5000, 71, 200), (-1, None, 400),
                                ("abc", None, 400)):
        told = raw(server, "GET", f"/list-pages?list-type=2&max-keys={size}")
        answers(told, status)
        if status == 200:
            check(told.text.count("<Contents>") == shown, told.text[:500])
            check(f"<MaxKeys>{min(size, 1000)}</MaxKeys>" in told.text, told.text[:500])
    check("<IsTruncated>false" in raw(server, "GET", "/list-pages?max-keys=0").text, "nothing more")


def s3_131_132_versions_of_one_key_are_paged_and_uploads_are_not_among_them(server):
    s3 = client(server)
    s3.create_bucket(Bucket="list-one")
    at = {"Bucket": "list-one"}
    made = [s3.put_object(**at, Key="k", Body=b"")["VersionId"] for _ in range(1100)]
    made.append(s3.delete_object(**at, Key="k")["VersionId"])
    upload = s3.create_multipart_upload(**at, Key="k")["UploadId"]
    s3.create_multipart_upload(**at, Key="other")
    got, latest = [], []
    for page in s3.get_paginator("list_object_versions").paginate(**at):
        rows = page.get("DeleteMarkers", []) + page.get("Versions", [])
        got += [one["VersionId"] for one in rows]
        latest += [one["VersionId"] for one in rows if one["IsLatest"]]
    check(got == made[::-1], "each once, newest first")
    check(latest == [made[-1]], "the marker is the latest")
    check(upload not in got, "an upload is no version")
    check("Contents" not in s3.list_objects_v2(**at), "hidden, and unfinished")
    page = s3.list_object_versions(**at, KeyMarker="k", VersionIdMarker=made[-1], MaxKeys=1)
    check(page["Versions"][0]["VersionId"] == made[-2], page)
    check(not page["Versions"][0]["IsLatest"], page)
    answers(raw(server, "GET", f"/list-one?versions&version-id-marker={made[0]}"), 400,
            "InvalidArgument")


def s3_127_128_129_130_134_forms_of_listings(server):
    s3 = client(server)
    s3.create_bucket(Bucket="list-forms")
    at = {"Bucket": "list-forms"}
    for key in ("a&b<c>\"d'", "\u00fc/x", "\u00fc/y", "z z"):
        s3.put_object(**at, Key=key, Body=b"")
    # Of what cannot be printed no key has any; XML carries a line feed, and of the rest a sign.
    for letter, shown in (("%0A", "\n"), ("%01", "\ufffd"), ("%EF%BF%BF", "\ufffd")):
        for name in ("prefix", "delimiter", "start-after"):
            told = raw(server, "GET", f"/list-forms?list-type=2&{name}={letter}")
            tag = {"prefix": "Prefix", "delimiter": "Delimiter", "start-after": "StartAfter"}[name]
            check(f"<{tag}>{shown}</{tag}>" in answers(told, 200).text, (letter, told.text))
            xml.etree.ElementTree.fromstring(told.content)
            told = raw(server, "GET", f"/list-forms?list-type=2&encoding-type=url&{name}={letter}")
            check(f"<{tag}>{letter}</{tag}>" in answers(told, 200).text, (letter, told.text))
    told = raw(server, "GET", "/list-forms?list-type=2&prefix=%C3%BC&delimiter=%2F&encoding-type=url"
               "&start-after=%C3%BC").text
    for part in ("<Prefix>%C3%BC</Prefix>", "<Delimiter>/</Delimiter>",
                 "<StartAfter>%C3%BC</StartAfter>",
                 "<EncodingType>url</EncodingType>", "<Prefix>%C3%BC/</Prefix>"):
        check(part in told, (part, told))
    plain = raw(server, "GET", "/list-forms?list-type=2").text
    check("<Key>a&amp;b&lt;c&gt;&quot;d'</Key>" in plain and "<Key>z z</Key>" in plain, plain)
    answers(raw(server, "GET", "/list-forms?list-type=2&encoding-type=x"), 400, "InvalidArgument")
    check("<Owner>" not in plain, plain)
    check(raw(server, "GET", "/list-forms?list-type=2&fetch-owner=true").text.count("<Owner>") == 4,
          "owners")
    check(raw(server, "GET", "/list-forms").text.count("<Owner>") == 4, "always in version 1")
    page = s3.list_objects_v2(**at, MaxKeys=1)
    token = page["NextContinuationToken"]
    follow = s3.list_objects_v2(**at, ContinuationToken=token, StartAfter="zzz")
    check([one["Key"] for one in follow["Contents"]] == ["z z", "\u00fc/x", "\u00fc/y"], follow)
    other = "y" if token[0] == "x" else "x"
    for wrong in (other + token[1:], token[:-4], token + "AAAA", "", "\u00fc"):
        refused("InvalidArgument", 400, s3.list_objects_v2, **at, ContinuationToken=wrong)


def s3_116_uploads_are_listed_with_folders_and_pages(server):
    s3 = client(server)
    s3.create_bucket(Bucket="list-uploads")
    at = {"Bucket": "list-uploads"}
    made = []
    for key in ("a/1", "a/1", "a/2", "b", "c/1", "b"):
        made.append((key, s3.create_multipart_upload(**at, Key=key)["UploadId"]))
    wanted = sorted(made, key=lambda one: one[0])
    for size in (1, 2, 3, 1000):
        got = []
        for page in s3.get_paginator("list_multipart_uploads").paginate(
                **at, PaginationConfig={"PageSize": size}):
            got += [(one["Key"], one["UploadId"]) for one in page.get("Uploads", [])]
        check(got == wanted, f"{size}: {got}")
    told = s3.list_multipart_uploads(**at, Delimiter="/")
    check([one["Prefix"] for one in told["CommonPrefixes"]] == ["a/", "c/"], told)
    check([one["Key"] for one in told["Uploads"]] == ["b", "b"], told)
    check(told["Uploads"][0]["StorageClass"] == "STANDARD", told)
    told = s3.list_multipart_uploads(**at, Prefix="a/")
    check([one["Key"] for one in told["Uploads"]] == ["a/1", "a/1", "a/2"], told)


def s3_133_what_is_there_all_the_time_is_listed_once(server):
    import threading
    s3 = client(server)
    s3.create_bucket(Bucket="list-moving")
    at = {"Bucket": "list-moving"}
    kept = [f"kept/{number:03}" for number in range(60)]
    for key in kept:
        s3.put_object(**at, Key=key, Body=b"")
    ends = threading.Event()

    def write():
        other, number = client(server), 0
        while not ends.is_set():
            key = f"kept/{number % 60:03}-new"
            other.put_object(**at, Key=key, Body=b"")
            other.delete_object(**at, Key=key)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            got = [one["Key"] for page in s3.get_paginator("list_objects_v2").paginate(
                **at, PaginationConfig={"PageSize": 7}) for one in page["Contents"]]
            check([key for key in got if key in set(kept)] == kept, got)
            check(len(got) == len(set(got)), got)
    finally:
        ends.set()
        writer.join()


CHECKS = [
    s3_123_124_128_listings_are_those_of_the_model,
    s3_123_126_131_pages_follow_each_other_without_loss,
    s3_131_132_versions_of_one_key_are_paged_and_uploads_are_not_among_them,
    s3_127_128_129_130_134_forms_of_listings,
    s3_116_uploads_are_listed_with_folders_and_pages,
    s3_133_what_is_there_all_the_time_is_listed_once,
]
