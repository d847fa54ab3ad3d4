"""b2sdk used directly, where the command line cannot reach."""

import hashlib
import io
import threading
import types

import b2sdk.v2
import b2sdk.v3
from b2sdk._internal import b2http
from b2sdk.v2.exception import B2Error, ClockSkew, InvalidAuthToken, Unauthorized

from kiln import KEY, KEY_ID, check


def api_v2(server, key_id=KEY_ID, key=KEY):
    api = b2sdk.v2.B2Api(b2sdk.v2.InMemoryAccountInfo())
    api.authorize_account(server.url, key_id, key)
    return api


def api_v3(server, key_id=KEY_ID, key=KEY):
    api = b2sdk.v3.B2Api(b2sdk.v3.InMemoryAccountInfo())
    api.authorize_account(key_id, key, realm=server.url)
    return api


def both_interfaces_store_list_and_read(server):
    for number, api in enumerate((api_v2(server), api_v3(server))):
        bucket = api.create_bucket(f"sdk-interface-{number}", "allPrivate")
        content = bytes(range(256)) * 100
        info = {"colour": "gr\u00fcn +%", "src_last_modified_millis": "1700000000000"}
        version = bucket.upload_bytes(content, "dir/\u65e5\u672c.bin", file_info=info)
        check(version.content_sha1 == hashlib.sha1(content).hexdigest(), "sha1")
        found = next(iter(bucket.ls(recursive=True)))[0]
        check(found.file_info["colour"] == "gr\u00fcn +%", found.file_info)
        read = io.BytesIO()
        bucket.download_file_by_name("dir/\u65e5\u672c.bin").save(read)
        check(read.getvalue() == content, "whole")
        part = io.BytesIO()
        bucket.download_file_by_id(version.id_, range_=(5, 8)).save(part)
        check(part.getvalue() == content[5:9], "range")


def streams_and_unverified_uploads_are_stored(server):
    api = api_v3(server)
    bucket = api.create_bucket("sdk-streams", "allPrivate")
    content = b"streamed" * 5000
    version = bucket.upload_unbound_stream(io.BytesIO(content), "streamed")
    check(version.size == len(content), version.size)
    large = bytes(11_000_000)
    version = bucket.upload_bytes(large, "eleven-megabytes")
    check(version.content_sha1 == hashlib.sha1(large).hexdigest(), "11 MB")
    pair = api.session.get_upload_url(bucket.id_)
    answer = api.raw_api.upload_file(
        pair["uploadUrl"], pair["authorizationToken"], "unverified", 3, "text/plain",
        "do_not_verify", {}, io.BytesIO(b"abc"))
    check(answer["contentSha1"] == "unverified:" + hashlib.sha1(b"abc").hexdigest(), answer)


def many_threads_upload_at_once(server):
    bucket = api_v3(server).create_bucket("sdk-threads", "allPrivate")
    failures = []

    def work(number):
        try:
            for step in range(10):
                bucket.upload_bytes(f"{number}-{step}".encode(), f"t{number}/{step}")
        except B2Error as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not failures, failures)
    check(len(list(bucket.ls(recursive=True))) == 80, "all are there")


