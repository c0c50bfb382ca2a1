"""The chart as the checks see it: rendered by each version of Helm, parsed, without a cluster."""

import functools
import os
import pathlib
import subprocess

import yaml

HERE = pathlib.Path(__file__).parent
CHART = HERE.parent / "remora"
CASES = sorted(p.name.removesuffix("-values.yaml") for p in (CHART / "ci").glob("*-values.yaml"))
# Paths of Helm binaries by version; .ci/chart sets it.
HELMS = dict(pair.split("=", 1) for pair in os.environ.get("HELMS", "path=helm").split())
# Kinds of other projects: kubernetes-validate cannot know them.
CUSTOM = {"Certificate", "Issuer", "PodMonitor", "ServiceMonitor", "PrometheusRule"}


def helm(version, *args, text=None):
    """Runs Helm; standard output, standard error and the exit code are in the result."""
    return subprocess.run([HELMS[version], *args], input=text, capture_output=True, text=True, timeout=120)


@functools.cache
def render(version, case):
    """All objects of a release `rel` in the namespace `edge` with the values of `case`."""
    values = CHART / "ci" / f"{case}-values.yaml"
    done = helm(version, "template", "rel", str(CHART), "--namespace", "edge", "--values", str(values))
    assert done.returncode == 0, done.stderr
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def refusal(version, values):
    """What Helm says about values that must not be accepted."""
    done = helm(version, "template", "rel", str(CHART), "--namespace", "edge", "--values", "-", text=yaml.safe_dump(values))
    assert done.returncode != 0, "accepted"
    return done.stderr


def only(objects, kind, suffix=None):
    """The one object of this kind, whose name ends like this."""
    found = [o for o in objects if o["kind"] == kind and (suffix is None or o["metadata"]["name"].endswith(suffix))]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} {suffix or ''}"
    return found[0]


def workload(objects):
    """The DaemonSet or the Deployment."""
    found = [o for o in objects if o["kind"] in ("DaemonSet", "Deployment")]
    assert len(found) == 1
    return found[0]


def selects(selector, labels):
    """Whether a selector of labels matches."""
    return bool(selector) and all(labels.get(k) == v for k, v in selector.items())
