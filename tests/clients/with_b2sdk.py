"""b2sdk used directly, where the command line cannot reach."""

import hashlib
import io
import threading
import types

import requests

import b2sdk.v2
import b2sdk.v3
from b2sdk._internal import b2http
from b2sdk.v2.exception import (
    B2Error, ClockSkew, InvalidAuthToken, StorageCapExceeded, TransactionCapExceeded, Unauthorized)

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


def api_in_test_mode(server, mode):
    """A client that sends the test mode with each request, as b2sdk leaves to its session."""
    def session():
        made = requests.Session()
        made.headers["X-Bz-Test-Mode"] = mode
        return made

    config = b2sdk.v3.B2HttpApiConfig(http_session_factory=session)
    api = b2sdk.v3.B2Api(b2sdk.v3.InMemoryAccountInfo(), api_config=config)
    api.authorize_account(KEY_ID, KEY, realm=server.url)
    return api


def native_394_failing_uploads_are_tried_again_with_another_url(server):
    api = api_in_test_mode(server, "fail_some_uploads")
    bucket = api.create_bucket("sdk-failing", "allPrivate")
    for number in range(12):
        bucket.upload_bytes(b"%d" % number, f"f{number}")
    check(len(list(bucket.ls())) == 12, "all are there")


def native_395_tokens_that_expire_early_are_renewed(server):
    api = api_in_test_mode(server, "expire_some_account_authorization_tokens")
    api.create_bucket("sdk-expiring", "allPrivate")
    tokens = set()
    for _ in range(40):
        check("sdk-expiring" in {bucket.name for bucket in api.list_buckets()}, "found")
        tokens.add(api.account_info.get_account_auth_token())
    check(len(tokens) > 3, f"one call in ten finds its token expired: {len(tokens)}")


def native_396_the_forced_cap_stops_what_caps_can_stop(server):
    try:
        api_in_test_mode(server, "force_cap_exceeded").list_buckets()
        check(False, "should be refused")
    except B2Error as error:
        # b2sdk has no class for this code.
        check("cap_exceeded" in str(error) and "403" in str(error), repr(error))


def native_399_planned_faults_are_tried_again(server):
    api = api_v3(server)
    bucket = api.create_bucket("sdk-faults", "allPrivate")
    bucket.upload_bytes(b"abc", "f")
    for operation, status, act in (
            ("b2_upload_file", 503, lambda: bucket.upload_bytes(b"x", "g")),
            ("b2_upload_file", 401, lambda: bucket.upload_bytes(b"x", "h")),
            ("b2_upload_file", 408, lambda: bucket.upload_bytes(b"x", "i")),
            ("b2_get_upload_url", 503, lambda: bucket.upload_bytes(b"x", "j")),
            ("b2_list_file_names", 429, lambda: list(bucket.ls())),
            ("b2_list_file_names", 500, lambda: list(bucket.ls())),
            ("b2_list_file_names", 401, lambda: list(bucket.ls())),
            ("b2_download_file_by_name", 503,
             lambda: bucket.download_file_by_name("f").save(io.BytesIO()))):
        # An upload URL that was used before may be kept by the client, so there may be none to get.
        api.account_info.clear_bucket_upload_data(bucket.id_)
        server.control("/admin/faults", {"operation": operation, "status": status, "times": 1})
        act()
        check(server.fired() == [1], f"{operation} {status}")
    check({version.file_name for version, _ in bucket.ls()} == set("fghij"), "all are there")


def a_lost_answer_and_a_broken_connection_are_tried_again(server):
    bucket = api_v3(server).create_bucket("sdk-lost", "allPrivate")
    server.control("/admin/faults", {
        "operation": "b2_upload_file", "status": 503, "performed": True, "times": 1})
    bucket.upload_bytes(b"x", "lost")
    check(server.fired() == [1], "the answer was lost")
    versions = [version for version, _ in bucket.ls(latest_only=False)]
    check(len(versions) == 2, "stored twice, as B2 would have it")
    server.control("/admin/faults", {
        "operation": "b2_list_file_names", "disconnect": True, "times": 1})
    check(len(list(bucket.ls())) == 1, "listed after all")
    check(server.fired() == [1], "the connection was broken")


def native_398_caps_raise_their_exceptions(server):
    api = api_v3(server)
    bucket = api.create_bucket("sdk-caps", "allPrivate")
    bucket.upload_bytes(b"0123456789", "f")
    stored = sum(version.size for one in api.list_buckets()
                 for version, _ in one.ls(latest_only=False, recursive=True) if version.size)
    for caps, act, expected in (
            ({"storageBytes": stored}, lambda: bucket.upload_bytes(b"x", "g"),
             StorageCapExceeded),
            ({"storageBytes": "none", "classCPerDay": 0}, lambda: list(bucket.ls()),
             TransactionCapExceeded),
            ({"classCPerDay": "none", "classBPerDay": 0}, lambda: bucket.get_file_info_by_name("f"),
             B2Error),
            ({"classBPerDay": "none", "downloadBytesPerDay": 1},
             lambda: bucket.download_file_by_name("f").save(io.BytesIO()), B2Error)):
        server.cap(**caps)
        try:
            act()
            check(False, f"{caps} should stop it")
        except expected as error:
            check(expected is not B2Error or "403" in str(error), repr(error))
    check(set(server.cap(downloadBytesPerDay="none").values()) == {None}, "no caps any more")
    bucket.upload_bytes(b"x", "g")
    check(len(list(bucket.ls())) == 2, "all is well again")


CHECKS = [
    native_398_caps_raise_their_exceptions,
    native_394_failing_uploads_are_tried_again_with_another_url,
    native_395_tokens_that_expire_early_are_renewed,
    native_396_the_forced_cap_stops_what_caps_can_stop,
    native_399_planned_faults_are_tried_again,
    a_lost_answer_and_a_broken_connection_are_tried_again,
    both_interfaces_store_list_and_read,
    streams_and_unverified_uploads_are_stored,
    many_threads_upload_at_once,
    replication_146_the_raw_sequence_passes,
    native_407_a_key_without_lock_rights_parses_every_answer,
    native_408_a_clock_eleven_minutes_off_is_reported_and_nine_are_not,
    wrong_credentials_are_refused,
    an_expired_token_is_renewed_by_the_client,
]
