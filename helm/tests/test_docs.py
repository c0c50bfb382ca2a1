"""The guide: its values are accepted by the chart and their configurations by the program, and so are its lines of configuration."""

import os
import re
import subprocess

import pytest
import yaml

from chart import CHART, HELMS, HERE, helm

REMORA = os.environ.get("REMORA")
GUIDE = (HERE.parents[1] / "docs" / "kubernetes.md").read_text()
VALUES = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.M | re.S)
LINES = sorted(set(re.findall(r"`((?:http-request|tcp-request connection|stick-table|acl|bind) [^`…]+)`", GUIDE)))
# What lines of the guide speak of.
AROUND = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
peers cluster
    server me 127.0.0.1:1
frontend web
    bind 127.0.0.1:2
    stick-table type ipv6 size 1k expire 1m store http_req_rate(10s),gpc0_rate(5s),conn_cur peers cluster
    http-request track-sc0 src
    {}
backend keys
    stick-table type string len 64 size 1k expire 2m store http_req_rate(1m)
backend login
    stick-table type ipv6 size 1k expire 2m store http_req_rate(1m)
"""
needs_program = pytest.mark.skipif(not REMORA and not os.environ.get("CI"), reason="REMORA names no binary")


def check(path):
    done = subprocess.run([REMORA, "-c", "-V", "-L", "me", "-f", str(path)], capture_output=True, text=True, timeout=60, cwd=path.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_something_to_look_at():
    assert len(VALUES) >= 4 and len(LINES) >= 6


@needs_program
@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_values_of_the_guide(version, number, tmp_path):
    text = VALUES[number].replace("REGISTRY", "registry.example.org")
    done = helm(version, "template", "remora", str(CHART), "--namespace", "remora", "--values", "-", text=text)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(text).get("config")
    if config:
        # Names of Services do not resolve here.
        config = re.sub(r"\S+\.svc\.cluster\.local", "127.0.0.1", config)
        (tmp_path / "a.cfg").write_text("peers cluster\n    server me 127.0.0.1:1\n" + config)
        check(tmp_path / "a.cfg")


@needs_program
@pytest.mark.parametrize("line", LINES)
def test_lines_of_the_guide(line, tmp_path):
    (tmp_path / "blocked.lst").write_text("203.0.113.0/24\n")
    text = AROUND.format(line)
    if line.startswith("stick-table"):
        text = AROUND.format("") + f"backend more\n    {line}\n"
    (tmp_path / "a.cfg").write_text(text)
    check(tmp_path / "a.cfg")
