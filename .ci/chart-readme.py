#!/usr/bin/env python3
"""The table of values in the chart's README, from the `# --` comments of its values.yaml:

    chart-readme.py CHART [--check]

Writes what stands between the two marks of README.md; with --check it only compares. A value without a comment, or with
one that another value has right above it, is a failure.
"""

import json
import re
import sys
from pathlib import Path

import yaml

BEGIN, END = "<!-- values -->", "<!-- end of values -->"


def rows(text):
    """Path, default and comment of each value that has a comment."""
    values = yaml.safe_load(text)
    above, comment, found = [], None, []
    for line in text.splitlines():
        if match := re.match(r" *# -- (.*)", line):
            comment = match[1]
            continue
        match = re.match(r"( *)([\w.-]+):", line)
        if not match or line.lstrip().startswith("#"):
            continue
        above = above[: len(match[1]) // 2] + [match[2]]
        if comment:
            found.append((tuple(above), comment))
            comment = None
    return [(".".join(path), default_of(values, path), comment) for path, comment in found]


def default_of(values, path):
    for name in path:
        values = values[name]
    return json.dumps(values)


def without_comment(values, known, path=()):
    """Paths of values that no comment explains, neither theirs nor one of a map around them."""
    for name, value in values.items():
        here = (*path, name)
        if ".".join(here) in known:
            continue
        if isinstance(value, dict) and value:
            yield from without_comment(value, known, here)
        else:
            yield ".".join(here)


def table(found):
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in found)
    lines = [f"| `{path}` | `{default}` | {comment} |" for path, default, comment in escaped]
    return "\n".join(["| value | default | what |", "| --- | --- | --- |", *lines])


def main():
    chart = Path(sys.argv[1])
    text = (chart / "values.yaml").read_text()
    found = rows(text)
    silent = list(without_comment(yaml.safe_load(text), {path for path, _, _ in found}))
    if silent:
        sys.exit(f"values.yaml does not explain {', '.join(silent)}: add a comment `# -- …` above")
    readme = chart / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    wanted = f"{before}{BEGIN}\n{table(found)}\n{END}{after}"
    if "--check" not in sys.argv:
        readme.write_text(wanted)
    elif readme.read_text() != wanted:
        sys.exit("README.md does not have the values of values.yaml: run .ci/chart --write")


main()
