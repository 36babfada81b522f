"""The dashboards and alerts of the chart: what is wrong with them, and what they say of a running cluster.

  panels.py lint                                       their form; needs nothing
  panels.py check --prometheus URL [--operator]        every query and alert: no error, not empty
  panels.py draw --prometheus URL [--out FOLDER]       a picture of each dashboard; needs matplotlib

Nothing here looks at Grafana. A panel that may be empty is in may-be-empty.json with its reason; one that is listed there
and has data is no failure.
"""

import argparse
import glob
import json
import math
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FILES = os.path.join(ROOT, "charts", "zimcache", "files")
PICTURES = os.path.join(ROOT, "docs", "images", "dashboards")
RUNBOOKS = os.path.join(ROOT, "docs", "runbooks")
SELECTOR = re.compile(r"\b((?:zimcache|process)_[a-z0-9_]+|up)\b(\{[^}]*\})?")


def dashboards():
    """Name and content of every dashboard."""
    for path in sorted(glob.glob(os.path.join(FILES, "dashboards", "*.json"))):
        with open(path, encoding="utf-8") as file:
            yield os.path.splitext(os.path.basename(path))[0], json.load(file)


def panels(board):
    """The panels of a dashboard that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def alerts():
    """Every alert as name, expression and runbook. The file keeps to one key a line, so no YAML library is needed."""
    with open(os.path.join(FILES, "alerts.yaml"), encoding="utf-8") as file:
        text = file.read()
    for block in re.split(r"(?m)^\s*- alert: ", text)[1:]:
        name = block.split("\n", 1)[0].strip()
        expression = re.search(r"(?m)^( *)expr: (?:[|>]-?\n((?:\1 +.*\n)+)|(.*)\n)", block)
        runbook = re.search(r"runbook_url: (\S+)", block)
        yield name, " ".join((expression[2] or expression[3]).split()), runbook and runbook[1]


class Prometheus:
    """A running Prometheus, and the time of which it is asked."""

    def __init__(self, url, span, interval):
        self.url, self.span, self.interval = url.rstrip("/"), span, interval
        self.until = time.time()

    def fill_in(self, expression):
        """The expression as Grafana sends it when everything is chosen."""
        known = {"$__rate_interval": f"{self.interval}s", "$__range": f"{self.span}s", "$job": ".*", "$namespace": ".*"}
        for name, value in known.items():
            expression = expression.replace(name, value)
        return expression

    def ask(self, path, **parameters):
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                data = json.load(answer)["data"]
                return data if isinstance(data, list) else data["result"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error

    def now(self, expression):
        """Series of one sample, as a list of labels and value; samples that are no number are left out."""
        found = self.ask("query", query=self.fill_in(expression), time=self.until)
        series = [(one["metric"], float(one["value"][1])) for one in found]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    def course(self, expression, steps=240):
        """Series over the span, as a list of labels and samples (time, value)."""
        step = max(1.0, self.span / steps)
        query = self.fill_in(expression)
        found = self.ask("query_range", query=query, start=self.until - self.span, end=self.until, step=step)
        series = [(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in found]
        numbers = [(labels, [sample for sample in samples if math.isfinite(sample[1])]) for labels, samples in series]
        return [(labels, samples) for labels, samples in numbers if samples]

    def exemplars(self, selector):
        """Traced requests behind these series."""
        return self.ask("query_exemplars", query=selector, start=self.until - self.span, end=self.until)

    def read(self, target):
        return self.now(target["expr"]) if target.get("instant") else self.course(target["expr"])


def lint_dashboard(name, board):
    """What is wrong with the form of a dashboard."""
    ids = [panel["id"] for panel in board["panels"]]
    if len(set(ids)) != len(ids):
        yield f"{name}: panels share an id"
    kinds = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    if kinds.get("datasource") != "datasource":
        yield f"{name}: the data source is no variable"
    used = set()
    for panel in panels(board):
        where = f"{name}: panel {panel.get('title') or panel['id']}"
        if not panel.get("title") or not panel.get("description"):
            yield f"{where}: no title or no description"
        if not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{where}: no unit"
        if not panel.get("targets"):
            yield f"{where}: no query"
        for part in [panel] + panel.get("targets", []):
            if part.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
                yield f"{where}: another data source than the variable"
        used.update(re.findall(r"\$(\w+)", json.dumps([target["expr"] for target in panel.get("targets", [])])))
    for variable in sorted(used - set(kinds) - {"__rate_interval", "__range"}):
        yield f"{name}: ${variable} is no variable"
    cells = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            if cells.setdefault(cell, panel["id"]) != panel["id"] or cell[0] >= 24:
                yield f"{name}: panel {panel.get('title')} lies on another one or outside"
                break


def lint_alerts():
    """What is wrong with the form of the alerts, their runbooks and tests."""
    names = [name for name, _, _ in alerts()]
    with_tests = {os.path.splitext(os.path.basename(path))[0] for path in glob.glob(os.path.join(ROOT, "tests", "alerts", "*.yaml"))}
    for name, _, runbook in alerts():
        if not runbook or not runbook.endswith(f"/docs/runbooks/{name}.md"):
            yield f"alert {name}: its runbook_url is {runbook}"
        if not os.path.exists(os.path.join(RUNBOOKS, f"{name}.md")):
            yield f"alert {name}: there is no docs/runbooks/{name}.md"
        if name not in with_tests:
            yield f"alert {name}: there is no tests/alerts/{name}.yaml"
    pages = {os.path.splitext(page)[0] for page in os.listdir(RUNBOOKS)} - {"README"}
    for name in sorted((pages | with_tests) - set(names)):
        yield f"{name} has a runbook or a test, but there is no such alert"


def lint():
    boards = dict(dashboards())
    complaints = [f"there is no dashboard {name}" for name in ("overview", "cluster", "usage", "operator") if name not in boards]
    for name, board in boards.items():
        complaints += lint_dashboard(name, board)
    listed = {f"{name}/{panel['title']}" for name, board in boards.items() for panel in panels(board)}
    complaints += [f"may-be-empty.json: there is no panel {title}" for title in excuses() if title not in listed | set(boards)]
    return complaints + list(lint_alerts())


def excuses():
    """Panels, as dashboard/title or a whole dashboard, that may be empty, each with its reason."""
    with open(os.path.join(HERE, "may-be-empty.json"), encoding="utf-8") as file:
        return json.load(file)


def check(prometheus, with_operator, with_exemplars):
    """What the queries complain of, and how many there were."""
    complaints, asked, may = [], 0, excuses()
    for name, board in dashboards():
        for panel in panels(board):
            title = f"{name}/{panel['title']}"
            for target in panel["targets"]:
                asked += 1
                try:
                    found = prometheus.read(target)
                except ValueError as error:
                    complaints.append(f"{title}: {error}")
                    continue
                excused = title in may or (name in may and not with_operator)
                if not found and not excused:
                    complaints.append(f"{title}: no data for {prometheus.fill_in(target['expr'])}")
    if with_exemplars and not prometheus.exemplars("zimcache_request_seconds_bucket"):
        complaints.append("no request is an exemplar")
    for name, expression, _ in alerts():
        asked += 1
        try:
            prometheus.now(expression)
            for selector in SELECTOR.finditer(expression):
                metric = selector[1]
                known = with_operator or not metric.startswith("zimcache_operator_")
                if known and f"alert/{metric}" not in may and not prometheus.now(f"last_over_time({selector[0]}[{prometheus.span}s])"):
                    complaints.append(f"alert {name}: nothing like {selector[0]}")
        except ValueError as error:
            complaints.append(f"alert {name}: {error}")
    return complaints, asked


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["lint", "check", "draw"])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--span", type=int, default=600, help="seconds to look back")
    parser.add_argument("--interval", type=int, default=60, help="seconds of $__rate_interval: four scrapes at least")
    parser.add_argument("--operator", action="store_true", help="an operator runs, so its panels have data")
    parser.add_argument("--exemplars", action="store_true", help="requests are traced, and Prometheus keeps exemplars")
    parser.add_argument("--out", default=PICTURES, help="folder of the pictures")
    parser.add_argument("names", nargs="*", help="dashboards to draw; all of them")
    arguments = parser.parse_args()
    prometheus = Prometheus(arguments.prometheus, arguments.span, arguments.interval)
    if arguments.verb == "draw":
        import drawing

        for name, board in dashboards():
            if not arguments.names or name in arguments.names:
                print(drawing.draw(board, prometheus, os.path.join(arguments.out, f"{name}.png")))
        return 0
    complaints, asked = (lint(), 0) if arguments.verb == "lint" else check(prometheus, arguments.operator, arguments.exemplars)
    for complaint in complaints:
        print(complaint)
    print(f"{arguments.verb}: {asked} queries, {len(complaints)} complaints" if asked else f"lint: {len(complaints)} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