def replication_146_the_raw_sequence_passes(server):
    """As b2sdk's own integration test configures replication (replication.md A11)."""
    api = api_v3(server)
    key = api.create_key(["listBuckets", "readFiles"], "sdk-source-key")
    destination = api.create_bucket("sdk-replica", "allPrivate")
    rule = {
        "destinationBucketId": destination.id_, "fileNamePrefix": "", "priority": 1,
        "includeExistingFiles": False, "isEnabled": True, "replicationRuleName": "test-rule"}
    source = server.call("b2_create_bucket", {
        "accountId": KEY_ID, "bucketName": "sdk-source", "bucketType": "allPrivate",
        "replicationConfiguration": {"asReplicationSource": {
            "replicationRules": [rule], "sourceApplicationKeyId": key.id_}}})
    wrapper = source["replicationConfiguration"]
    check(wrapper["isClientAuthorizedToRead"], wrapper)
    check(wrapper["value"]["asReplicationDestination"] is None, wrapper)
    check(wrapper["value"]["asReplicationSource"]["replicationRules"] == [rule], wrapper)
    server.control("/admin/replication/hold")
    version = api.get_bucket_by_name("sdk-source").upload_bytes(b"x", "f")
    check(version.replication_status.value.lower() == "pending", version.replication_status)
    server.control("/admin/replication/release")
    api.delete_key(key)
    writer = api.create_key(["listBuckets", "writeFiles"], "sdk-writer-key")
    mapped = server.call("b2_update_bucket", {
        "accountId": KEY_ID, "bucketId": destination.id_,
        "replicationConfiguration": {"asReplicationDestination": {
            "sourceToDestinationKeyMapping": {key.id_: writer.id_}}}})
    check(mapped["replicationConfiguration"]["value"]["asReplicationSource"] is None, mapped)
    cleared = server.call("b2_update_bucket", {
        "accountId": KEY_ID, "bucketId": destination.id_, "replicationConfiguration": {
            "asReplicationSource": None, "asReplicationDestination": None}})
    check(cleared["replicationConfiguration"]
          == {"isClientAuthorizedToRead": True, "value": None}, cleared)


def native_407_a_key_without_lock_rights_parses_every_answer(server):
    master = api_v3(server)
    bucket = master.create_bucket("sdk-plain-key", "allPrivate")
    bucket.upload_bytes(b"x", "f")
    key = master.create_key(
        ["listBuckets", "listFiles", "readFiles", "writeFiles"], "plain-key",
        bucket_ids=[bucket.id_])
    for api in (api_v3(server, key.id_, key.application_key),
                api_v2(server, key.id_, key.application_key)):
        own = api.get_bucket_by_name("sdk-plain-key")
        found = next(iter(own.ls(latest_only=False)))[0]
        check(found.file_name == "f", found)
        check(own.get_file_info_by_name("f").size == 1, "HEAD")


def an_expired_token_is_renewed_by_the_client(server):
    api = api_v3(server)
    bucket = api.create_bucket("sdk-expiry", "allPrivate")
    bucket.upload_bytes(b"x", "before")
    server.control("/admin/clock/advance?ms=90000000")
    bucket.upload_bytes(b"x", "after")
    check(len(list(bucket.ls())) == 2, "both are there")


def wrong_credentials_are_refused(server):
    for key_id, key in ((KEY_ID, "wrong"), ("nobody", KEY)):
        try:
            api_v3(server, key_id, key)
            check(False, "should be refused")
        except (Unauthorized, InvalidAuthToken, B2Error):
            pass


def native_408_a_clock_eleven_minutes_off_is_reported_and_nine_are_not(server):
    """The SDK compares its clock with the Date of each answer; here its clock is moved."""
    real = b2http.datetime
    for minutes, reported in ((-11, True), (-9, False), (0, False), (9, False), (11, True)):

        class Moved(real.datetime):
            @classmethod
            def now(cls, tz=None, by=real.timedelta(minutes=minutes)):
                return super().now(tz) + by

        b2http.datetime = types.SimpleNamespace(datetime=Moved, timezone=real.timezone)
        try:
            api_v3(server).list_buckets()
            check(not reported, f"{minutes} minutes should be reported")
        except ClockSkew:
            check(reported, f"{minutes} minutes should not be reported")
        finally:
            b2http.datetime = real


CHECKS = [
    both_interfaces_store_list_and_read,
    streams_and_unverified_uploads_are_stored,
    many_threads_upload_at_once,
    replication_146_the_raw_sequence_passes,
    native_407_a_key_without_lock_rights_parses_every_answer,
    native_408_a_clock_eleven_minutes_off_is_reported_and_nine_are_not,
    wrong_credentials_are_refused,
    an_expired_token_is_renewed_by_the_client,
]
