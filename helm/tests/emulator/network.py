"""Network namespaces on one switch: a host for every node, for every pod on the pod network, and for clients."""

import contextlib
import ctypes
import os
import subprocess
import threading

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Host:
    """A namespace with one address."""

    def __init__(self, namespace, address):
        self.namespace = namespace
        self.address = address
        self.path = f"/run/netns/{namespace}"

    @contextlib.contextmanager
    def entered(self):
        """Sockets that this thread makes inside the block belong to the host."""
        with open("/proc/thread-self/ns/net") as home, open(self.path) as there:
            if _LIBC.setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {self.path}")
            try:
                yield
            finally:
                _LIBC.setns(home.fileno(), _CLONE_NEWNET)


class Network:
    """10.88.0.0/16: nodes are 10.88.0.1 and on, pods 10.88.1.1 and on, clients 10.88.9.1; names are asked of 10.88.255.1."""

    SERVER = "10.88.255.1"

    def __init__(self):
        self.prefix = f"rk{os.getpid()}"
        self.lock = threading.Lock()
        self.made = []
        self.numbers = {}
        self.hub = f"{self.prefix}-hub"
        self.server = Host(self.hub, self.SERVER)
        ip("netns", "add", self.hub)
        ip("-n", self.hub, "link", "set", "lo", "up")
        # With an address of its own: a bridge would take that of one of its ports, and change it when the port goes.
        ip("-n", self.hub, "link", "add", "br0", "address", "02:00:0a:58:ff:01", "type", "bridge")
        ip("-n", self.hub, "addr", "add", f"{self.SERVER}/16", "dev", "br0")
        ip("-n", self.hub, "link", "set", "br0", "up")

    def host(self, kind):
        """A new host among the nodes (0), the pods (1) or the clients (9)."""
        with self.lock:
            number = self.numbers[kind] = self.numbers.get(kind, 0) + 1
            name = f"{self.prefix}-{kind}-{number}"
            self.made.append(name)
        host = Host(name, f"10.88.{kind}.{number}")
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.hub, "link", "add", f"p{kind}-{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", self.hub, "link", "set", f"p{kind}-{number}", "master", "br0", "up")
        ip("-n", name, "addr", "add", f"{host.address}/16", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        return host

    def unplug(self, host):
        """Packets to and from it are lost from now on."""
        ip("-n", self.hub, "link", "set", "p" + host.namespace.removeprefix(self.prefix + "-"), "down")

    def remove(self, host):
        with self.lock:
            self.made.remove(host.namespace)
        ip("netns", "del", host.namespace)

    def close(self):
        for name in [*self.made, self.hub]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self.made = []
