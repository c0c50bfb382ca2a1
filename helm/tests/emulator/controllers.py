"""What the DaemonSet controller and the Deployment controller do in a rolling update: which pods they start and end, step by step."""

import hashlib
import json


def revision(workload):
    """Names the template that pods are made from."""
    return hashlib.sha256(json.dumps(workload["spec"]["template"], sort_keys=True).encode()).hexdigest()[:8]


def step(cluster, workload):
    """Does what is due now. Returns whether everything is as the workload says, and its newest pods."""
    return (_daemon_set if workload["kind"] == "DaemonSet" else _deployment)(cluster, workload, revision(workload))


def _start(cluster, node, workload, wanted):
    pod = cluster.start_pod(node, workload["spec"]["template"], workload["metadata"]["name"])
    pod.revision = wanted
    return pod


def _sorted(cluster, wanted):
    """All pods, and those that are not about to end: of the current template, and of others."""
    pods = [p for p in cluster.workload_pods() if not p.node.lost]
    alive = [p for p in pods if not p.terminating]
    fresh = [p for p in alive if getattr(p, "revision", "") == wanted]
    return pods, fresh, [p for p in alive if p not in fresh]


def _daemon_set(cluster, workload, wanted):
    """A pod on every node, ready for long enough. The old one of a node goes when the new one can stand in for it."""
    spec = workload["spec"]
    rolling = spec["updateStrategy"].get("rollingUpdate", {"maxSurge": 0, "maxUnavailable": 1})
    surge, missing = int(rolling["maxSurge"]), int(rolling["maxUnavailable"])
    seconds = spec.get("minReadySeconds", 0)
    nodes = [n for n in cluster.nodes if not n.lost]
    pods, new, others = _sorted(cluster, wanted)
    now, fresh, old = ({n: [p for p in ps if p.node is n] for n in nodes} for ps in (pods, new, others))
    if all(any(p.available(seconds) for p in fresh[n]) and len(now[n]) == 1 for n in nodes):
        return True, new
    surging = sum(1 for n in nodes if old[n] and fresh[n] and not fresh[n][0].available(seconds))
    away = sum(1 for n in nodes if not any(p.available(seconds) for p in old[n] + fresh[n]))
    for node in nodes:
        before, after = old[node], fresh[node]
        # The old pod goes, too, if it is of no use itself.
        if before and after and (after[0].available(seconds) or not before[0].ready):
            before[0].terminate()
        elif before and not after and surge and surging < surge:
            surging += 1
            _start(cluster, node, workload, wanted)
        elif before and not surge and away < missing:
            away += 1
            before[0].terminate()
        elif not before and not after and (surge or not now[node]):
            _start(cluster, node, workload, wanted)
    # A surge pod that another update has overtaken: the oldest stays.
    for pod in [p for ps in old.values() for p in ps[1:]]:
        pod.terminate()
    return False, new


def _deployment(cluster, workload, wanted):
    """So many pods, each on the node that has fewest. Never more than `maxSurge` above that, nor fewer than `maxUnavailable` below
    that are available."""
    spec = workload["spec"]
    number, seconds = spec["replicas"], spec.get("minReadySeconds", 0)
    rolling = spec["strategy"]["rollingUpdate"]
    most = number + _part(rolling["maxSurge"], number, up=True)
    least = number - _part(rolling["maxUnavailable"], number, up=False)
    pods, fresh, old = _sorted(cluster, wanted)
    good = [p for p in fresh + old if p.available(seconds)]
    if len(pods) == len(fresh) == number and len(good) == number:
        return True, fresh
    for _ in range(min(number - len(fresh), most - len(fresh) - len(old))):
        where = min((n for n in cluster.nodes if not n.lost), key=lambda n: sum(p.node is n for p in fresh + old))
        fresh.append(_start(cluster, where, workload, wanted))
    # Those that are not available go first, and of the others those that share their node with most.
    crowd = lambda pod: sum(p.node is pod.node for p in fresh + old)
    spare = len(good) - least
    for pods_of, surplus in ((old, len(old)), (fresh, len(fresh) - number)):
        for pod in sorted(pods_of, key=lambda p: (p.available(seconds), -crowd(p)))[: max(surplus, 0)]:
            if pod not in good:
                pod.terminate()
            elif spare > 0:
                spare -= 1
                pod.terminate()
    return False, fresh


def _part(number, whole, up):
    """A number, or a percentage of the whole."""
    if not str(number).endswith("%"):
        return int(number)
    share = int(str(number).rstrip("%")) * whole
    return (share + 99) // 100 if up else share // 100
