"""A cluster of processes under load, with a real Prometheus that scrapes it: the dashboards' queries checked or drawn.

  run.py check           20 seconds of load, then every query: no error, not empty
  run.py draw            four minutes of load in which a node dies and comes back, then a picture of each dashboard

Needs `prometheus`, and the programs in the folder of --programs: `zim` and `xtask`, which starts and stops the cluster.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import load
import panels

# Limits above what the load asks for, but for its bursts; and traces, for the exemplars: nobody receives them.
FLAGS = ["--limit-global", "600/s burst 60", "--otlp-endpoint", "http://127.0.0.1:9", "--sample-ratio", "0.05"]
SCRAPE_SECONDS = 1


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(url, seconds=30):
    """Returns once the address answers with 200."""
    until = time.time() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.time() > until:
                raise
            time.sleep(0.1)


class Cluster:
    """What `xtask cluster up` started. Its processes are ended with it, also those started anew."""

    def __init__(self, folder, programs):
        self.folder, self.programs, self.anew = folder, programs, []

    def __enter__(self):
        self.xtask("up", "--zim", os.path.join(self.programs, "zim"))
        with open(os.path.join(self.folder, "processes.json"), encoding="utf-8") as file:
            self.parts = json.load(file)
        for gateway in self.of("gateway"):
            self.restart(gateway, FLAGS)
        return self

    def __exit__(self, *_):
        self.xtask("down")
        for process in self.anew:
            process.kill()
            process.wait()

    def xtask(self, *words):
        command = [os.path.join(self.programs, "xtask"), "cluster", words[0], "--folder", self.folder, *words[1:]]
        subprocess.run(command, check=True, cwd=panels.ROOT, stdout=subprocess.DEVNULL)

    def of(self, role):
        return [part for part in self.parts if part["role"] == role]

    def kill(self, part):
        os.kill(part["pid"], signal.SIGKILL)
        while os.path.exists(f"/proc/{part['pid']}/stat"):
            with open(f"/proc/{part['pid']}/stat", encoding="utf-8") as file:
                if ") Z " in file.read():
                    return
            time.sleep(0.05)

    def start(self, part, flags=()):
        with open(os.path.join(self.folder, "log", part["name"] + ".log"), "ab") as log:
            process = subprocess.Popen([*part["command"], *flags], stdout=log, stderr=log, start_new_session=True)
        part["pid"] = process.pid
        self.anew.append(process)
        wait_for(part["url"] + "/health")

    def restart(self, part, flags=()):
        self.kill(part)
        self.start(part, flags)


class Prometheus:
    """A Prometheus with the chart's alerts that scrapes the cluster."""

    def __init__(self, folder, cluster):
        self.folder, self.url = folder, f"http://127.0.0.1:{port()}"
        targets = [part["url"].removeprefix("http://") for part in cluster.of("gateway") + cluster.of("node")]
        names = {part["url"].removeprefix("http://"): part["name"] for part in cluster.parts}
        config = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "5s"},
            "rule_files": [os.path.join(panels.FILES, "alerts.yaml")],
            "scrape_configs": [{
                "job_name": "zimcache",
                "honor_labels": True,
                "static_configs": [{"targets": [target], "labels": {"instance": names[target]}} for target in targets],
            }],
        }
        # JSON is YAML, too.
        with open(os.path.join(folder, "prometheus.yml"), "w", encoding="utf-8") as file:
            json.dump(config, file)

    def __enter__(self):
        address = self.url.removeprefix("http://")
        self.process = subprocess.Popen(
            ["prometheus", "--enable-feature=exemplar-storage", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address={address}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.url + "/-/ready")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def collect_garbage(cluster):
    """What an operator of a cluster asks for now and then."""
    request = urllib.request.Request(cluster.of("gateway")[0]["url"] + "/api/v1/gc", data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=60):
        pass


def disturb(cluster, seconds):
    """A node dies and comes back; later another one comes back with an empty disk; then garbage is collected."""
    first, second = cluster.of("node")[:2]
    time.sleep(seconds * 0.35)
    cluster.kill(first)
    time.sleep(seconds * 0.1)
    cluster.start(first)
    time.sleep(seconds * 0.15)
    cluster.kill(second)
    disk = os.path.join(cluster.folder, "data", second["name"])
    shutil.rmtree(disk)
    os.mkdir(disk)
    cluster.start(second)
    time.sleep(seconds * 0.15)
    collect_garbage(cluster)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["check", "draw"])
    parser.add_argument("--programs", default=os.path.join(panels.ROOT, "target", "debug"), help="where zim and xtask are")
    parser.add_argument("--seconds", type=int, help="length of the load")
    parser.add_argument("--out", default=panels.PICTURES, help="folder of the pictures")
    arguments = parser.parse_args()
    seconds = arguments.seconds or {"check": 20, "draw": 240}[arguments.verb]
    with tempfile.TemporaryDirectory(prefix="zimcache-observability-") as folder:
        os.mkdir(os.path.join(folder, "prometheus"))
        with Cluster(os.path.join(folder, "cluster"), arguments.programs) as cluster:
            with Prometheus(os.path.join(folder, "prometheus"), cluster) as prometheus:
                # So that every counter is seen before it grows.
                time.sleep(3 * SCRAPE_SECONDS)
                if arguments.verb == "draw":
                    threading.Thread(target=disturb, args=(cluster, seconds), daemon=True).start()
                done, broken = load.run([part["url"] for part in cluster.of("gateway")], seconds)
                if arguments.verb == "check":
                    collect_garbage(cluster)
                print(f"{done} look-ups, {broken} broken connections")
                time.sleep(SCRAPE_SECONDS)
                more = ["--out", arguments.out] if arguments.verb == "draw" else ["--exemplars"]
                words = ["--prometheus", prometheus.url, "--span", str(seconds), "--interval", "10", *more]
                return subprocess.run([sys.executable, panels.__file__, arguments.verb, *words]).returncode


if __name__ == "__main__":
    sys.exit(main())
