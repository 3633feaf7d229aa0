"""Two services described in a file, as docker-compose starts them."""

import pytest

from support.engines import IMAGE
from support.host import need_tool

SERVICES = """
version: "2.4"
services:
  web:
    image: IMAGE
    runtime: RUNTIME
    command: ["sh", "-c", "cat /data/word >/tmp/index.html; exec httpd -f -p 80 -h /tmp"]
    volumes: ["data:/data"]
    ports: ["18082:80"]
    depends_on: [store]
  store:
    image: IMAGE
    runtime: RUNTIME
    environment: {WORD: composed}
    command: ["sh", "-c", "echo $$WORD >/data/word; exec sleep 600"]
    volumes: ["data:/data"]
    healthcheck: {test: "test -s /data/word", interval: 1s}
volumes: {data: {}}
"""


def test_two_services(docker, directory):
    """Up, reached from outside and from each other by name, restarted, down: nothing is left."""
    with open(f"{directory}/compose.yaml", "w", encoding="utf-8") as file:
        file.write(SERVICES.replace("IMAGE", IMAGE).replace("RUNTIME", docker.runtime))
    compose = _compose(directory)

    def run(*words: str) -> str:
        result = docker.place.run(*compose, *words, check=False, stdin=-3, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    run("up", "-d")
    ask = b"GET /index.html HTTP/1.0\r\n\r\n"
    assert docker.place.reach(18082, ask).endswith(b"composed\n")
    inside = "nslookup web | awk '/^Address/ { found = $NF } END { print found }'"
    address = run("exec", "-T", "store", "sh", "-c", inside).strip()
    assert docker.place.reach(80, ask, host=address).endswith(b"composed\n")
    run("restart", "-t", "0", "web")
    assert docker.place.reach(18082, ask).endswith(b"composed\n")
    assert "web" in run("ps")
    run("down", "-v", "-t", "0")
    assert docker.ok("ps", "-aq") == ""
    assert docker.ok("volume", "ls", "-q") == ""


def _compose(directory: str) -> list[str]:
    program = need_tool("docker-compose")
    if program.startswith("/usr/local"):
        pytest.skip("not the distribution's docker-compose")
    return [program, "-f", f"{directory}/compose.yaml", "-p", "test"]
