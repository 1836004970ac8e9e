"""What is done to the booted units, and what has to be so then.

Each check begins with both units running, the settings good and the log empty of what it looks at.
"""

from __future__ import annotations

import json
import re
import resource
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.units.machine import DEPLOY, HOST, OLDER, Machine, install_older

CONFIG = "/etc/pov-rt/pov-rt.toml"
SETTINGS = f"""[auth]
default_povs = "none"
[server]
trusted_proxies = ["127.0.0.1"]
allowed_hosts = ["{HOST}"]
"""
BROKEN = f"{SETTINGS}colour = 3\n"
PORT = "127.0.0.1:8765"
NGINX = "/etc/nginx/nginx.conf"
ON_REDIS = f'{SETTINGS}[engine]\nurl = "redis://127.0.0.1:6379"\n'
NODES = ("8801", "8802")
CLIENTS = 200
"""Of checks where it does not matter how many they are."""
DROP_IN = "/etc/systemd/system/pov-rt.service.d/check.conf"
PROXIES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
AT_MOST_DOWN_S, AT_MOST_STOPPED_S = 3.0, 0.5


Check = Callable[[Machine], str]
"""Does something; returns what it saw, and raises AssertionError if that is not as it has to be."""


class Skipped(Exception):
    """A check cannot be done here; why."""


