"""The life of a release: install, change the configuration, replace the image, roll back, lose a node, add one. Not one request
fails meanwhile, and afterwards every pod knows exactly how many there were. What is real here and what is emulated is said in
emulator/__init__.py."""

import pytest

from emulator import images
from emulator.cluster import Stuck
from emulator.release import Refused, Release, by_name, by_service, exact, nodes, says
from emulator.waiting import until

pytestmark = images.needed


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
        cluster.rollout(enough=lambda: any("exit code 132" in p.waiting for p in cluster.running()))
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
    cluster.images["remora:0.2.0"] = image.held(home / f"held-{probes}")
    release = Release(cluster, "host-network")
    change = with_http_probes if probes == "http" else lambda workload: None
    cluster.add_node()
    release.upgrade(change=change, drain={"graceSeconds": 1, "hardStopSeconds": 15}, configCheck={"enabled": False})
    cluster.rollout()
    [old] = cluster.running()
    traffic = by_name(cluster)
    try:
        traffic.wait_for(100)
        release.upgrade(change=change, image={"tag": "0.2.0"})
        asked = lambda: [p for p in cluster.running() if p is not old and p.probed > 4]
        cluster.rollout(enough=lambda: asked() or old.terminating)
        [new] = [p for p in cluster.running() if p is not old]
        if probes == "exec":
            assert not new.ready and not old.terminating
            traffic.wait_for(100)
        else:
            assert old.terminating and "listening" not in new.log()
            until(lambda: any("Connection refused" in f or "no address" in f for f in traffic.failures))
        new.path("/run/remora/go").touch()
        cluster.rollout()
        traffic.wait_for(100)
        if probes == "exec":
            exact(cluster, traffic)
    finally:
        traffic.close()


def test_pod_network(cluster, home, image):
    """The defaults: Pod Security "restricted", a new pod learns from the others before the old one goes."""
    life(cluster, Release(cluster, "pod-network"), home, image, lambda: by_service(cluster))
