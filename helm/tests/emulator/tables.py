"""What a pod's tables hold, asked on its runtime CLI."""

import os
import re
import socket


def ask(pod, command, name="remora.sock"):
    """One command, its whole answer."""
    place = pod.path(f"/run/remora/{name}")
    # A UNIX socket's path may have 107 bytes; the directory's descriptor is a short one.
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(f"/proc/self/fd/{directory}/{place.name}")
            s.sendall(command.encode() + b"\n")
            answer = b""
            while piece := s.recv(65536):
                answer += piece
    finally:
        os.close(directory)
    return answer.decode()


def rows(pod, table):
    """Key to values, each by its name."""
    found = {}
    for line in ask(pod, f"show table {table}").splitlines():
        if line.startswith("0x"):
            values = dict(re.findall(r"(\S+?)=(\S+)", line))
            found[values["key"]] = values
    return found
