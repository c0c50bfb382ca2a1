"""What the kubelet does with one pod: volumes, environment, init containers, probes, restarts, termination."""

import http.client
import shutil
import socket
import threading
import time

from .runtime import Container
from .volumes import Volumes
from .waiting import until, within

# The first restart comes at once, the next after 10, 20, 40 … seconds.
BACKOFF = 10.0
PROBE = {"periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3, "successThreshold": 1, "initialDelaySeconds": 0}


class Pod:
    """A pod on a node. Starts at once; its threads follow it to its end."""

    def __init__(self, cluster, node, template, name):
        self.cluster = cluster
        self.node = node
        self.name = name
        self.namespace = cluster.namespace
        self.labels = template["metadata"].get("labels", {})
        self.spec = template["spec"]
        self.template = template
        self.home = cluster.home / name
        self.home.mkdir()
        self.own_net = None if self.spec.get("hostNetwork") else cluster.network.host(1)
        self.net = self.own_net or node.host
        self.address = self.net.address
        self.terminating = False
        self.lost = False
        self.gone = threading.Event()
        self.succeeded = None
        self.waiting = ""
        self.killed = []
        self.since_ready = None
        self.ready_containers = {}
        self.running = {}
        self.restarts = 0
        # Answers of probes.
        self.probed = 0
        self.volumes = None
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)
        self.thread.start()

    # What others see.

    @property
    def ending(self):
        return self.terminating or self.lost

    @property
    def ready(self):
        return self.since_ready is not None and not self.lost

    def available(self, seconds):
        """Ready for so long."""
        since = self.since_ready
        return not self.terminating and since is not None and time.monotonic() - since >= seconds

    def log(self):
        """All that its containers have said."""
        return "".join(p.read_text(errors="replace") for p in sorted(self.home.glob("*.log")))

    def path(self, inside, container="remora"):
        """Where a file of a container is on the node; it must be in a volume."""
        spec = next(c for c in self.spec["containers"] if c["name"] == container)
        for mount in spec["volumeMounts"]:
            if inside.startswith(mount["mountPath"] + "/"):
                return self.volumes.paths[mount["name"]] / inside.removeprefix(mount["mountPath"] + "/")
        raise FileNotFoundError(inside)

    def terminate(self):
        """As `kubectl delete pod`."""
        self.terminating = True
        self.cluster.changed()

    def destroy(self):
        """The node is gone: nothing runs any more and nobody tells."""
        self.lost = True
        for container in list(self.running.values()):
            container.kill()

    # Its life.

    def _live(self):
        try:
            self._start_volumes()
            if not self.terminating and self._init():
                threads = [threading.Thread(target=self._keep, args=(c,), daemon=True) for c in self.spec["containers"]]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        except Exception as error:
            self.waiting = f"{type(error).__name__}: {error}"
            until(lambda: self.ending, None)
        finally:
            self.since_ready = None
            if self.volumes:
                self.volumes.close()
            if self.own_net and not self.lost:
                self.cluster.network.remove(self.own_net)
            self.gone.set()
            if not self.lost:
                self.cluster.removed(self)

    def _start_volumes(self):
        group = self.spec.get("securityContext", {}).get("fsGroup")
        home = self.home / "volumes"

        def mounted():
            try:
                self.volumes = Volumes(home, self.node.root, self.spec.get("volumes", []), group, self.cluster.object)
            except FileNotFoundError as error:
                # As ContainerCreating: tried again until the object is there.
                self.waiting = str(error)
                shutil.rmtree(home, ignore_errors=True)
            return self.volumes or self.ending

        until(mounted, None)
        self.waiting = ""

    def _init(self):
        """Init containers, one after the other, each until it succeeds."""
        for spec in self.spec.get("initContainers", []):
            attempt = 0
            while True:
                container = self._run(spec, attempt)
                until(lambda: container.exited() is not None or self.ending, None)
                if container.exited() is None:
                    container.kill()
                    return False
                if container.exited() == 0:
                    break
                attempt += 1
                self.restarts += 1
                self.waiting = f"init container {spec['name']}: exit code {container.exited()}"
                if self._pause(BACKOFF if attempt > 1 else 0):
                    return False
        self.waiting = ""
        return True

    def _keep(self, spec):
        """One container: started, probed, restarted, stopped."""
        attempt = 0
        name = spec["name"]
        policy = self.spec.get("restartPolicy", "Always")
        while not self.ending:
            container = self.running[name] = self._run(spec, attempt)
            self._attend(spec, container)
            self._set_ready(name, False)
            if self.ending:
                break
            code = container.exited()
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                self.succeeded = code == 0
                return
            attempt += 1
            self.restarts += 1
            self.waiting = f"container {name}: exit code {code}"
            if self._pause(0 if attempt == 1 else min(BACKOFF * 2 ** (attempt - 2), 300)):
                return

    def _attend(self, spec, container):
        """Probes until the container ends, stops it when the pod is to end."""
        name = spec["name"]
        probes = {k: Probe(self, container, spec[f"{k}Probe"]) for k in ("startup", "readiness", "liveness") if f"{k}Probe" in spec}
        started = "startup" not in probes
        if started and "readiness" not in probes:
            self._set_ready(name, True)
        stopper = None

        def over():
            nonlocal started, stopper
            if container.exited() is not None or self.lost:
                return True
            if self.terminating and stopper is None:
                stopper = threading.Thread(target=self._stop, args=(spec, container), daemon=True)
                stopper.start()
            if not started and not self.terminating:
                if probes["startup"].due() and probes["startup"].ask():
                    started = probes["startup"].good
                    if probes["startup"].bad:
                        self.waiting = f"startup probe: {probes['startup'].said}"
                        self._stop(spec, container)
            if started:
                ready = probes.get("readiness")
                if ready and ready.due() and ready.ask():
                    self._set_ready(name, ready.good)
                live = probes.get("liveness")
                if live and not self.terminating and live.due() and live.ask() and live.bad:
                    self.waiting = f"liveness probe: {live.said}"
                    self._stop(spec, container)
            return False

        until(over, None)
        if stopper:
            stopper.join()

    def _stop(self, spec, container):
        """The hook, the signal of the image, patience, and then force."""
        deadline = time.monotonic() + self.spec.get("terminationGracePeriodSeconds", 30)
        hook = spec.get("lifecycle", {}).get("preStop", {}).get("exec")
        if hook:
            container.execute(hook["command"], max(deadline - time.monotonic(), 0.1))
        container.signal(self.cluster.image(spec["image"]).stop_signal)
        if not container.wait(max(deadline - time.monotonic(), 2)):
            self.killed.append(spec["name"])
            container.kill()

    def _set_ready(self, name, yes):
        self.ready_containers[name] = yes
        all_ready = len(self.ready_containers) == len(self.spec["containers"]) and all(self.ready_containers.values())
        if all_ready != (self.since_ready is not None):
            self.since_ready = time.monotonic() if all_ready else None
            self.cluster.changed()

    def _pause(self, seconds):
        """Whether the pod is to end meanwhile."""
        return within(seconds, lambda: self.ending)

    def _run(self, spec, attempt):
        binds = [(m["mountPath"], self.volumes.paths[m["name"]], bool(m.get("readOnly"))) for m in spec.get("volumeMounts", [])]
        resolv = self.home / "resolv.conf"
        zone = self.cluster.domain
        search = f"{self.namespace}.svc.{zone} svc.{zone} {zone}"
        resolv.write_text(f"search {search}\nnameserver {self.cluster.network.SERVER}\noptions ndots:5\n")
        hosts = self.home / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        binds += [("/etc/resolv.conf", resolv, False), ("/etc/hosts", hosts, False)]
        pod_security = {
            k: v for k, v in self.spec.get("securityContext", {}).items() if k in ("runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup")
        }
        sysctls = {s["name"]: s["value"] for s in self.spec.get("securityContext", {}).get("sysctls", [])}
        hostname = None if self.spec.get("hostNetwork") else self.name
        log = (self.home / f"{spec['name']}-{attempt}.log").open("w")
        ident = f"{self.cluster.network.prefix}-{self.name}-{spec['name']}-{attempt}"
        image = self.cluster.image(spec["image"])
        return Container(
            self.cluster.home, ident, image, spec, pod_security, self.net, hostname, self._env(spec), binds, log, sysctls
        )

    def _env(self, spec):
        env = {"HOSTNAME": self.node.name if self.spec.get("hostNetwork") else self.name}
        for entry in spec.get("env", []):
            if "value" in entry:
                env[entry["name"]] = entry["value"]
            else:
                env[entry["name"]] = self._field(entry["valueFrom"]["fieldRef"]["fieldPath"])
        if spec.get("envFrom"):
            raise NotImplementedError("envFrom")
        return env

    def _field(self, path):
        return {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.name,
            "spec.nodeName": self.node.name,
            "status.podIP": self.address,
            "status.hostIP": self.node.host.address,
        }[path]


