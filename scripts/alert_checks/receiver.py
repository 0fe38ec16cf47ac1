"""A system behind HTTP sinks that can be slow, refuse, or not answer at all: for each path as it is told."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    def __init__(self):
        # By path: seconds until an answer, and its status. A status of None: no answer until there is another one.
        self.delays, self.statuses = {}, {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(receiver.delays.get(self.path, 0))
                while receiver.statuses.get(self.path, 200) is None:
                    time.sleep(0.05)
                self.send_response(receiver.statuses.get(self.path, 200))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.delays, self.statuses = {}, {}
        self.server.shutdown()
