"""A real Prometheus beside the machines of a cluster, until it is told to end: prometheus.py FOLDER PORT

It labels gateways, nodes and the operator as the chart's monitors do. Debian's Prometheus cannot find pods by itself, so
they are listed here with `kubectl`. Everything lies in FOLDER. To be run in the network of a machine, where pods are reached.
"""

import json
import os
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ALERTS = os.path.join(ROOT, "charts", "zimcache", "files", "alerts.yaml")
SCRAPE_SECONDS = 5
LIST_SECONDS = 3
# Component of a pod to the name of the port with its figures.
PORTS = {"gateway": "admin", "node": "admin", "operator": "http"}


def target(pod):
    """How a pod is asked, and its labels; nothing when it has no figures or no address yet."""
    meta = pod["metadata"]
    labels = meta.get("labels", {})
    component = labels.get("app.kubernetes.io/component")
    address = pod["status"].get("podIP")
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    number = next((port["containerPort"] for port in ports if port.get("name") == PORTS.get(component)), None)
    if not address or not number:
        return None
    name = "zim-operator" if component == "operator" else labels["app.kubernetes.io/instance"]
    job = f"{meta['namespace']}/{name}"
    own = {"job": job, "namespace": meta["namespace"], "instance": meta["name"]}
    return component, {"targets": [f"{address}:{number}"], "labels": own}


def list_pods(folder):
    listed = subprocess.run(["kubectl", "get", "pods", "--all-namespaces", "--output=json"], stdout=subprocess.PIPE, check=False)
    if listed.returncode:
        return
    found = [target(pod) for pod in json.loads(listed.stdout)["items"]]
    for file, components in [("cache", ("gateway", "node")), ("operator", ("operator",))]:
        targets = [it[1] for it in found if it and it[0] in components]
        path = os.path.join(folder, f"{file}.json")
        with open(path + ".new", "w", encoding="utf-8") as new:
            json.dump(targets, new)
        os.replace(path + ".new", path)


def job(folder, name, honor_labels):
    return {
        "job_name": name,
        "honor_labels": honor_labels,
        "file_sd_configs": [{"files": [os.path.join(folder, f"{name}.json")], "refresh_interval": f"{LIST_SECONDS}s"}],
    }


def main():
    folder, port = os.path.abspath(sys.argv[1]), sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [ALERTS],
        # The label `namespace` of a gateway or a node is a namespace of the cache.
        "scrape_configs": [job(folder, "cache", True), job(folder, "operator", False)],
    }
    # JSON is YAML, too.
    with open(os.path.join(folder, "prometheus.yml"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    with open(os.path.join(folder, "log"), "wb") as log:
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        prometheus = subprocess.Popen(command, stdout=log, stderr=log)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while prometheus.poll() is None:
            list_pods(folder)
            time.sleep(LIST_SECONDS)
    finally:
        prometheus.terminate()
        prometheus.wait()
    sys.exit(f"Prometheus ended: {folder}/log")


if __name__ == "__main__":
    main()