class Probe:
    """One probe of a container, and what its answers come to."""

    def __init__(self, pod, container, spec):
        self.pod = pod
        self.container = container
        self.spec = PROBE | spec
        self.next = time.monotonic() + self.spec["initialDelaySeconds"]
        self.run = 0
        self.last = None
        self.said = ""
        self.good = False
        self.bad = False

    def due(self):
        return time.monotonic() >= self.next

    def ask(self):
        """Whether the state is known now: `good` or `bad`."""
        self.next = time.monotonic() + self.spec["periodSeconds"]
        ok, self.said = self._exec() if "exec" in self.spec else self._http()
        self.pod.probed += 1
        self.run = self.run + 1 if ok == self.last else 1
        self.last = ok
        if self.run < self.spec["successThreshold" if ok else "failureThreshold"]:
            return False
        self.good, self.bad = ok, not ok
        return True

    def _exec(self):
        return self.container.execute(self.spec["exec"]["command"], self.spec["timeoutSeconds"])

    def _http(self):
        """From the node, to the pod's address."""
        asked = self.spec["httpGet"]
        try:
            with self.pod.node.host.entered():
                talk = http.client.HTTPConnection(asked.get("host", self.pod.address), asked["port"], timeout=self.spec["timeoutSeconds"])
                talk.connect()
            talk.request("GET", asked.get("path", "/"))
            answer = talk.getresponse()
            said = answer.read().decode(errors="replace")
            talk.close()
            return 200 <= answer.status < 400, said
        except (OSError, http.client.HTTPException, socket.timeout) as error:
            return False, str(error)