def install(machine: Machine) -> None:
    """Do what scripts/deploy/README.md says, behind the proxies with the files as they are."""
    machine.write("/etc/pov-rt/jwt-secret", "a secret of the app with more than 32 bytes\n", 0o600)
    machine.write(CONFIG, SETTINGS)
    machine.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
        f"-subj /CN={HOST} -keyout /tmp/key.pem -out /tmp/cert.pem && "
        "mkdir -p /etc/ssl/private /var/log/nginx /var/lib/nginx /var/lib/haproxy /run/haproxy && "
        f"cp /tmp/cert.pem /etc/ssl/certs/{HOST}.pem && "
        f"cp /tmp/key.pem /etc/ssl/private/{HOST}.key && "
        f"cat /tmp/cert.pem /tmp/key.pem > /etc/haproxy/{HOST}.pem"
    )
    # Both want more files than may be open in a container of some machines: then as many as may be.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    nginx, haproxy = ((DEPLOY / name).read_text() for name in PROXIES.values())
    machine.write(NGINX, _at_most("worker_rlimit_nofile", most, nginx))
    fitting = _at_most("    maxconn", (most - 200) // 2, haproxy)
    machine.write("/etc/haproxy/haproxy.cfg", fitting)


def _at_most(setting: str, most: int, text: str) -> str:
    """Return a file in which a setting is no more than that."""
    (number,) = re.findall(rf"(?m)^{setting} (\d+)", text)
    return text.replace(f"{setting} {number}", f"{setting} {min(int(number), most)}")


def start(machine: Machine) -> str:
    """They start as the README says, and both kinds of units live beside each other."""
    machine.run("systemctl enable --now pov-rt.socket pov-rt.service")
    assert machine.ready() == (200, {"status": "ready", "welcome": True, "publish": True})
    assert machine.publish("start-1") == 201
    machine.run("systemctl start pov-rt@8801")
    assert machine.ready(port=18801)[0] == 200
    assert machine.show("pov-rt@8801.socket", "ActiveState") == "active", "it came with the service"
    machine.run("systemctl stop pov-rt@8801.socket")
    assert machine.show("pov-rt@8801", "ActiveState") == "inactive", "it went with the socket"
    assert machine.activities() == ["start-1"]
    return machine.show("pov-rt", "StatusText")


def hand_over(machine: Machine) -> str:
    """A successor takes the port and the log over, and is the unit's process from then on."""
    before = machine.show("pov-rt", "MainPID")
    machine.write(CONFIG, BROKEN)
    machine.run(HAND_OVER)
    machine.until(lambda: "nothing was handed over" in machine.journal(), "refused")
    assert machine.show("pov-rt", "MainPID") == before
    assert machine.publish("over-1", "over") == 201
    machine.write(CONFIG, SETTINGS)
    machine.run(HAND_OVER)
    machine.until(lambda: machine.show("pov-rt", "MainPID") not in (before, "0"), "handed over")
    machine.until(lambda: machine.ready()[0] == 200, "ready")
    after = machine.show("pov-rt", "MainPID")
    assert machine.publish("over-2", "over") == 201
    assert machine.activities("over") == ["over-1", "over-2"]
    assert machine.show("pov-rt", "NRestarts") == "0", "systemd has seen no end"
    machine.until(
        lambda: machine.said(f"test -e /proc/{before} || echo gone") == "gone", "the first ended"
    )
    # It is looked after as the first was.
    machine.run(f"kill -KILL {after}")
    machine.until(lambda: machine.show("pov-rt", "MainPID") not in (after, "0"), "started anew")
    machine.until(lambda: machine.ready()[0] == 200, "ready")
    machine.run(HAND_OVER)
    machine.until(lambda: machine.publish("over-3", "over") == 201, "published")
    machine.run("systemctl stop pov-rt.socket")
    assert machine.show("pov-rt", "ActiveState") == "inactive", "it ends with its unit"
    return f"from process {before} to {after}"


HAND_OVER = "systemctl kill --kill-whom=main --signal=USR2 pov-rt"
WAYS = {
    "kill -9": "systemctl kill --signal=KILL pov-rt",
    "restart": "systemctl restart pov-rt",
    "hand over": HAND_OVER,
}


def restart(machine: Machine, clients: int) -> str:
    """A restart and a hand-over under load cost less than a crash, lose nothing, refuse nobody."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for proxy in ("", *PROXIES):
        url, to = (f"wss://{HOST}", "127.0.0.1:443") if proxy else (f"ws://{HOST}:8765", PORT)
        if proxy:
            machine.run(f"systemctl start {proxy}")
        try:
            for way, command in WAYS.items():
                each = found[way, proxy] = storm(machine, clients, url, to, command)
                print(f"    {named(way, proxy)}: {json.dumps(each)}", flush=True)
        finally:
            if proxy:
                machine.run(f"systemctl stop {proxy}")
    for (way, proxy), each in found.items():
        what = named(way, proxy), each
        assert (each["lost"], each["doubled"], each["gaps"]) == (0, 0, 0), what
        if way == "kill -9":
            continue
        killed = found["kill -9", proxy]
        assert each["untold"] == 0, what
        assert not each["failed_connects"], what
        assert each["publishing_stopped_s"] <= killed["publishing_stopped_s"], (what, killed)
        assert each["down_p95_s"] <= killed["down_p95_s"], (what, killed)
        assert each["down_p95_s"] <= AT_MOST_DOWN_S, what
        if way == "hand over":
            assert each["publishing_stopped_s"] <= AT_MOST_STOPPED_S, what
    return ", ".join(
        f"{named(*which)}: p95 down {each['down_p95_s']:.1f} s, "
        f"publishing stopped {each['publishing_stopped_s']:.2f} s"
        for which, each in found.items()
    )


def named(way: str, proxy: str) -> str:
    """Return how a way and what is in front are called."""
    return f"{way} behind {proxy}" if proxy else way


def storm(machine: Machine, clients: int, url: str, to: str, command: str) -> dict[str, Any]:
    """Return what a command does to a crowd of clients from many addresses."""
    said = machine.run(
        f"python3 -m bench.storm --url {url} --to {to} --secret-file /etc/pov-rt/jwt-secret "
        f"--clients {clients} --sources 100 --run {shlex.quote(command)}",
        check=False,
        timeout=300,
    )
    assert said.stdout.startswith("{"), f"{said.stdout}{said.stderr}"
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def crash_loop(machine: Machine) -> str:
    """However often it cannot start, the port stays, and it is there once the mistake is mended."""
    machine.write(CONFIG, BROKEN)
    machine.run("systemctl restart pov-rt", check=False)
    machine.until(lambda: int(machine.show("pov-rt", "NRestarts")) >= 7, "restarted 7 times")
    tried = machine.show("pov-rt", "NRestarts")
    assert machine.show("pov-rt.socket", "ActiveState") == "active"
    assert "colour" in machine.journal()
    machine.write(CONFIG, SETTINGS)
    machine.until(lambda: machine.ready()[0] == 200, "ready after the mistake was mended")
    for _ in range(7):
        machine.run("systemctl restart pov-rt")
    assert machine.publish("loop-1", "loop") == 201
    assert machine.show("pov-rt.socket", "ActiveState") == "active"
    return f"{tried} failed starts, 7 restarts by hand"


def reload(machine: Machine) -> str:
    """A reload with a mistake fails, says so and changes nothing; a good one does not."""
    before = machine.show("pov-rt", "MainPID")
    machine.write(CONFIG, BROKEN)
    failed = machine.run("systemctl reload pov-rt", check=False)
    assert failed.returncode != 0, "a reload with a mistake says it is done"
    assert "colour" in machine.journal()
    assert machine.ready()[0] == 200
    machine.write(CONFIG, SETTINGS + '[log]\nlevel = "debug"\n')
    machine.run("systemctl reload pov-rt")
    machine.until(lambda: "reloaded: log.level" in machine.journal(), "reloaded")
    machine.write(CONFIG, SETTINGS)
    machine.run("systemctl reload pov-rt")
    assert machine.show("pov-rt", "MainPID") == before
    return (failed.stderr or failed.stdout).strip().splitlines()[0]


def watchdog(machine: Machine) -> str:
    """A server that hangs is started anew."""
    machine.write(DROP_IN, "[Service]\nWatchdogSec=3\n")
    machine.run("systemctl daemon-reload && systemctl restart pov-rt")
    before = machine.show("pov-rt", "MainPID")
    machine.run(f"kill -STOP {before}")
    machine.until(lambda: machine.show("pov-rt", "MainPID") not in (before, "0"), "started anew")
    machine.until(lambda: machine.ready()[0] == 200, "ready")
    assert machine.publish("watchdog-1", "watchdog") == 201
    return "after SIGSTOP"


def drain(machine: Machine) -> str:
    """A drain may take longer than TimeoutStopSec: the server asks for the time."""
    machine.write(DROP_IN, "[Service]\nTimeoutStopSec=1\n")
    machine.write(CONFIG, SETTINGS.replace("[server]\n", "[server]\ndrain_s = 20\n"))
    machine.run("systemctl daemon-reload && systemctl restart pov-rt")
    # A request whose body comes slowly is under way for 4 s.
    token = machine.token
    slow = machine.root / "slow.py"
    slow.write_text(SLOW)
    machine.run(
        f"(python3 /slow.py {token} > /slow.out 2>&1; echo $? > /slow.rc) & "
        "until grep -q begun /slow.out; do sleep 0.1; done; systemctl restart pov-rt"
    )
    machine.until((machine.root / "slow.rc").exists, "answered")
    assert (machine.root / "slow.out").read_text().split() == ["begun", "201"]
    assert "SIGKILL" not in machine.journal()
    return "a request of 4 s was answered"


SLOW = """
import http.client, sys, time
body = b'{"id":"slow-1","type":"t","action":"a","povId":"slow","userId":"eve"}'
connection = http.client.HTTPConnection("127.0.0.1", 8765)
connection.putrequest("POST", "/api/activities")
connection.putheader("Authorization", "Bearer " + sys.argv[1])
connection.putheader("Content-Length", str(len(body)))
connection.endheaders(body[:10])
print("begun", flush=True)
time.sleep(4)
connection.send(body[10:])
print(connection.getresponse().status)
"""


def full_disk(machine: Machine) -> str:
    """With a full disk reading goes on, through HAProxy too, and readiness says what does not."""
    machine.run("systemctl stop pov-rt.socket")
    disk = "/var/lib/private"
    machine.run(f"mkdir -p {disk} && mount -t tmpfs -o size=3m,mode=700 tmpfs {disk}")
    try:
        machine.run("systemctl start pov-rt haproxy")
        assert machine.publish("disk-1", "disk") == 201
        machine.run("head -c 10m /dev/zero > /var/lib/private/pov-rt/filler", check=False)
        number = 1
        while machine.publish(f"disk-{number + 1}", "disk") == 201:
            number += 1
            assert number < 200, "the disk never gets full"
        status, state = machine.ready()
        assert (status, state["welcome"], state["publish"]) == (200, True, False), state
        assert machine.ready("/readyz/publish")[0] == 503
        token = machine.token
        read = (
            f"curl -s -k -o /dev/null -w '%{{http_code}}' --resolve {HOST}:443:127.0.0.1 "
            f"-H 'Authorization: Bearer {token}' https://{HOST}/api/povs/disk/activities"
        )
        assert machine.said(read) == "200", "through the proxy"
        machine.run("rm /var/lib/private/pov-rt/filler")
        machine.until(lambda: machine.publish("disk-end", "disk") == 201, "published again")
        assert machine.ready("/readyz/publish")[0] == 200
    finally:
        machine.run("systemctl stop haproxy pov-rt.socket; umount /var/lib/private")
    machine.run("systemctl start pov-rt")
    return f"{state['reason']}"


def restore(machine: Machine) -> str:
    """The restore that is documented works while clients knock."""
    assert machine.publish("restore-1", "restore") == 201
    backup = "pov-rt-as-root db backup --data /var/lib/pov-rt /tmp/backup.db"
    machine.run(f"rm -f /tmp/backup.db; {backup}")
    assert machine.publish("restore-2", "restore") == 201
    machine.run("systemctl stop pov-rt.socket")
    assert machine.publish("restore-3", "restore") == 0, "nobody is there"
    machine.run(
        "rm -f /var/lib/pov-rt/*.before-restore; "
        "pov-rt-as-root db restore --data /var/lib/pov-rt /tmp/backup.db"
    )
    machine.run("systemctl start pov-rt")
    assert machine.activities("restore") == ["restore-1"]
    assert machine.publish("restore-4", "restore") == 201
    assert machine.show("pov-rt.socket", "ActiveState") == "active"
    return "to the instant of the backup"


def upgrade(machine: Machine) -> str:
    """An older log is brought up to date; an older server says that it cannot read a newer one."""
    older = install_older(machine.root)
    if older is None:
        raise Skipped("the history of this checkout has no older schema: git fetch --unshallow")
    machine.run("systemctl stop pov-rt.socket; rm -rf /var/lib/private/pov-rt/*")
    machine.write(DROP_IN, f"[Service]\nEnvironment=PYTHONPATH={OLDER}\n")
    # An older one has its own view of which names are this machine's.
    machine.write(CONFIG, re.sub("(?m)^allowed_hosts.*$", "", SETTINGS))
    machine.run("systemctl daemon-reload && systemctl start pov-rt")
    ids = [f"old-{number}" for number in range(5)]
    for each in ids:
        assert machine.publish(each, "old") == 201
    (machine.root / DROP_IN.lstrip("/")).unlink()
    machine.run("systemctl daemon-reload && systemctl restart pov-rt")
    assert machine.activities("old") == ids
    machine.write(DROP_IN, f"[Service]\nEnvironment=PYTHONPATH={OLDER}\n")
    machine.run("systemctl daemon-reload && systemctl restart pov-rt", check=False)
    words = r"was written by a newer pov-rt \(schema \d+, of \d+"
    machine.until(lambda: re.search(words, machine.journal()), "told of the schema")
    (machine.root / DROP_IN.lstrip("/")).unlink()
    machine.run("systemctl daemon-reload")
    machine.until(lambda: machine.ready()[0] == 200, "ready with the newer server")
    assert machine.activities("old") == ids
    return f"from {older} and back"


def proxies_log_no_token(machine: Machine) -> str:
    """While the server is down, proxies log what fails without the token in its query."""
    machine.run("systemctl stop pov-rt.socket")
    for proxy in PROXIES:
        machine.run(f"systemctl stop {' '.join(PROXIES)}; systemctl start {proxy}")
        machine.run(
            f"curl -s -k -o /dev/null --resolve {HOST}:443:127.0.0.1 "
            f"'https://{HOST}/ws/?token={machine.token}'"
        )
        said = machine.journal(proxy) + machine.said("cat /var/log/nginx/*")
        assert machine.token.rpartition(".")[2] not in said, proxy
    machine.run(f"systemctl stop {' '.join(PROXIES)}; systemctl start pov-rt")
    return ", ".join(PROXIES)


@contextmanager
def redis(machine: Machine) -> Iterator[None]:
    """Run a Redis for the block, which the settings name meanwhile; `pov-rt` itself is stopped."""
    if not machine.said("command -v redis-server"):
        raise Skipped("there is no redis-server: apt-get install redis-server")
    machine.run("systemctl stop pov-rt.socket")
    machine.run(
        "systemd-run --quiet --unit=redis --property=PrivateTmp=yes "
        "redis-server --bind 127.0.0.1 --dir /tmp --save '' --appendonly yes"
    )
    try:
        machine.until(lambda: machine.said("redis-cli ping") == "PONG", "a Redis")
        machine.write(CONFIG, ON_REDIS)
        yield
    finally:
        machine.run("systemctl stop redis", check=False)


def nodes(machine: Machine) -> str:
    """Two nodes on one Redis are restarted one after the other: nobody is refused, nothing lost."""
    single = (machine.root / NGINX.lstrip("/")).read_text()
    several = single.replace("        server 127.0.0.1:8765;\n", "")
    for port in NODES:
        several = several.replace(f"# server 127.0.0.1:{port} ", f"server 127.0.0.1:{port} ")
    units = " ".join(f"pov-rt@{port}.socket pov-rt@{port}" for port in NODES)
    with redis(machine):
        machine.write(NGINX, several)
        try:
            machine.run(f"systemctl start {units} nginx")
            for port in NODES:
                assert machine.ready(port=int(port) + 10_000)[0] == 200
                assert machine.publish(f"nodes-{port}", "nodes", f"127.0.0.1:{port}") == 201
            assert machine.activities("nodes", "127.0.0.1:8801") == ["nodes-8801", "nodes-8802"]
            found = storm(machine, CLIENTS, f"wss://{HOST}", "127.0.0.1:443", ROLLING)
        finally:
            machine.run(f"systemctl stop nginx {units}", check=False)
            machine.write(NGINX, single)
    return unnoticed(found)


ROLLING = """
for port in 8801 8802; do
    systemctl restart pov-rt@$port
    until curl -fs 127.0.0.1:$((port + 10000))/readyz >/dev/null; do sleep 0.1; done
done
"""
"""As docs/operations.md has it."""


def workers(machine: Machine) -> str:
    """A unit of two workers has each replaced by a reload: nobody is refused, nothing lost."""
    with redis(machine):
        machine.write(CONFIG, ON_REDIS.replace("[server]\n", "[server]\nworkers = 2\n"))
        machine.run("systemctl start pov-rt")
        assert "2 workers" in machine.show("pov-rt", "StatusText")
        before = machine.show("pov-rt", "MainPID")
        found = storm(machine, CLIENTS, f"ws://{HOST}:8765", PORT, REPLACING)
        assert machine.show("pov-rt", "MainPID") == before
        assert [machine.ready(port=port)[0] for port in (8766, 8767)] == [200, 200]
        machine.run("systemctl stop pov-rt.socket")
    return unnoticed(found)


REPLACING = """
systemctl reload pov-rt
until journalctl --unit=pov-rt --output=cat | grep -q "all workers were restarted"; do
    sleep 0.1
done
"""


def unnoticed(found: dict[str, Any]) -> str:
    """Return what clients saw of a restart; it must not have cost them anything."""
    assert (found["lost"], found["doubled"], found["gaps"], found["untold"]) == (0, 0, 0, 0), found
    assert not found["failed_connects"], found
    return (
        f"{CLIENTS} clients: p95 down {found['down_p95_s']:.1f} s, "
        f"publishing stopped {found['publishing_stopped_s']:.2f} s"
    )


CHECKS: dict[str, Check] = {
    each.__name__: each
    for each in (
        start,
        reload,
        hand_over,
        crash_loop,
        drain,
        watchdog,
        full_disk,
        restore,
        proxies_log_no_token,
        nodes,
        workers,
        upgrade,
    )
}
"""But for `restart`, which is told how many clients there are."""


def mend(machine: Machine) -> None:
    """Have all be as each check expects it."""
    machine.write(CONFIG, SETTINGS)
    (machine.root / DROP_IN.lstrip("/")).unlink(missing_ok=True)
    machine.run(f"systemctl daemon-reload; systemctl stop {' '.join(PROXIES)}", check=False)
    machine.run("systemctl reset-failed; systemctl restart pov-rt.socket pov-rt", check=False)
    machine.until(lambda: machine.ready()[0] == 200, "ready")
