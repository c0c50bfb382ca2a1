"""Images and containers: what containerd is to the kubelet, done with runc."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

# What a container may do at most if its pod says nothing else.
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
).split()
_MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_MOUNTS = [
    ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
]


class Image:
    """A root file system and what the image says about running it."""

    def __init__(self, root, config):
        self.root = root
        self.entrypoint = config.get("Entrypoint") or []
        self.cmd = config.get("Cmd") or []
        self.env = config.get("Env") or []
        self.user = config.get("User") or "0"
        self.cwd = config.get("WorkingDir") or "/"
        self.stop_signal = config.get("StopSignal") or "SIGTERM"

    def held(self, root):
        """The same, but its program serves only once there is a file /run/remora/go, as if much had to be read."""
        wait = "[ \"$1\" != -W ] || until [ -e /run/remora/go ]; do sleep 0.1; done"
        return self._instead(root, f"PATH=/bin; {wait}; exec /usr/local/bin/remora.real \"$@\"")

    def broken(self, root):
        """The same, but its program does not run."""
        return self._instead(root, "echo 'Illegal instruction' >&2; exit 132")

    def _instead(self, root, script):
        shutil.copytree(self.root, root, symlinks=True)
        program = root / "usr/local/bin/remora"
        program.rename(program.with_name("remora.real"))
        (root / "bin").mkdir()
        shutil.copy("/bin/busybox", root / "bin/busybox")
        for name in ("sh", "sleep"):
            (root / "bin" / name).symlink_to("busybox")
        # Probes are not held: they are the program, too.
        program.write_text(f'#!/bin/sh\n[ "$1" != --probe ] || exec /usr/local/bin/remora.real "$@"\n{script}\n')
        program.chmod(0o755)
        fresh = Image.__new__(Image)
        fresh.__dict__.update(self.__dict__, root=root)
        return fresh


class Container:
    """One run of a container, from start to exit."""

    def __init__(self, home, ident, image, spec, pod_security, net, hostname, env, binds, log, sysctls):
        """`binds`: (path inside, path outside, read-only). `env`: a map, in order."""
        self.ident = ident
        self.state = home / "runc"
        security = pod_security | spec.get("securityContext", {})
        uid, gid = self._user(image, security)
        if security.get("runAsNonRoot") and uid == 0:
            raise PermissionError(f"{ident}: runAsNonRoot, but the user is 0")
        changes = security.get("capabilities", {})
        dropped = changes.get("drop", [])
        capabilities = [] if "ALL" in dropped else [c for c in _CAPABILITIES if c not in dropped]
        capabilities = [f"CAP_{c}" for c in [*capabilities, *changes.get("add", [])]]
        substitute = lambda text: _expand(text, env)
        words = [substitute(w) for w in spec.get("command") or image.entrypoint]
        words += [substitute(w) for w in spec.get("args") or ([] if spec.get("command") else image.cmd)]
        mounts = [{"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in _MOUNTS]
        for inside, outside, read_only in binds:
            options = ["rbind", "rprivate", "ro" if read_only else "rw"]
            mounts.append({"destination": inside, "type": "bind", "source": str(outside), "options": options})
        group = security.get("fsGroup")
        memory = spec.get("resources", {}).get("limits", {}).get("memory")
        namespaces = [{"type": t} for t in ("pid", "mount", "ipc")] + [{"type": "network", "path": net.path}]
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": uid, "gid": gid, "additionalGids": [group] if group is not None else []},
                "args": words,
                "env": [*image.env, *(f"{k}={v}" for k, v in env.items())],
                "cwd": image.cwd,
                "capabilities": {k: capabilities for k in ("bounding", "permitted", "effective")},
                "noNewPrivileges": security.get("allowPrivilegeEscalation") is False,
            },
            "root": {"path": str(image.root), "readonly": bool(security.get("readOnlyRootFilesystem"))},
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "maskedPaths": _MASKED,
                "readonlyPaths": _READ_ONLY,
                "cgroupsPath": f"/{ident}",
                "resources": {"memory": {"limit": _bytes(memory)}} if memory else {},
                "sysctl": sysctls,
            },
        }
        if hostname:
            namespaces.append({"type": "uts"})
            config["hostname"] = hostname
        bundle = home / "bundles" / ident
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(config, indent=1))
        self.killed = False
        self.process = subprocess.Popen(
            ["runc", "--root", self.state, "run", "--bundle", bundle, ident],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        self.lock = threading.Lock()
        self.reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self.reader.start()

    def _read(self, log):
        """As a container runtime does, with the time before each line."""
        with log, self.process.stdout as lines:
            for line in lines:
                log.write(f"{time.strftime('%X')}.{time.time_ns() // 10**6 % 1000:03} {line.decode(errors='replace')}")
                log.flush()

    @staticmethod
    def _user(image, security):
        user, _, group = image.user.partition(":")
        uid = security.get("runAsUser", int(user))
        gid = security.get("runAsGroup", int(group or 0))
        return uid, gid

    def exited(self):
        """The exit code, or None while it runs. By then all it said is in its log."""
        with self.lock:
            code = self.process.poll()
        if code is not None:
            self.reader.join(5)
        return code

    def execute(self, words, patience):
        """Runs a command inside, as probes and hooks do: whether it went well, and what it printed."""
        command = ["runc", "--root", self.state, "exec", self.ident, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        except subprocess.TimeoutExpired:
            return False, "timed out"
        return done.returncode == 0, (done.stdout + done.stderr).strip()

    def signal(self, name):
        subprocess.run(["runc", "--root", self.state, "kill", self.ident, name], capture_output=True)

    def wait(self, patience):
        """Whether it ended in time."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self):
        """At once, with everything in it."""
        self.killed = True
        self.signal("KILL")
        if not self.wait(5):
            os.killpg(self.process.pid, signal.SIGKILL)
            subprocess.run(["runc", "--root", self.state, "delete", "--force", self.ident], capture_output=True)


def _expand(text, env):
    for name, value in env.items():
        text = text.replace(f"$({name})", value)
    return text


def _bytes(text):
    for suffix, factor in (("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)):
        if text.endswith(suffix):
            return int(text.removesuffix(suffix)) * factor
    return int(text)
