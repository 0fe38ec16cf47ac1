"""Ports that nobody listens on at the moment."""

import random
import socket

# Below those that the system gives to outgoing connections, one of which could take the port before its server has it.
FIRST, LAST = 10_000, 29_999


def free_port():
    while True:
        port = random.randint(FIRST, LAST)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
