"""The emulated cluster, for the tests that need it."""

import pathlib
import shutil
import tempfile

import pytest

from emulator import images
from emulator.cluster import Cluster

_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def home():
    """A short path: UNIX sockets live below it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="rk"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def image(home):
    """That of helm/Containerfile."""
    assert not images.MISSING, f"missing: {images.MISSING}"
    (home / "image").mkdir()
    return images.build(home / "image", images.PROGRAM)


@pytest.fixture(scope="session")
def busybox(home):
    return images.busybox(home)


@pytest.fixture
def cluster(home, image, busybox, request):
    place = pathlib.Path(tempfile.mkdtemp(dir=home, prefix="c"))
    cluster = Cluster(place)
    cluster.images = {"remora:0.1.0": image, "busybox:1.37": busybox}
    try:
        yield cluster
        if request.node.stash.get(_FAILED, False):
            for path in sorted(place.glob("**/*.log")):
                print(f"---- {path.parent.name}/{path.name}\n{path.read_text(errors='replace')}")
    finally:
        cluster.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report
