"""Alerts and the dashboard: their expressions are sound and name metrics that exist."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from chart import CHART, HELMS, HERE, only, render

DOCS = HERE.parents[1] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
DOCUMENTED = set(re.findall(r"`(remora_[a-z_]+)`", PAGE))


def rules():
    return only(render(next(iter(HELMS)), "everything"), "PrometheusRule")["spec"]


def dashboard():
    return only(render(next(iter(HELMS)), "everything"), "ConfigMap", "-dashboard")["data"]["remora.json"]


def test_metrics_exist():
    used = set(re.findall(r"\bremora_[a-z_]+", json.dumps(rules()) + dashboard()))
    assert len(used) > 10
    assert used <= DOCUMENTED


def test_documents_name_metrics_that_exist():
    for page in DOCS.glob("*.md"):
        # A file's name, or the beginning of many, is not a metric.
        named = {n for n in re.findall(r"`(remora_[a-z_]+)[`{]", page.read_text()) if not n.endswith("_")}
        assert named <= DOCUMENTED, page


def test_labels_exist():
    """What is grouped by is a label that the program gives, or that Prometheus adds for the pod."""
    given = set(re.findall(r"`([a-z]+)`", " ".join(re.findall(r"^Labels? .*$", PAGE, re.M))))
    given |= set(re.findall(r"^\| `remora_[a-z_]+` by `([a-z]+)` \|", PAGE, re.M)) | {"pod", "namespace"}
    texts = json.dumps(rules()) + dashboard()
    used = {w.strip() for group in re.findall(r"\bby \(([^)]*)\)", texts) for w in group.split(",")}
    used |= set(re.findall(r"\$labels\.([a-z]+)", texts)) | set(re.findall(r"\{\{ ?([a-z]+) ?\}\}", texts))
    assert len(used) > 8
    assert used <= given


def test_every_alert_has_a_row_in_the_guide():
    guide = (DOCS / "kubernetes.md").read_text()
    for group in rules()["groups"]:
        for rule in group["rules"]:
            assert rule["alert"] == "Mine" or f"`{rule['alert']}`" in guide, rule["alert"]


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
    tested = {t["alertname"] for f in yaml.safe_load((HERE / "alerts.yaml").read_text())["tests"] for t in f["alert_rule_test"] if t["exp_alerts"]}
    assert tested == {r["alert"] for g in rules()["groups"] for r in g["rules"]} - {"Mine"}


def test_dashboard_is_json_with_panels_that_do_not_overlap():
    board = json.loads(dashboard())
    assert board == json.loads((CHART / "dashboards" / "remora.json").read_text())
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places) == len({p["id"] for p in board["panels"]})
