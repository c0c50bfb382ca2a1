"""Values: what is refused and how, and that schema, values and README tell the same."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from chart import CHART, HELMS, HERE, helm, refusal

# Values, and what the message must name. A path is given by its parts, since each Helm joins them differently.
WRONG = yaml.safe_load((HERE / "wrong.yaml").read_text())


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("case", WRONG, ids=lambda c: c["name"])
def test_wrong_values_are_refused_by_name(version, case):
    said = refusal(version, case["values"])
    for part in case["says"]:
        assert str(part) in said


def test_every_value_is_in_the_schema_and_the_other_way_round():
    def names(schema, prefix=""):
        for key, sub in schema.get("properties", {}).items():
            yield prefix + key
            yield from names(sub, f"{prefix}{key}.")

    def keys(values, prefix=""):
        for key, value in values.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{key}.")

    schema = json.loads((CHART / "values.schema.json").read_text())
    free = {"resources.requests", "resources.limits", "resources.claims"}
    free |= {p for p in names(schema) if re.match(r"(affinity|dnsConfig)\.", p)} | {"global"}
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    extra = {k for k in keys(values) if k.startswith(("resources.", "metrics.dashboard.labels."))}
    assert set(names(schema)) - free == set(keys(values)) - extra


def test_no_object_of_the_schema_takes_unknown_keys():
    """Except those that are Kubernetes' own, which have no `properties`."""

    def walk(schema, path):
        if "properties" in schema:
            assert schema.get("additionalProperties") is False, path
        for key, sub in schema.items():
            if isinstance(sub, dict):
                walk(sub, f"{path}.{key}")

    walk(json.loads((CHART / "values.schema.json").read_text()), "")


def test_readme_is_made_from_the_values():
    done = subprocess.run([sys.executable, str(HERE / "readme.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_words_of_other_sections_are_not_the_chart_s_business():
    """`user` of a list of users, and `grace` in a comment."""
    config = "global\n  maxconn 100\n# daemon\nuserlist u\n  user a insecure-password b\n  group g users a\nfrontend f\n  mode http\n"
    version = next(iter(HELMS))
    done = helm(version, "template", "rel", str(CHART), "--values", "-", text=yaml.safe_dump({"config": config}))
    assert done.returncode == 0, done.stderr
