"""Objects, nodes, pods, and what Services come to."""

import subprocess
import threading

from .controllers import step
from .kubelet import Pod
from .names import Names
from .network import Network
from .waiting import until


class Node:
    """A machine of the cluster."""

    def __init__(self, name, host, root):
        self.name = name
        self.host = host
        # Its file system, as far as hostPath volumes see it.
        self.root = root
        self.lost = False


class Stuck(Exception):
    """A rollout does not get on; the message tells why its pods are not ready."""


class Cluster:
    """`home` must be a short path: UNIX sockets live below it."""

    def __init__(self, home, namespace="edge", domain="cluster.local"):
        self.home = home
        self.namespace = namespace
        self.domain = domain
        self.network = Network()
        self.names = None
        try:
            self.names = Names(self.network.server, home)
        except BaseException:
            self.network.close()
            raise
        self.images = {}
        self.nodes = []
        self.pods = []
        self.objects = {}
        self.lock = threading.RLock()
        self.number = 0
        # Addresses that somebody has put under the name of every headless Service.
        self.strangers = set()

    # Objects.

    def object(self, kind, name):
        with self.lock:
            return self.objects.get((kind, name))

    def all(self, kind):
        with self.lock:
            return [o for (k, _), o in self.objects.items() if k == kind]

    def apply(self, objects):
        """As Helm does: new and changed objects are there, and what was not given again is gone. Hooks are not its business."""
        with self.lock:
            kept = {k: o for k, o in self.objects.items() if k[0] == "Secret"}
            for thing in objects:
                if "helm.sh/hook" in thing["metadata"].get("annotations", {}):
                    continue
                kept[thing["kind"], thing["metadata"]["name"]] = thing
                if thing["kind"] == "Certificate":
                    self._issue(thing, kept)
            self.objects = kept
        self.sync()

    def add(self, thing):
        """One object more, until the next `apply`."""
        with self.lock:
            self.objects[thing["kind"], thing["metadata"]["name"]] = thing

    def sync(self):
        """The kubelets look after ConfigMaps and Secrets; on a real node this takes up to about a minute."""
        for pod in list(self.pods):
            if pod.volumes:
                pod.volumes.refresh()
        self.changed()

    def _issue(self, certificate, objects):
        """cert-manager: a Secret with a key, a certificate, and the authority's."""
        spec = certificate["spec"]
        if ("Secret", spec["secretName"]) in objects:
            return
        home = self.home / f"cert-{spec['secretName']}"
        home.mkdir()
        _openssl(home, "req", "-x509", *_KEY, "ca.key", "-days", "3", "-subj", "/CN=authority", "-out", "ca.crt")
        names = ",".join(f"DNS:{n}" for n in spec.get("dnsNames", ["authority"]))
        (home / "ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        objects["Secret", spec["secretName"]] = self._signed(home, spec["secretName"], 1)

    def renew(self, secret):
        """Another certificate of the same authority, which is good for a day longer."""
        self.add(self._signed(self.home / f"cert-{secret}", secret, 2))
        self.sync()

    @staticmethod
    def _signed(home, secret, days):
        _openssl(home, "req", *_KEY, "tls.key", "-subj", "/", "-out", "csr")
        _openssl(home, "x509", "-req", "-in", "csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days),
                 "-extfile", "ext", "-out", "tls.crt")  # fmt: skip
        data = {n: (home / n).read_text() for n in ("tls.key", "tls.crt", "ca.crt")}
        return {"kind": "Secret", "metadata": {"name": secret}, "data": data}

    def image(self, name):
        return self.images[name]

    # Nodes.

    def add_node(self):
        number = len(self.nodes) + 1
        root = self.home / f"node-{number}"
        root.mkdir()
        node = Node(f"node-{number}", self.network.host(0), root)
        self.nodes.append(node)
        return node

    def lose_node(self, node):
        """Its link is cut, then everything on it is killed; after a while its pods are forgotten."""
        node.lost = True
        self.network.unplug(node.host)
        pods = [p for p in self.pods if p.node is node]
        for pod in pods:
            if pod.own_net:
                self.network.unplug(pod.net)
            pod.destroy()
        for pod in pods:
            pod.gone.wait(10)
        with self.lock:
            self.pods = [p for p in self.pods if p.node is not node]
        self.changed()

    # Pods.

    def start_pod(self, node, template, prefix):
        with self.lock:
            self.number += 1
            name = f"{prefix}-{self.number:02}"
        pod = Pod(self, node, template, name)
        with self.lock:
            self.pods.append(pod)
        self.changed()
        return pod

    def removed(self, pod):
        with self.lock:
            if pod in self.pods:
                self.pods.remove(pod)
        self.changed()

    def running(self):
        """Pods of the workload that are not about to end."""
        return [p for p in self.workload_pods() if not p.terminating]

    # Services.

    def endpoints(self, service, unready=False):
        """Pods that a Service leads to. A pod that is about to end stays while the Service publishes what is not ready."""
        selector = service["spec"]["selector"]
        publish = service["spec"].get("publishNotReadyAddresses") or unready
        with self.lock:
            pods = [p for p in self.pods if all(p.labels.get(k) == v for k, v in selector.items())]
        return [p for p in pods if publish or (p.ready and not p.terminating)]

    def changed(self):
        """Endpoints, and the records that CoreDNS and external-dns make of them."""
        with self.lock:
            records = {}
            for service in self.all("Service"):
                pods = self.endpoints(service)
                if service["spec"].get("clusterIP") == "None":
                    name = f"{service['metadata']['name']}.{self.namespace}.svc.{self.domain}"
                    records[name] = {p.address for p in pods} | self.strangers
                outside = service["metadata"].get("annotations", {}).get("external-dns.alpha.kubernetes.io/hostname")
                if outside:
                    records[outside] = {p.node.host.address for p in pods}
            self.names.publish({n: a for n, a in records.items() if a})

    # Controllers.

    def workload_pods(self):
        with self.lock:
            return [p for p in self.pods if p.labels.get("app.kubernetes.io/component") == "proxy"]

    def rollout(self, patience=60, enough=lambda: False):
        """Until there are the pods that the workload asks for, made from its current template and available, and no others; or
        until that is `enough`."""
        workload = (self.all("DaemonSet") + self.all("Deployment"))[0]
        newest = []

        def done():
            nonlocal newest
            complete, newest = step(self, workload)
            return complete or enough()

        until(done, patience, lambda: Stuck("; ".join(f"{p.name}: {p.waiting or 'not ready'}" for p in newest if not p.ready)))

    def run_to_end(self, thing, patience=60):
        """A Pod, or the pod of a Job: whether it succeeded, and what it said."""
        template = thing["spec"]["template"] if thing["kind"] == "Job" else thing
        metadata = template.get("metadata", {})
        node = next(n for n in self.nodes if not n.lost)
        pod = self.start_pod(node, {"metadata": metadata, "spec": template["spec"]}, "run")
        pod.gone.wait(patience)
        if not pod.gone.is_set():
            pod.terminate()
            pod.gone.wait(10)
        return bool(pod.succeeded), pod.log() + pod.waiting

    def close(self):
        for pod in list(self.pods):
            pod.destroy()
        for pod in list(self.pods):
            pod.gone.wait(10)
        if self.names:
            self.names.close()
        self.network.close()


_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"]


def _openssl(home, *words):
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=home)
