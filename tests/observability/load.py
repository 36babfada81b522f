"""A load of many kinds for the dashboards: build tools that look things up and upload what is missing, some more than others.

Only HTTP, and only what every tool does: GET, and PUT after a miss. Not a benchmark, and not a test of answers.
"""

import hashlib
import http.client
import random
import threading
import time
import urllib.parse

NAMESPACES = ["web", "backend", "mobile", "infra", "research", "payments", "docs"]


def body_of(seed):
    """The body that an object has: most are small and a few large, half of it can be compressed, as builds have them."""
    chance = random.Random(seed)
    size = int(chance.choice([200, 900, 3000, 12000, 60000, 400000, 2_000_000]) * chance.uniform(0.5, 1.5))
    return chance.randbytes(size // 2) + bytes(size - size // 2)


def place(pattern, seed, body):
    """Where a tool keeps an object: under the digest of its content, or under a key that it made of the seed."""
    content, key = hashlib.sha256(body).hexdigest(), hashlib.sha256(seed.encode()).hexdigest()
    return pattern.format(content=content, key=key, short=key[:32], two=key[:2], rest=key[2:40])


# What each tool asks for, and how much of the load it is.
TOOLS = {
    "/cas/{content}": 6,
    "/cache/{short}": 3,
    "/v8/artifacts/{short}": 2,
    "/ccache/{two}/{rest}": 2,
    "/v1/cache/{key}": 1,
    "/maven/v1.1/org.example/{short}/buildinfo.xml": 1,
}


class Builder(threading.Thread):
    """One machine that builds again and again: some of it as before, some of it new."""

    def __init__(self, number, gateways, until, known):
        super().__init__(daemon=True)
        self.chance, self.gateways, self.until, self.known = random.Random(number), gateways, until, known
        self.done = self.failed = 0

    def run(self):
        while time.time() < self.until:
            host = urllib.parse.urlsplit(self.chance.choice(self.gateways)).netloc
            connection = http.client.HTTPConnection(host, timeout=10)
            try:
                self.build(connection)
            except (OSError, http.client.HTTPException):
                self.failed += 1
                time.sleep(0.2)
            finally:
                connection.close()

    def build(self, connection):
        namespace = NAMESPACES[min(int(self.chance.expovariate(0.55)), len(NAMESPACES) - 1)]
        pattern = self.chance.choices(list(TOOLS), TOOLS.values())[0]
        for _ in range(40):
            if time.time() > self.until:
                return
            # To a power: what was asked for often is asked for again.
            seed = f"{namespace}{pattern[:5]}{int(self.known * self.chance.random() ** 4)}"
            body = body_of(seed)
            path = f"/ns/{namespace}{place(pattern, seed, body)}"
            if self.ask(connection, "GET", path) == 404:
                self.ask(connection, "PUT", path, body)
            self.done += 1
            time.sleep(self.chance.expovariate(60))

    def ask(self, connection, method, path, body=None):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def run(gateways, seconds, builders=10, known=1500):
    """Builds for so long; how many look-ups there were, and how many connections broke."""
    until = time.time() + seconds
    threads = [Builder(number, gateways, until, known) for number in range(builders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(thread.done for thread in threads), sum(thread.failed for thread in threads)
