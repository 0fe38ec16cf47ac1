"""A NATS server with a stream, and a writer that only sends: the few words of its protocol that this takes."""

import json
import os
import socket
import subprocess
import threading

from ports import free_port

from alert_checks.prometheus import until

STREAM = "ROWS"


class Nats:
    def __init__(self, directory):
        self.port, self.lock = free_port(), threading.Lock()
        self.url = f"nats://127.0.0.1:{self.port}"
        directory.mkdir(parents=True)
        command = ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", directory / "data"]
        log = open(directory / "log", "wb")
        path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
        self.process = subprocess.Popen(command, env=dict(os.environ, PATH=path), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.connection = until(self.connect, f"NATS answers; see {directory}/log", 20)
            self.make_stream()
        except AssertionError:
            self.process.kill()
            raise

    def make_stream(self):
        wanted = {"name": STREAM, "subjects": ["*.rows"], "storage": "memory", "retention": "limits"}
        self.connection.sendall(b'CONNECT {"verbose":false}\r\nSUB made 1\r\n')
        self.publish(f"$JS.API.STREAM.CREATE.{STREAM}", [json.dumps(wanted)], "made")
        answer = b""
        while b"stream_create_response" not in answer:
            got = self.connection.recv(1 << 16)
            if not got:
                raise AssertionError(f"NATS has made no stream: {answer}")
            answer += got
        if b'"error"' in answer:
            raise AssertionError(f"NATS refuses the stream: {answer}")

    def connect(self):
        try:
            return socket.create_connection(("127.0.0.1", self.port), timeout=20)
        except OSError:
            return None

    def publish(self, subject, messages, reply=""):
        """Sends them without waiting for more than that the server takes them from the line."""
        lines = (f"PUB {subject} {reply} {len(message)}\r\n{message}\r\n" for message in messages)
        text = "".join(lines).encode()
        # Several threads publish, and what is sent at once may go in parts.
        with self.lock:
            self.connection.sendall(text)

    def stop(self):
        self.connection.close()
        self.process.kill()
        self.process.wait()
