"""Makes of each file that is uploaded to one bucket what shall be carried on, and stores it in another.

processor.py PORT RESULTS is the webhook of an event notification rule of the first bucket; RESULTS is
the name of the second one, which a replication stream may carry on. KILN_ENDPOINT is the address of the
server, B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY a key that reads the one bucket and lists and writes
the other, SIGNING_SECRET the signing secret of the rule. Needs b2sdk.
"""

import hashlib
import hmac
import http.server
import io
import json
import os
import sys

from b2sdk.v2 import B2Api, InMemoryAccountInfo
from b2sdk.v2.exception import FileNotPresent

PORT, RESULTS = int(sys.argv[1]), sys.argv[2]
SECRET = os.environ["SIGNING_SECRET"].encode()


def process(raw):
    """Of a log, each tenth line: replace this with what you need."""
    return b"".join(raw.splitlines(keepends=True)[::10])


def handle(event):
    # The same event may come again; its result has the same name then.
    name = f"{event['objectName']}.{event['objectVersionId']}"
    try:
        results.get_file_info_by_name(name)
    except FileNotPresent:
        raw = io.BytesIO()
        api.download_file_by_id(event["objectVersionId"]).save(raw)
        results.upload_bytes(process(raw.getvalue()), name)


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signature = "v1=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        given = self.headers.get("X-Bz-Event-Notification-Signature", "")
        if not hmac.compare_digest(signature, given):
            return self.answer(403)
        for event in json.loads(body)["events"]:
            # A rule that is made or changed sends an event to try its webhook.
            if event["eventType"].startswith("b2:ObjectCreated:"):
                handle(event)
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


api = B2Api(InMemoryAccountInfo())
api.authorize_account(
    os.environ["KILN_ENDPOINT"], os.environ["B2_APPLICATION_KEY_ID"], os.environ["B2_APPLICATION_KEY"])
results = api.get_bucket_by_name(RESULTS)
server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Webhook)
print(server.server_port, flush=True)
server.serve_forever()
