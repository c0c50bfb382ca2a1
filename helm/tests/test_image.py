"""The image: what is in it, and that it runs as it says."""

import json
import pathlib
import re
import shutil
import subprocess
import time

import pytest

from chart import HELMS, HERE, render, workload
from emulator import images
from emulator.waiting import until

pytestmark = images.needed

ROOT = HERE.parents[1]
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


@pytest.fixture
def podman(home):
    """A function that runs it, with a store of its own."""
    if not shutil.which("podman"):
        assert not images.IN_CI, "podman is missing"
        pytest.skip("no podman here")
    place = home / "podman"
    words = ["podman", "--root", place / "store", "--runroot", place / "run", "--tmpdir", place / "tmp", "--storage-driver", "vfs",
             "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none"]  # fmt: skip

    def run(*more, good=True):
        done = subprocess.run([*words, *more], capture_output=True, text=True, cwd=ROOT)
        assert not good or done.returncode == 0, f"podman {' '.join(map(str, more))}: {done.stderr}"
        return done

    yield run
    run("rm", "--all", "--force")
    shutil.rmtree(place)


def test_podman_builds_and_runs_it(podman, home, tmp_path):
    """As the guide says, on one machine without Kubernetes: a read-only root, no rights, and `podman stop` drains."""
    (tmp_path / "out").mkdir()
    shutil.copy(images.PROGRAM, tmp_path / "out" / "remora")
    # The user of the image must be able to read it.
    conf = pathlib.Path(home / "podman-conf")
    conf.mkdir(mode=0o755)
    (conf / "remora.cfg").write_text(CONFIG)
    home.chmod(0o755)
    podman("build", "--isolation", "chroot", "--build-context", f"build={tmp_path}", "-t", "remora:0.1.0", "-f", "helm/Containerfile", ".")
    [image] = json.loads(podman("image", "inspect", "remora:0.1.0").stdout)
    config = image["Config"]
    assert (config["User"], config["StopSignal"]) == ("65532:65532", "SIGUSR1")
    limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]
    rights = ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none"]
    mounts = ["-v", f"{conf}:/etc/remora/conf:ro", "--tmpfs", "/run/remora:rw,mode=1777"]
    done = podman("run", "--rm", *limits, *rights, *mounts, "remora:0.1.0", "-c", "-V", "-f", "/etc/remora/conf")
    assert "Configuration file is valid" in done.stdout + done.stderr
    podman("run", "--detach", "--name", "proxy", *limits, *rights, *mounts, "remora:0.1.0")
    probe = [config["Entrypoint"][0], "--probe", "ready", "-f", "/etc/remora/conf"]
    until(lambda: podman("exec", "proxy", *probe, good=False).stdout.strip() == "ready")
    podman("stop", "--time", "20", "proxy")
    [state] = [c["State"] for c in json.loads(podman("inspect", "proxy").stdout)]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    assert "All workers exited. Exiting... (0)" in podman("logs", "proxy").stderr


def test_everything_that_the_program_is_made_of_is_copied(tmp_path):
    """Cargo finds the whole workspace in what the first stage copies."""
    for words in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "helm" / "Containerfile").read_text(), re.M):
        *sources, target = words.split()
        for source in sources:
            place = tmp_path / target / source if target == "./" else tmp_path / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place)
            else:
                shutil.copy(ROOT / source, place)
    done = subprocess.run(["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # What is read while the program is compiled must be there, too.
    for source in (tmp_path / "node").rglob("*.rs"):
        if {"tests", "benches", "fuzz"} & set(source.relative_to(tmp_path).parts):
            continue
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', source.read_text()):
            assert (source.parent / name).exists(), f"{source}: {name}"
