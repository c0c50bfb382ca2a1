"""The image: what is in it, and that it runs as it says."""

import time

from chart import HELMS, render, workload
from emulator import images
from test_lifecycle import until

pytestmark = images.needed

CONFIG = """
global
    admin bind unix@/run/remora/admin.sock
frontend web
    mode http
    bind :8080
    timeout client 5s
    http-request return status 204
"""


def test_there_is_one_program_and_nothing_else(image):
    files = [str(p.relative_to(image.root)) for p in image.root.rglob("*") if not p.is_dir()]
    # The mount points of runc and of the kubelet may be there by now, and are empty.
    assert [f for f in files if (image.root / f).stat().st_size] == ["usr/local/bin/remora"]
    assert image.user == "65532:65532" and image.stop_signal == "SIGUSR1"


def test_it_runs_as_its_own_words_say(cluster):
    """Without the chart's arguments: supervisor as process 1, no rights, nothing to write to but /run/remora."""
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    program = workload(render(next(iter(HELMS)), "default"))["spec"]["template"]["spec"]["containers"][0]["command"][0]
    mounts = [{"name": "conf", "mountPath": "/etc/remora/conf", "readOnly": True}, {"name": "run", "mountPath": "/run/remora"}]
    container = {"name": "remora", "image": "remora:0.1.0", "securityContext": security, "volumeMounts": mounts}
    container["readinessProbe"] = {"exec": {"command": [program, "--probe", "ready", "-f", "/etc/remora/conf"]}, "periodSeconds": 1, "timeoutSeconds": 6}
    volumes = [{"name": "conf", "configMap": {"name": "conf"}}, {"name": "run", "emptyDir": {"medium": "Memory"}}]
    cluster.apply([{"kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"remora.cfg": CONFIG}}])
    spec = {"containers": [container], "volumes": volumes, "securityContext": {"fsGroup": 65532}}
    pod = cluster.start_pod(cluster.add_node(), {"metadata": {}, "spec": spec}, "alone")
    until(lambda: pod.ready)
    _, seen = pod.running["remora"].execute([program, "-vv"], 6)
    assert seen.startswith("Remora version")
    began = time.monotonic()
    pod.terminate()
    until(pod.gone.is_set)
    assert time.monotonic() - began < 10 and not pod.killed
    assert "All workers exited. Exiting... (0)" in pod.log()
