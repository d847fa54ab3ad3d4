"""Pages of other origins in a real browser: what CORS rules let them send and read."""

import contextlib
import hashlib
import http.server
import threading

from chromium import Browser
from kiln import KEY, KEY_ID, check

# Parts may be as small as a page likes to send.
ARGUMENTS = ["--limits-part-size-min", "5"]

EXPOSED = ["x-bz-content-sha1", "x-bz-file-name", "x-bz-info-colour"]

UPLOAD = """async (url, token, name, text, sha1) => {
    const answer = await fetch(url, {method: "POST", body: text, headers: {
        "Authorization": token, "Content-Type": "text/plain", "X-Bz-File-Name": name,
        "X-Bz-Content-Sha1": sha1, "X-Bz-Info-Colour": "blue"}});
    return {status: answer.status, body: await answer.json()};
}"""

UPLOAD_PART = """async (url, token, number, text, sha1) => {
    const answer = await fetch(url, {method: "POST", body: text, headers: {
        "Authorization": token, "X-Bz-Part-Number": number, "X-Bz-Content-Sha1": sha1}});
    return {status: answer.status, body: await answer.json()};
}"""

DOWNLOAD = """async (url, headers) => {
    const answer = await fetch(url, {headers});
    return {status: answer.status, text: await answer.text(),
            seen: Object.fromEntries(answer.headers.entries())};
}"""

HEAD = """async (url, headers) => {
    const answer = await fetch(url, {method: "HEAD", headers});
    return {status: answer.status, length: answer.headers.get("content-length")};
}"""


