"""The cluster's DNS: dnsmasq, with the records of headless Services and of external-dns."""

import signal
import socket
import struct
import subprocess
import threading

from .waiting import until


class Names:
    """Answers on `address` in a network namespace. What is not there does not exist."""

    def __init__(self, hub, home):
        self.address = hub.address
        # Seconds until changes are seen, as with a cache in between.
        self.lag = 0.0
        self.file = home / "hosts"
        self.file.write_text("")
        self.known = {}
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", hub.namespace, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
             "--no-hosts", f"--addn-hosts={self.file}", "--local=/#/", "--local-ttl=1", "--bind-interfaces",
             f"--listen-address={hub.address}", "--user=root", "--pid-file=", "--log-facility=-"],
            stdout=(home / "dnsmasq.log").open("w"), stderr=subprocess.STDOUT)  # fmt: skip
        # Before it listens, a signal would end it.
        with hub.entered():
            self.ask("there.is.none")

    def publish(self, records):
        """All there is: names, and the addresses of each."""
        if records == self.known:
            return
        self.known = records
        if self.lag:
            timer = threading.Timer(self.lag, self._write, [records])
            timer.daemon = True
            timer.start()
        else:
            self._write(records)

    def _write(self, records):
        if self.process.poll() is not None:
            return
        fresh = self.file.with_suffix(".new")
        fresh.write_text("".join(f"{a} {name}\n" for name, addresses in sorted(records.items()) for a in sorted(addresses)))
        fresh.rename(self.file)
        self.process.send_signal(signal.SIGHUP)

    def ask(self, name, patience=5):
        """IPv4 addresses of a name, as a client of this host's network sees them. To be called inside of it."""
        question = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0" + struct.pack(">HH", 1, 1)

        def asked():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(0.5)
                try:
                    s.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + question, (self.address, 53))
                    return s.recv(4096)
                except OSError:
                    return None

        answer = until(asked, patience)
        at, found = 12 + len(question), []
        for _ in range(struct.unpack(">H", answer[6:8])[0]):
            kind, _, _, length = struct.unpack(">HHIH", answer[at + 2 : at + 12])
            if kind == 1:
                found.append(socket.inet_ntoa(answer[at + 12 : at + 16]))
            at += 12 + length
        return found

    def stall(self, yes):
        """No answers while it is stalled."""
        self.process.send_signal(signal.SIGSTOP if yes else signal.SIGCONT)

    def close(self):
        self.process.kill()
        self.process.wait()
