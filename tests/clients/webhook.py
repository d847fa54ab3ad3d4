"""A webhook on loopback that speaks TLS, with a certificate that only the tests trust."""

import http.server
import json
import ssl
import threading
import time

from kiln import ROOT, check

AUTHORITY = ROOT / "fixtures" / "tls" / "authority.pem"
# What a server needs whose events may go to such a webhook.
ARGUMENTS = ["--notifications-allow-private-targets", "--notifications-ca-file", str(AUTHORITY)]


class Webhook:
    """Keeps the headers (names in lower case) and bytes of each request and answers 200."""

    def __init__(self, address="127.0.0.1", host="localhost"):
        self.arrived = []
        arrived = self.arrived

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                arrived.append((headers, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ROOT / "fixtures" / "tls" / "localhost.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://{host}:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def wait_for(self, kind):
        """The first event of a type, with the headers and bytes it came in."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for headers, body in list(self.arrived):
                for event in json.loads(body)["events"]:
                    if event["eventType"] == kind:
                        return event, headers, body
            time.sleep(0.01)
        check(False, f"no {kind} in {self.arrived}")
