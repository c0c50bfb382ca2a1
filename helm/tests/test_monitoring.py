"""A real Prometheus looks at pods of the emulated cluster: the dashboard shows something in every panel, and alerts fire when they
should and not else."""

import contextlib
import json
import shutil
import subprocess
import urllib.parse
import urllib.request

import pytest
import yaml

from chart import only
from emulator import images
from emulator.release import Release, by_name
from emulator.waiting import until

pytestmark = images.needed


class Prometheus:
    """On a host of its own. Scrapes the pods' addresses every second, under the names that the operator's monitors give."""

    def __init__(self, cluster, rules):
        home = cluster.home / "prometheus"
        home.mkdir()
        (home / "rules.yaml").write_text(yaml.safe_dump(rules))
        targets = [{"targets": [f"{p.address}:8404"], "labels": {"namespace": "edge", "pod": p.name}} for p in cluster.running()]
        scrape = {"job_name": "remora", "static_configs": targets}
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": ["rules.yaml"], "scrape_configs": [scrape]}
        (home / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.host = cluster.network.host(7)
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.host.namespace, "prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data",
             "--web.listen-address=127.0.0.1:9090"],
            cwd=home, stdout=(home / "prometheus.log").open("w"), stderr=subprocess.STDOUT)  # fmt: skip
        until(lambda: self.ask("query", query="up"))

    def ask(self, page, **words):
        """The answer's data; nothing before it can be asked."""
        with self.host.entered(), contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{page}?{urllib.parse.urlencode(words)}", timeout=10) as answer:
                return json.load(answer)["data"]

    def value(self, query):
        """Samples; an empty list if there is nothing."""
        return self.ask("query", query=query)["result"]

    def firing(self):
        """Names of the alerts."""
        return {a["labels"]["alertname"] for a in self.ask("alerts")["alerts"] if a["state"] == "firing"}

    def close(self):
        self.process.kill()
        self.process.wait()


def test_dashboard_and_alerts(cluster, image):
    if not shutil.which("prometheus"):
        assert not images.IN_CI, "prometheus is missing"
        pytest.skip("no prometheus here")
    release = Release(cluster, "host-network")
    metrics = {"enabled": True, "monitor": "PodMonitor", "rules": {"enabled": True}, "dashboard": {"enabled": True}}
    server = "\nbackend app\n    server app 127.0.0.1:9\nlisten more\n    bind :8081\n    default_backend app\n"
    for _ in range(2):
        cluster.add_node()
    release.upgrade(metrics=metrics, config=release.values["config"] + server)
    cluster.rollout()
    # Pods of another image take over from these.
    cluster.images["remora:0.2.0"] = image
    release.upgrade(image={"tag": "0.2.0"})
    cluster.rollout()
    prometheus = Prometheus(cluster, only(release.objects, "PrometheusRule")["spec"])
    traffic = by_name(cluster)
    try:
        good = release.values["config"]
        release.upgrade(config=good.replace("first", "second"))
        board = json.loads(only(release.objects, "ConfigMap", "-dashboard")["data"]["remora.json"])
        words = {"$namespace": "edge", "$pod": ".+", "$__rate_interval": "5s"}
        for panel in board["panels"]:
            for target in panel["targets"]:
                asked = target["expr"]
                for word, meaning in words.items():
                    asked = asked.replace(word, meaning)
                until(lambda: prometheus.value(asked), 45, lambda: AssertionError(f"{panel['title']}: nothing for {asked}"))

        # Nothing is wrong, but that the emulated authority gives certificates for a day.
        until(lambda: "RemoraCertificateExpires" in prometheus.firing())
        assert prometheus.firing() == {"RemoraCertificateExpires"}

        # A faulty configuration is told of, until it is repaired.
        release.upgrade(config=good.replace("http-request track-sc0", "http-reqest track-sc0"), configCheck={"enabled": False})
        until(lambda: "RemoraReloadFailed" in prometheus.firing())
        release.upgrade(config=good)
        until(lambda: prometheus.firing() == {"RemoraCertificateExpires"})
        assert not traffic.failures
    finally:
        traffic.close()
        prometheus.close()
