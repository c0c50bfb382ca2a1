#!/usr/bin/env python3
"""Makes the table of values in helm/remora/README.md from values.yaml; `--check` only compares.

The text of the page is helm/remora/README.md itself, outside the two marks."""

import json
import pathlib
import sys

import yaml

CHART = pathlib.Path(__file__).parents[1] / "remora"
BEGIN = "<!-- values: made by helm/tests/readme.py -->\n"
END = "<!-- end of values -->\n"
# Maps whose content is up to the user: one row.
WHOLE = {"resources", "metrics.dashboard.labels"}


def rows(text):
    """(path, default, description) of every value; the description is the comment right above it."""
    lines = text.splitlines()

    def comment(line):
        found = []
        while line > 0 and lines[line - 1].strip().startswith("# "):
            line -= 1
            found.insert(0, lines[line].strip()[2:])
        return " ".join(found)

    def walk(node, prefix):
        for key, value in node.value:
            path = prefix + key.value
            about = comment(key.start_mark.line)
            if isinstance(value, yaml.MappingNode) and value.value and path not in WHOLE:
                yield from walk(value, path + ".")
            else:
                if not about:
                    sys.exit(f"values.yaml: {path} has no comment")
                yield path, yaml.safe_load(yaml.serialize(value)), about

    return list(walk(yaml.compose(text), ""))


def table(text):
    out = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, about in rows(text):
        shown = "see values.yaml" if len(json.dumps(default)) > 80 else f"`{json.dumps(default, ensure_ascii=False)}`"
        about = about.replace("|", "\\|")
        out.append(f"| `{path}` | {shown} | {about} |")
    return "\n".join(out) + "\n"


def main():
    page = CHART / "README.md"
    old = page.read_text()
    before, rest = old.split(BEGIN)
    after = rest.split(END)[1]
    new = before + BEGIN + "\n" + table((CHART / "values.yaml").read_text()) + "\n" + END + after
    if "--check" not in sys.argv[1:]:
        page.write_text(new)
    elif new != old:
        sys.exit("helm/remora/README.md is not what values.yaml says: run helm/tests/readme.py")


main()
