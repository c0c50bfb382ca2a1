"""Clients that count what they got: every request must be answered, and every answer must be in the tables."""

import collections
import random
import socket
import threading
import time

from .waiting import until


class Failed(Exception):
    pass


class Traffic:
    """`workers` threads on a host of their own ask without end, each under a key of its own. Half of them keep their connections.

    `targets` is given the node that is to be left alone, and says where to ask now: a list of addresses. Every worker calls it
    once per `refresh` seconds."""

    def __init__(self, host, port, targets, workers=8, pace=0.02, refresh=0.2):
        self.host = host
        self.port = port
        self.targets = targets
        # A node that is to get no more requests.
        self.avoid = None
        self.pace = pace
        self.refresh = refresh
        self.answers = collections.Counter()
        self.connections = 0
        self.served = collections.Counter()
        self.failures = []
        self.lock = threading.Lock()
        self.running = threading.Event()
        self.running.set()
        self.over = threading.Event()
        self.idle = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(workers)]
        for thread in self.threads:
            thread.start()

    def pause(self):
        """Every request has its answer and every connection is closed when this returns."""
        self.running.clear()
        for _ in self.threads:
            if not self.idle.acquire(timeout=20):
                raise TimeoutError("a client does not come to rest")

    def resume(self):
        self.running.set()

    def close(self):
        self.over.set()
        self.running.set()
        for thread in self.threads:
            thread.join(15)

    def wait_for(self, number):
        """So many more answers."""
        goal = sum(self.answers.values()) + number
        missing = lambda: goal - sum(self.answers.values())
        until(lambda: missing() <= 0, 45, lambda: TimeoutError(f"{missing()} answers are missing; failures: {self.failures[:5]}"))

    def _work(self, number):
        rng = random.Random(number)
        keeps = number % 2 == 0
        key = f"client{number}"
        link, at, targets, asked = None, None, [], 0.0
        with self.host.entered():
            while not self.over.is_set():
                if not self.running.is_set():
                    if link:
                        link.close()
                    link = None
                    self.idle.release()
                    while not self.running.wait(0.1):
                        pass
                    continue
                try:
                    if time.monotonic() - asked > self.refresh or not targets:
                        targets, asked = self.targets(self.avoid), time.monotonic()
                    if not targets:
                        raise Failed("the name has no address")
                    # Who keeps a connection goes on with it when its address is not given to others any more: neither
                    # DNS nor kube-proxy ends what is there.
                    if link and self.avoid and at not in targets:
                        link.close()
                        link = None
                    if not link:
                        at = rng.choice(targets)
                        link = Link(at, self.port)
                        with self.lock:
                            self.connections += 1
                    text, stays = link.ask(f"/?k={key}", keeps)
                    with self.lock:
                        self.answers[key] += 1
                        self.served[text.strip()] += 1
                    if not (stays and keeps) or rng.random() < 0.05:
                        link.close()
                        link = None
                except Exception as error:  # whatever it is, it must be seen
                    with self.lock:
                        self.failures.append(f"{time.strftime('%X')} {at}: {type(error).__name__}: {error}")
                    if link:
                        link.close()
                    link = None
                # What a user does between two requests.
                self.over.wait(self.pace)
            if link:
                link.close()


class Link:
    """One HTTP/1.1 connection."""

    def __init__(self, address, port):
        self.socket = socket.create_connection((address, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked = 0

    def ask(self, path, keeps):
        """The text of a 200 answer, and whether the connection may be used again."""
        self.asked += 1
        more = "" if keeps else "Connection: close\r\n"
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            if not piece:
                raise Failed(f"closed after {len(data)} bytes of answer {self.asked} of the connection")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
        while len(body) < int(fields.get("content-length", 0)):
            piece = self.socket.recv(65536)
            if not piece:
                raise Failed("closed within an answer")
            body += piece
        if " 200 " not in lines[0]:
            raise Failed(lines[0])
        return body.decode(), fields.get("connection", "").lower() != "close"

    def close(self):
        self.socket.close()