@contextlib.contextmanager
def page():
    """An origin that is not the server's: a page with nothing in it, on a port of its own."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<!doctype html><title>page</title>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()


@contextlib.contextmanager
def browser_at(origin):
    browser = Browser()
    try:
        browser.open(origin + "/")
        yield browser
    finally:
        browser.stop()


def make_bucket(server, name, rules):
    made = server.call("b2_create_bucket", {
        "accountId": KEY_ID, "bucketName": name, "bucketType": "allPrivate", "corsRules": rules})
    check(made["corsRules"] == rules, made)
    return made["bucketId"]


def rule(origin, *operations, headers=("authorization", "content-type", "x-bz-*")):
    return {"corsRuleName": "page-rule", "allowedOrigins": [origin], "maxAgeSeconds": 0,
            "allowedOperations": list(operations), "allowedHeaders": list(headers),
            "exposeHeaders": EXPOSED}


def upload(browser, server, bucket, name, text):
    pair = server.call("b2_get_upload_url", {"bucketId": bucket})
    sha1 = hashlib.sha1(text.encode()).hexdigest()
    return browser.run(UPLOAD, pair["uploadUrl"], pair["authorizationToken"], name, text, sha1)


def names(server, bucket):
    return [file["fileName"]
            for file in server.call("b2_list_file_names", {"bucketId": bucket})["files"]]


def check_blocked(outcome):
    check("Failed to fetch" in outcome.get("thrown", ""), outcome)


def native_366_368_370_a_page_of_an_allowed_origin_uploads_and_downloads(server):
    token = server.authorize(KEY_ID, KEY)["authorizationToken"]
    with page() as origin, browser_at(origin) as browser:
        bucket = make_bucket(server, "browser-open", [rule(
            origin, "b2_upload_file", "b2_download_file_by_name", "b2_download_file_by_id")])
        text = "sent by a page"
        sent = upload(browser, server, bucket, "dir/from%20a%20page", text)
        check(sent["status"] == 200 and sent["body"]["fileName"] == "dir/from a page", sent)
        shared = server.call("b2_get_download_authorization", {
            "bucketId": bucket, "fileNamePrefix": "dir/", "validDurationInSeconds": 600})
        by_name = f"{server.url}/file/browser-open/dir/from%20a%20page"
        by_id = f"{server.url}/b2api/v4/b2_download_file_by_id?fileId={sent['body']['fileId']}"
        for url, header in ((by_name, {"Authorization": shared["authorizationToken"]}),
                            (by_name + "?Authorization=" + shared["authorizationToken"], {}),
                            (by_id, {"Authorization": token})):
            got = browser.run(DOWNLOAD, url, header)
            check(got.get("status") == 200 and got["text"] == text, got)
            check(got["seen"]["x-bz-content-sha1"] == hashlib.sha1(text.encode()).hexdigest(), got)
            check(got["seen"]["x-bz-info-colour"] == "blue", got)
            check("x-bz-upload-timestamp" not in got["seen"], "a header that is not exposed")
        looked = browser.run(HEAD, by_name, {"Authorization": token})
        check(looked == {"status": 200, "length": str(len(text))}, looked)
        for url, status in ((by_name, 401), (by_name.replace("page", "nowhere"), 401)):
            refused = browser.run(DOWNLOAD, url, {})
            check(refused.get("status") == status, "a page can read why it is refused")
        gone = browser.run(DOWNLOAD, f"{server.url}/file/browser-open/absent",
                           {"Authorization": token})
        check(gone.get("status") == 404 and "not_found" in gone["text"], gone)


def native_367_368_a_page_of_another_origin_sends_and_reads_nothing(server):
    token = server.authorize(KEY_ID, KEY)["authorizationToken"]
    with page() as allowed, page() as origin, browser_at(origin) as browser:
        everything = ("b2_upload_file", "b2_download_file_by_name", "b2_download_file_by_id")
        bucket = make_bucket(server, "browser-closed", [rule(allowed, *everything)])
        check_blocked(upload(browser, server, bucket, "f", "x"))
        check(names(server, bucket) == [], "the preflight was refused, so nothing was sent")
        shared = server.call("b2_get_download_authorization", {
            "bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 600})
        url = f"{server.url}/file/browser-closed/f"
        check_blocked(browser.run(DOWNLOAD, url, {"Authorization": token}))
        # A simple request needs no preflight: it is answered, and the page may not read it.
        check_blocked(
            browser.run(DOWNLOAD, url + "?Authorization=" + shared["authorizationToken"], {}))
        check_blocked(browser.run(DOWNLOAD, server.url + "/b2api/v4/b2_list_buckets",
                                  {"Authorization": token}))
        browser.open(allowed + "/")
        check(upload(browser, server, bucket, "f", "x").get("status") == 200, "the other page may")
        check(names(server, bucket) == ["f"], "stored")


def native_367_369_what_a_rule_does_not_name_stays_closed(server):
    token = server.authorize(KEY_ID, KEY)["authorizationToken"]
    with page() as origin, browser_at(origin) as browser:
        bucket = make_bucket(server, "browser-read", [
            rule(origin, "b2_download_file_by_name", headers=["authorization"])])
        check_blocked(upload(browser, server, bucket, "f", "x"))
        check(names(server, bucket) == [], "uploads are not in the rule")
        url = f"{server.url}/file/browser-read/absent"
        check(browser.run(DOWNLOAD, url, {"Authorization": token}).get("status") == 404, "allowed")
        check_blocked(browser.run(DOWNLOAD, url, {"Authorization": token, "X-Other": "1"}))
        server.call("b2_update_bucket",
                    {"accountId": KEY_ID, "bucketId": bucket, "corsRules": []})
        check_blocked(browser.run(DOWNLOAD, url, {"Authorization": token}))


def native_366_a_page_uploads_a_large_file_in_parts(server):
    token = server.authorize(KEY_ID, KEY)["authorizationToken"]
    with page() as origin, browser_at(origin) as browser:
        bucket = make_bucket(server, "browser-parts", [
            rule(origin, "b2_upload_part", "b2_download_file_by_name")])
        begun = server.call("b2_start_large_file", {
            "bucketId": bucket, "fileName": "large", "contentType": "text/plain"})
        texts, sha1s = ["first part", "and last"], []
        for number, text in enumerate(texts, 1):
            pair = server.call("b2_get_upload_part_url", {"fileId": begun["fileId"]})
            sha1s.append(hashlib.sha1(text.encode()).hexdigest())
            sent = browser.run(UPLOAD_PART, pair["uploadUrl"], pair["authorizationToken"],
                               str(number), text, sha1s[-1])
            check(sent.get("status") == 200 and sent["body"]["contentSha1"] == sha1s[-1], sent)
        server.call("b2_finish_large_file",
                    {"fileId": begun["fileId"], "partSha1Array": sha1s})
        got = browser.run(DOWNLOAD, f"{server.url}/file/browser-parts/large",
                          {"Authorization": token})
        check(got.get("text") == "".join(texts), got)
        check_blocked(upload(browser, server, bucket, "small", "x"))


CHECKS = [
    native_366_368_370_a_page_of_an_allowed_origin_uploads_and_downloads,
    native_367_368_a_page_of_another_origin_sends_and_reads_nothing,
    native_367_369_what_a_rule_does_not_name_stays_closed,
    native_366_a_page_uploads_a_large_file_in_parts,
]
