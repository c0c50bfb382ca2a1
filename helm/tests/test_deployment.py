"""The life of a Deployment, in Pod Security "restricted": installed, changed, rolled, scaled both ways, a node lost. Nothing is
handed from pod to pod here: a pod that goes drains, tells its peers what they do not have, and leaves its lineage to one that comes."""

import re

from emulator import images, tables
from emulator.release import Release, by_service, exact, nodes, says
from emulator.waiting import until

pytestmark = images.needed


def lineages(cluster):
    """How many lives of others each pod knows of, at most."""
    return max(tables.metrics(p, "peers")['remora_peers_lineages{peers="cluster"}'] for p in cluster.running())


def gone_well(cluster, pods):
    """They have ended by themselves, and lost nothing."""
    for pod in pods:
        assert pod.gone.is_set() and not pod.killed and not pod.restarts
        # One that has gone a moment before may be named as not having the last of it.
        assert re.search("stops: every peer that was met has all|stops before .* other peers have it and pass it on", pod.log())
        assert "it is lost" not in pod.log()


def test_deployment(cluster, image):
    for _ in range(3):
        cluster.add_node()
    release = Release(cluster, "pod-network")
    release.upgrade(kind="Deployment", replicas=3)
    cluster.rollout()
    first = cluster.running()
    traffic = by_service(cluster)
    try:
        traffic.wait_for(200)
        assert nodes(traffic) == {"node-1", "node-2", "node-3"}
        exact(cluster, traffic)
        assert lineages(cluster) == 2

        # The configuration changes in place.
        release.upgrade(config=release.values["config"].replace("first", "second"))
        until(lambda: says(traffic, "second"))
        assert cluster.running() == first

        # Another image: a pod more at a time, and never one less.
        cluster.images["remora:0.2.0"] = image
        release.upgrade(image={"tag": "0.2.0"})
        least = []
        cluster.rollout(60, enough=lambda: least.append(sum(p.ready for p in cluster.running())))
        assert min(least) >= 3 and not set(first) & set(cluster.running())
        gone_well(cluster, first)
        exact(cluster, traffic)

        # More pods, and fewer than before.
        release.upgrade(replicas=5)
        cluster.rollout()
        traffic.wait_for(200)
        exact(cluster, traffic)
        many = cluster.running()
        release.upgrade(replicas=2)
        cluster.rollout()
        few = cluster.running()
        assert len(many) == 5 and len(few) == 2 and set(few) < set(many)
        gone_well(cluster, set(many) - set(few))
        exact(cluster, traffic)

        # Back to the first image, with three pods.
        release.upgrade(image={"tag": "0.1.0"}, replicas=3)
        cluster.rollout(60)
        gone_well(cluster, few)
        exact(cluster, traffic)

        # A node is lost, and its pod comes again on another one. Clients of a node that dies fail, so they are led away first.
        lost = cluster.nodes[1]
        traffic.avoid = lost
        traffic.wait_for(100)
        exact(cluster, traffic)
        cluster.lose_node(lost)
        traffic.wait_for(100)
        cluster.rollout()
        assert len(cluster.running()) == 3 and {p.node.name for p in cluster.running()} == {"node-1", "node-3"}
        traffic.wait_for(200)
        exact(cluster, traffic)
        passed, said = release.test()
        assert passed and "pods: 3" in said, said
        # Twelve pods have been: those that came went on with the lineages of those that went.
        assert lineages(cluster) < 8
    finally:
        traffic.close()
