"""The image of helm/Containerfile, with a program that was built before."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from .runtime import Image

ROOT = pathlib.Path(__file__).parents[3]
# A statically linked program; .ci/chart sets it.
PROGRAM = os.environ.get("REMORA_STATIC")
MISSING = [t for t in ("runc", "dnsmasq", "busybox", "openssl", "ip") if not shutil.which(t)]
if not PROGRAM:
    MISSING.append("REMORA_STATIC, which names a statically linked program")
# In CI all tools must be there; rights may be lacking.
RIGHTS = [] if os.geteuid() == 0 else ["the rights of root"]
IN_CI = bool(os.environ.get("CI"))
needed = pytest.mark.skipif(bool(RIGHTS or (MISSING and not IN_CI)), reason=f"missing: {', '.join(MISSING + RIGHTS)}")


def build(home, program):
    """By buildah if it is there, in a store of its own; else what the last stage says is done by hand."""
    context = home / "program"
    (context / "out").mkdir(parents=True)
    shutil.copy(program, context / "out" / "remora")
    if not shutil.which("buildah"):
        return _by_hand(home, program)
    store = ["--root", str(home / "store"), "--runroot", str(home / "run"), "--storage-driver", "vfs"]

    def buildah(*words):
        done = subprocess.run(["buildah", *store, *words], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"BUILDAH_ISOLATION": "chroot"})
        assert done.returncode == 0, f"buildah {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    # The stage 'build' is replaced by a directory; everything else is as in any other build.
    buildah("bud", "--isolation", "chroot", "--build-context", f"build={context}", "-t", "remora:test", "-f", "helm/Containerfile", ".")
    container = buildah("from", "remora:test")
    place = pathlib.Path(buildah("mount", container))
    config = json.loads(buildah("inspect", "--type", "image", "remora:test"))["OCIv1"]["config"]
    root = home / "rootfs"
    shutil.copytree(place, root, symlinks=True)
    buildah("rm", container)
    shutil.rmtree(home / "store")
    return Image(root, config)


def _by_hand(home, program):
    final = (ROOT / "helm" / "Containerfile").read_text().rsplit("\nFROM scratch\n", 1)[1]
    config, root = {}, home / "rootfs"
    for word, rest in re.findall(r"^([A-Z]+) (.*)$", final, re.M):
        if word == "COPY":
            place = root / rest.split()[-1].lstrip("/")
            place.parent.mkdir(parents=True)
            shutil.copy(program, place)
        elif word in ("ENTRYPOINT", "CMD"):
            config[word.capitalize()] = json.loads(rest)
        else:
            config[{"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}[word]] = rest
    (root / config["WorkingDir"].lstrip("/")).mkdir(parents=True)
    return Image(root, config)


def busybox(home):
    """For `helm test`: an image with a shell, as the chart's `tests.image` is."""
    root = home / "busybox"
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin" / "busybox")
    for name in subprocess.run([root / "bin" / "busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    return Image(root, {"Cmd": ["sh"], "Env": ["PATH=/bin"]})
