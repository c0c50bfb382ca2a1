"""A release in the emulated cluster, and what its pods must know of the traffic."""

import yaml

from chart import CHART, HELMS, HERE, helm, workload

from . import tables
from .client import Traffic
from .waiting import until

HELM = next(iter(HELMS))


class Release:
    """What `helm install` and `helm upgrade` do, but for the API server."""

    def __init__(self, cluster, values):
        self.cluster = cluster
        self.name = values
        self.values = yaml.safe_load((HERE / "lifecycle" / f"{values}-values.yaml").read_text())

        self.objects = None

    def upgrade(self, change=None, **changes):
        """With values that stay for the next time. The first one is the installation. `change` is called with the workload."""
        values = self.values | changes
        done = helm(HELM, "template", "rel", str(CHART), "--namespace", "edge", "--values", "-", text=yaml.safe_dump(values))
        assert done.returncode == 0, done.stderr
        objects = [o for o in yaml.safe_load_all(done.stdout) if o]
        if change:
            change(workload(objects))
        if self.objects:
            for thing in sorted(hooks(objects, "pre-upgrade"), key=weight):
                if thing["kind"] != "Job":
                    self.cluster.add(thing)
                    continue
                passed, said = self.cluster.run_to_end(thing)
                if not passed:
                    raise Refused(said)
        self.values, self.objects = values, objects
        self.cluster.apply(objects)

    def test(self):
        """`helm test`."""
        [pod] = hooks(self.objects, "test")
        return self.cluster.run_to_end(pod)


class Refused(Exception):
    """The upgrade has failed before anything was changed; what the Job said."""


def hooks(objects, name):
    return [o for o in objects if o["metadata"].get("annotations", {}).get("helm.sh/hook") == name]


def weight(thing):
    return int(thing["metadata"]["annotations"].get("helm.sh/hook-weight", 0))


def exact(cluster, traffic):
    """With all clients still: every pod's tables say what the clients saw."""
    traffic.pause()
    assert not traffic.failures, traffic.failures[:10]
    wanted = {key: str(n) for key, n in traffic.answers.items()}
    client = {"conn_cnt": str(traffic.connections), "conn_cur": "0"}
    wrong = []

    def right():
        wrong.clear()
        for pod in cluster.running():
            rows = tables.rows(pod, "web")
            for key, number in wanted.items():
                row = rows.get(key, {})
                got = [row.get(c) for c in ("http_req_cnt", "gpc0", "http_req_rate(3600000)")]
                if got != [number] * 3:
                    wrong.append(f"{pod.name}: {key} has {got}, not {number}")
            row = tables.rows(pod, "connections").get(traffic.host.address, {})
            if {c: row.get(c) for c in client} != client:
                wrong.append(f"{pod.name}: connections {row}, not {client}")
        return not wrong

    until(right, 45, lambda: AssertionError(wrong))
    traffic.resume()


def nodes(traffic):
    return {s.split()[0] for s in traffic.served}


def says(traffic, word):
    """Whether every answer from now on says this."""
    traffic.served.clear()
    traffic.wait_for(40)
    return all(s.endswith(word) for s in list(traffic.served))


def by_name(cluster, port=8080):
    """Clients that ask DNS for the name of the nodes."""

    def where(avoid):
        found = cluster.names.ask("www.example.org")
        return [a for a in found if not avoid or a != avoid.host.address]

    return Traffic(cluster.network.host(9), port, where)


def by_service(cluster):
    """Clients within the cluster, whose kube-proxy spreads new connections over the Service's endpoints."""
    where = lambda avoid: [p.address for p in cluster.endpoints(cluster.object("Service", "rel-remora")) if p.node is not avoid]
    return Traffic(cluster.network.host(9), 8080, where)
