"""Alerts and the dashboard: their expressions are sound and name metrics that exist."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from chart import CHART, HELMS, HERE, only, render

DOCUMENTED = set(re.findall(r"`(remora_[a-z_]+)`", (HERE.parents[1] / "docs" / "metrics.md").read_text()))


def rules():
    return only(render(next(iter(HELMS)), "everything"), "PrometheusRule")["spec"]


def dashboard():
    return only(render(next(iter(HELMS)), "everything"), "ConfigMap", "-dashboard")["data"]["remora.json"]


def test_metrics_exist():
    used = set(re.findall(r"\bremora_[a-z_]+", json.dumps(rules()) + dashboard()))
    assert len(used) > 10
    assert used <= DOCUMENTED


def test_rules_are_sound(tmp_path):
    promtool = shutil.which("promtool")
    if not promtool:
        assert not os.environ.get("CI"), "promtool is missing"
        pytest.skip("no promtool here")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rules()))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # What the dashboard asks must parse, too.
    asked = [t["expr"] for p in json.loads(dashboard())["panels"] for t in p["targets"]]
    asked = [e.replace("$__rate_interval", "5m") for e in asked]
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": [{"record": f"a{i}", "expr": e} for i, e in enumerate(asked)]}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_say_which_pod_and_fire_as_meant(tmp_path):
    """Samples in, alerts out."""
    promtool = shutil.which("promtool")
    if not promtool:
        assert not os.environ.get("CI"), "promtool is missing"
        pytest.skip("no promtool here")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    shutil.copy(HERE / "alerts.yaml", tmp_path / "alerts.yaml")
    done = subprocess.run([promtool, "test", "rules", "alerts.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_is_json_with_panels_that_do_not_overlap():
    board = json.loads(dashboard())
    assert board == json.loads((CHART / "dashboards" / "remora.json").read_text())
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places) == len({p["id"] for p in board["panels"]})
