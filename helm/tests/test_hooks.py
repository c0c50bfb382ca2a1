"""Helm itself, with an API server that is not one (emulator/api.py): what is done in which order, and what is left as it was."""

import os
import pathlib
import subprocess

import pytest
import yaml

from chart import CHART, HELMS, HERE
from emulator.api import Api

REMORA = os.environ.get("REMORA")
pytestmark = pytest.mark.skipif(not REMORA and not os.environ.get("CI"), reason="REMORA names no binary")
VALUES, ON_NODES = (yaml.safe_load((HERE / "lifecycle" / f"{n}-values.yaml").read_text()) for n in ("pod-network", "host-network"))
FAULTY = VALUES["config"].replace("http-request track-sc0", "http-reqest track-sc0")
SECOND = VALUES["config"].replace("first", "second")


class Cluster:
    """Runs Helm against the server; its Jobs are run by the program itself."""

    def __init__(self, version, home):
        self.version, self.home = version, home
        self.api = Api(self.verdict)
        self.test_passes = True
        self.jobs = []

    def verdict(self, thing):
        if thing["kind"] == "Pod":
            return self.test_passes
        spec = thing["spec"]["template"]["spec"]
        [container] = spec["containers"]
        place = pathlib.Path(self.home) / f"job-{len(self.jobs)}"
        paths = {}
        for mount in container["volumeMounts"]:
            name = next(v["configMap"]["name"] for v in spec["volumes"] if v["name"] == mount["name"])
            paths[mount["mountPath"]] = place / mount["name"]
            paths[mount["mountPath"]].mkdir(parents=True)
            for file, text in self.api.objects["ConfigMap", name]["data"].items():
                (paths[mount["mountPath"]] / file).write_text(text)
        args = [str(paths.get(a, a)) for a in container["args"]]
        done = subprocess.run([REMORA, *args], capture_output=True, text=True, env=os.environ | {"NODE_NAME": "n", "POD_NAME": "p", "POD_IP": "::1"})
        self.jobs.append(done.stdout + done.stderr)
        return done.returncode == 0

    def helm(self, *words, **changes):
        more = ["--namespace", "edge"]
        if words[0] in ("install", "upgrade"):
            more += ["--values", "-", "--disable-openapi-validation", "--timeout", "30s"]
        env = os.environ | {"KUBECONFIG": str(self.api.config(self.home))}
        text = yaml.safe_dump(VALUES | changes)
        return subprocess.run([HELMS[self.version], *words, *more], input=text, capture_output=True, text=True, env=env, timeout=120)

    def config(self):
        return self.api.objects["ConfigMap", "rel-remora"]["data"]["remora.cfg"].rstrip()

    def image(self):
        return self.api.objects["DaemonSet", "rel-remora"]["spec"]["template"]["spec"]["containers"][0]["image"]

    def hooks(self):
        return sorted(k for k, o in self.api.objects.items() if "helm.sh/hook" in o["metadata"].get("annotations", {}))


@pytest.fixture(params=HELMS)
def cluster(request, tmp_path):
    cluster = Cluster(request.param, tmp_path)
    yield cluster
    cluster.api.close()


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_release_as_helm_makes_it(cluster):
    first = VALUES["config"].rstrip()
    said = good(cluster.helm("install", "rel", str(CHART)))
    assert "rollout status daemonset/rel-remora" in said
    assert cluster.config() == first and cluster.image() == "remora:0.1.0"
    assert not cluster.jobs and not cluster.hooks()

    # A faulty configuration: nothing has changed, and the Job is still there to be asked why.
    cluster.api.changes.clear()
    done = cluster.helm("upgrade", "rel", str(CHART), config=FAULTY, image={"tag": "0.2.0"})
    assert done.returncode != 0 and "pre-upgrade hooks failed" in done.stderr
    assert "unknown keyword 'http-reqest'" in cluster.jobs[-1]
    assert cluster.config() == first and cluster.image() == "remora:0.1.0"
    assert ("Job", "rel-remora-check") in cluster.hooks()
    assert {r for _, r, n in cluster.api.changes if "check" not in n} <= {"secrets"}

    # A good one. The Job and its files go when it is done.
    good(cluster.helm("upgrade", "rel", str(CHART), config=SECOND, image={"tag": "0.2.0"}))
    assert "Configuration file is valid" in cluster.jobs[-1]
    assert cluster.config() == SECOND.rstrip() and cluster.image() == "remora:0.2.0"
    assert not cluster.hooks()

    # The way back depends on nothing.
    number = len(cluster.jobs)
    good(cluster.helm("rollback", "rel", "1"))
    assert cluster.config() == first and cluster.image() == "remora:0.1.0" and len(cluster.jobs) == number

    good(cluster.helm("test", "rel"))
    cluster.test_passes = False
    assert cluster.helm("test", "rel").returncode != 0

    good(cluster.helm("uninstall", "rel"))
    assert not {k for k in cluster.api.objects if k != ("Pod", "rel-remora-test")}


def test_an_upgrade_that_would_stop_at_its_first_pod(cluster):
    """On the host network old and new pods meet in a directory. If they would not, nothing is begun."""
    values = ON_NODES | {"configCheck": {"enabled": False}}
    good(cluster.helm("install", "rel", str(CHART), **values))
    for change in ({"privilegedPorts": True}, {"userId": 1000}, {"handoff": {"hostPath": "/run/other"}}):
        cluster.api.changes.clear()
        done = cluster.helm("upgrade", "rel", str(CHART), **values | change)
        assert done.returncode != 0 and "updateStrategy: pods that run meet in '/run/remora/edge.rel-remora/uid-65532'" in done.stderr
        assert not cluster.api.changes
    good(cluster.helm("upgrade", "rel", str(CHART), **values | {"image": {"tag": "0.2.0"}}))
    good(cluster.helm("upgrade", "rel", str(CHART), **values | {"userId": 1000, "updateStrategy": {"maxUnavailable": 1}}))
    good(cluster.helm("upgrade", "rel", str(CHART), **values | {"userId": 1000, "image": {"tag": "0.3.0"}}))
    # Without a hand-off the default is to end the old pods first.
    good(cluster.helm("upgrade", "rel", str(CHART), **values | {"handoff": {"enabled": False}}))
    done = cluster.helm("upgrade", "rel", str(CHART), **values)
    assert done.returncode != 0 and "meet in 'no directory'" in done.stderr
