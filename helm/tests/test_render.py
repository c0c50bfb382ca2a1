"""What Helm makes of the chart: lint, goldens, Kubernetes' schemas."""

import functools
import os

import kubernetes_validate
import pytest
import yaml

from chart import CASES, CHART, CUSTOM, HELMS, HERE, helm, render, workload

# The schemas are some megabytes each and asked for again and again.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
VERSIONS = [v for v in dict.fromkeys(kubernetes_validate.utils.all_versions()) if tuple(map(int, v.split(".")[:2])) >= (1, 28)]


def test_there_are_enough_cases_and_versions():
    assert len(CASES) >= 6
    assert len(VERSIONS) >= 10, VERSIONS


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("case", CASES)
def test_lint_is_content(version, case):
    done = helm(version, "lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{case}-values.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("case", CASES)
def test_objects_are_those_of_the_golden_file(version, case):
    """Compared as parsed YAML. `UPDATE_GOLDENS=1` writes the files anew."""
    objects = sorted(render(version, case), key=lambda o: (o["kind"], o["metadata"]["name"]))
    golden = HERE / "golden" / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(yaml.dump_all(objects, Dumper=Readable, width=120, sort_keys=True))
    assert list(yaml.safe_load_all(golden.read_text())) == objects


def test_there_is_a_golden_file_for_each_case_and_no_other():
    assert sorted(p.stem for p in (HERE / "golden").glob("*.yaml")) == CASES


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_accepts_the_objects(case):
    unknown = set()
    for thing in render(next(iter(HELMS)), case):
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(map(str, error.path))
                pytest.fail(f"{version}: {thing['kind']}/{thing['metadata']['name']}: {where}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(thing["kind"])
    assert unknown <= CUSTOM


def test_notes_tell_what_to_do_next():
    """Only Helm 4 shows them without a cluster; the other renders them, too, but keeps the text."""
    version = next(v for v in HELMS if v.startswith("4") or len(HELMS) == 1)
    for case in CASES:
        values = str(CHART / "ci" / f"{case}-values.yaml")
        done = helm(version, "install", "rel", str(CHART), "--namespace", "edge", "--values", values, "--dry-run=client")
        assert done.returncode == 0, done.stderr
        notes = done.stdout.split("NOTES:", 1)[1]
        assert "rollout status" in notes
        assert "{{" not in notes
        # What an update on the host network cannot do by itself, and in which directory of the node it happens.
        meet = [v["hostPath"]["path"] for v in workload(render(version, case))["spec"]["template"]["spec"]["volumes"] if v["name"] == "handoff"]
        assert all(path in notes for path in meet)
        assert bool(meet) == ("--set updateStrategy.maxUnavailable=1" in notes)


class Readable(yaml.SafeDumper):
    """Texts of several lines as blocks; no anchors."""

    def ignore_aliases(self, data):
        return True


def _text(dumper, data):
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


Readable.add_representer(str, _text)
