"""The rendered configuration, read by the program itself. `REMORA` names the binary; CI sets it."""

import os
import pathlib
import re
import subprocess

import pytest

from chart import CASES, HELMS, HERE, only, render, workload

REMORA = os.environ.get("REMORA")
pytestmark = pytest.mark.skipif(not REMORA and not os.environ.get("CI"), reason="REMORA names no binary")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate, as cert-manager writes it into a Secret."""
    home = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=peers", "-keyout", home / "tls.key", "-out", home / "tls.crt"],
        check=True, capture_output=True)  # fmt: skip
    (home / "ca.crt").write_bytes((home / "tls.crt").read_bytes())
    return home


def mount(objects, home, tls):
    """The configuration as the kubelet lays it out: `..data` is a link to what is current. Yields the arguments."""
    spec = workload(objects)["spec"]["template"]["spec"]
    remora = next(c for c in spec["containers"] if c["name"] == "remora")
    paths = {"/run/remora": str(home), "/etc/remora/tls": str(tls)}
    for volume in spec["volumes"]:
        name = volume.get("configMap", {}).get("name")
        data = next((o["data"] for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == name), None)
        place = next((m["mountPath"] for m in remora["volumeMounts"] if m["name"] == volume["name"]), None)
        if not name or not place or data is None:
            continue
        paths[place] = str(home / volume["name"])
        (home / volume["name"] / "..2026").mkdir(parents=True)
        (home / volume["name"] / "..data").symlink_to("..2026")
        for file, text in data.items():
            for old, new in paths.items():
                text = text.replace(old, new)
            (home / volume["name"] / "..2026" / file).write_text(text)
            (home / volume["name"] / file).symlink_to(f"..data/{file}")
    args = []
    for arg in remora["args"]:
        for old, new in paths.items():
            arg = arg.replace(old, new)
        args.append(arg.replace("$(POD_NAME)", "pod-a").replace("$(NODE_NAME)", "node-a"))
    return args


@pytest.mark.parametrize("case", [c for c in CASES if c != "plaintext"])
def test_remora_accepts_the_configuration(case, tmp_path, tls):
    objects = render(next(iter(HELMS)), case)
    args = mount(objects, tmp_path, tls)
    env = os.environ | {"POD_NAME": "pod-a", "POD_IP": "192.0.2.1", "NODE_NAME": "node-a", "BACKEND": "127.0.0.1:9000"}
    done = subprocess.run([REMORA, "-c", "-V", *args], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout + done.stderr
    # 'plain text' is only spoken where it was asked for, and nothing is warned about.
    assert "[WARNING]" not in done.stdout + done.stderr


def test_remora_accepts_what_the_chart_says_without_tls(tmp_path, tls):
    objects = render(next(iter(HELMS)), "plaintext")
    mount(objects, tmp_path, tls)
    (tmp_path / "web.cfg").write_text("frontend web\n    bind 127.0.0.1:8080\n    timeout client 1s\n")
    done = subprocess.run(
        [REMORA, "-c", "-V", "-f", str(tmp_path / "chart"), "-f", str(tmp_path / "web.cfg")],
        capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_image_runs_as_the_chart_expects():
    """The Containerfile and the chart speak of the same program, user and signal."""
    text = (HERE.parent / "Containerfile").read_text()
    spec = workload(render(next(iter(HELMS)), "default"))["spec"]["template"]["spec"]
    remora = spec["containers"][0]
    assert re.search(r"^STOPSIGNAL SIGUSR1$", text, re.M)
    user = spec["securityContext"]["runAsUser"]
    assert re.search(rf"^USER {user}:{user}$", text, re.M)
    assert f'ENTRYPOINT ["{remora["command"][0]}"]' in text
    final = text.rsplit("\nFROM ", 1)[1]
    assert final.startswith("scratch")
    assert f" {remora['command'][0]}\n" in final
    # The same toolchain as the workspace wants, or a newer one.
    wanted = re.search(r'^rust-version = "1\.(\d+)"', (HERE.parents[1] / "Cargo.toml").read_text(), re.M)[1]
    assert int(re.search(r"^ARG BUILDER=rust:1\.(\d+)-bookworm", text, re.M)[1]) >= int(wanted)
    for path in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for source in path.split():
            assert (pathlib.Path(HERE.parents[1]) / source).exists(), source
