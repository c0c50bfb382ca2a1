"""What a pod knows: its tables, asked on its runtime CLI, and its metrics."""

import contextlib
import os
import re
import socket


@contextlib.contextmanager
def _connected(pod, name):
    """To a UNIX socket of the pod."""
    place = pod.path(f"/run/remora/{name}")
    # A UNIX socket's path may have 107 bytes; the directory's descriptor is a short one.
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(f"/proc/self/fd/{directory}/{place.name}")
            yield s
    finally:
        os.close(directory)


def ask(pod, command):
    """One command, its whole answer."""
    with _connected(pod, "remora.sock") as s:
        s.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: s.recv(65536), b"")).decode()


def metrics(pod, scope):
    """The samples of a part of the page of metrics: name and labels, as they are written, to value."""
    with _connected(pod, "admin.sock") as s:
        s.sendall(f"GET /metrics?scope={scope} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        page = b"".join(iter(lambda: s.recv(65536), b"")).decode()
    return {name: float(value) for name, value in re.findall(r"^(remora_\S+(?:\{.*\})?) (\S+)$", page, re.M)}


def rows(pod, table):
    """Key to values, each by its name."""
    found = {}
    for line in ask(pod, f"show table {table}").splitlines():
        if line.startswith("0x"):
            values = dict(re.findall(r"(\S+?)=(\S+)", line))
            found[values["key"]] = values
    return found
