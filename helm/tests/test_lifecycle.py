"""The life of a release: install, change the configuration, replace the image, roll back, lose a node, add one. Not one request
fails meanwhile, and afterwards every pod knows exactly how many there were. What is real here and what is emulated is said in
emulator/__init__.py."""

import time

import pytest
import yaml

from chart import CHART, HELMS, HERE, helm, workload
from emulator import images, tables
from emulator.client import Traffic
from emulator.cluster import Stuck

pytestmark = images.needed
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
    deadline = time.monotonic() + 20
    while True:
        wrong = []
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
        if not wrong:
            break
        assert time.monotonic() < deadline, wrong
        time.sleep(0.1)
    traffic.resume()


def until(what, patience=20):
    deadline = time.monotonic() + patience
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def life(cluster, release, home, image, ask):
    """All of it, once. `ask` makes the clients."""
    for _ in range(3):
        cluster.add_node()
    release.upgrade()
    cluster.rollout()
    first = cluster.running()
    traffic = ask()
    try:
        traffic.wait_for(200)
        assert nodes(traffic) == {"node-1", "node-2", "node-3"}
        exact(cluster, traffic)

        # What one pod counts is known to all others: the chart's own test, as 'helm test' runs it.
        passed, said = release.test()
        assert passed and "PASSED" in said, said

        # The configuration changes in place.
        text = release.values["config"]
        release.upgrade(config=text.replace("first", "second"))
        until(lambda: says(traffic, "second"))
        assert cluster.running() == first and not any(p.restarts for p in first)
        exact(cluster, traffic)

        # A faulty one is refused before anything changes.
        faulty = text.replace("http-request track-sc0", "http-reqest track-sc0")
        with pytest.raises(Refused, match=r"parsing \[/etc/remora/conf/remora.cfg:11\] : unknown keyword 'http-reqest'"):
            release.upgrade(config=faulty)

        # If it comes past that, the pods go on with what they have, and their logs tell where the mistake is.
        release.upgrade(config=faulty, configCheck={"enabled": False})
        for pod in first:
            until(lambda: "parsing [/etc/remora/conf/remora.cfg:11] : unknown keyword 'http-reqest'" in pod.log())
        traffic.wait_for(100)
        assert says(traffic, "second")
        assert cluster.running() == first and not any(p.restarts for p in first)
        release.upgrade(config=text.replace("first", "third"), configCheck={"enabled": True})
        until(lambda: says(traffic, "third"))
        exact(cluster, traffic)

        # Another image: on every node the new pod starts beside the old one.
        cluster.images["remora:0.2.0"] = image
        release.upgrade(image={"tag": "0.2.0"})
        cluster.rollout(60)
        assert not set(cluster.running()) & set(first)
        assert not any(p.killed or p.restarts for p in [*first, *cluster.running()])
        exact(cluster, traffic)

        # An image that does not run. It cannot check the configuration either; if nobody does, the update stops at the first node,
        # and the old pods go on.
        before = cluster.running()
        cluster.images["remora:0.3.0"] = image.broken(home / f"broken-{release.name}")
        with pytest.raises(Refused, match="Illegal instruction"):
            release.upgrade(image={"tag": "0.3.0"})
        release.upgrade(image={"tag": "0.3.0"}, configCheck={"enabled": False})
        with pytest.raises(Stuck, match="exit code 132"):
            cluster.rollout(4)
        assert set(before) < set(cluster.running()) and len(cluster.running()) == 4
        traffic.wait_for(100)

        # Back to the first image.
        release.upgrade(image={"tag": "0.1.0"}, configCheck={"enabled": True})
        cluster.rollout(60)
        assert not any(p.killed or p.restarts for p in [*before, *cluster.running()])
        exact(cluster, traffic)

        # A node is lost: its counts are not. Clients of a node that dies fail, so they are led away first, as by a lower weight.
        lost = cluster.nodes[1]
        traffic.avoid = lost
        traffic.wait_for(100)
        exact(cluster, traffic)
        cluster.lose_node(lost)
        traffic.wait_for(100)
        exact(cluster, traffic)

        # A node is added: it learns, then it serves.
        traffic.served.clear()
        cluster.add_node()
        cluster.rollout()
        traffic.wait_for(200)
        assert nodes(traffic) == {"node-1", "node-3", "node-4"}
        exact(cluster, traffic)
        passed, said = release.test()
        assert passed and "PASSED" in said, said
    finally:
        traffic.close()


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


def test_host_network(cluster, home, image):
    """Nodes' own addresses behind a name in DNS: a new pod takes over sockets and tables of the old one."""
    life(cluster, Release(cluster, "host-network"), home, image, lambda: by_name(cluster))


def with_http_probes(workload):
    """What the chart does not do: ask a port of the node."""
    for container in workload["spec"]["template"]["spec"]["containers"]:
        for name, page in (("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
            del container[name]["exec"]
            container[name]["httpGet"] = {"path": page, "port": 8404}


@pytest.mark.parametrize("probes", ["exec", "http"])
def test_a_new_pod_that_takes_its_time(cluster, home, image, probes):
    """On the host network both pods of a node share its ports. A probe of the new pod over HTTP would be answered by the old one,
    which then goes too early: so this very test fails with HTTP probes, which is shown here."""
    cluster.images["remora:0.2.0"] = image.slowed(home / f"slow-{probes}", 4)
    release = Release(cluster, "host-network")
    change = with_http_probes if probes == "http" else lambda workload: None
    cluster.add_node()
    release.upgrade(change=change, drain={"graceSeconds": 1, "hardStopSeconds": 15}, configCheck={"enabled": False})
    cluster.rollout()
    traffic = by_name(cluster)
    try:
        traffic.wait_for(100)
        release.upgrade(change=change, image={"tag": "0.2.0"})
        cluster.rollout()
        traffic.wait_for(100)
        if probes == "exec":
            exact(cluster, traffic)
        else:
            assert any("Connection refused" in f or "no address" in f for f in traffic.failures), traffic.failures
    finally:
        traffic.close()


def test_pod_network(cluster, home, image):
    """The defaults: Pod Security "restricted", a new pod learns from the others before the old one goes."""
    release = Release(cluster, "pod-network")

    def ask():
        service = cluster.object("Service", "rel-remora")
        where = lambda avoid: [p.address for p in cluster.endpoints(service) if p.node is not avoid]
        return Traffic(cluster.network.host(9), 8080, where)

    life(cluster, release, home, image, ask)
