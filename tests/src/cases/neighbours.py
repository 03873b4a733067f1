"""Sandboxes and their neighbours: two network namespaces joined by a veth pair, a sandbox in the one, clients in the other.

Run in a network namespace of its own: unshare -mn --fork python3 neighbours.py PILLBOX PLATFORM CASE. Says what went wrong, or
nothing.
"""

import os
import select
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import rules

PILLBOX, PLATFORM, CASE = sys.argv[1:4]
OWN, OTHER = ("10.9.0.1", "fd99::1"), ("10.9.0.2", "fd99::2")
children = []


def sh(line):
    subprocess.run(line, shell=True, check=True)


def start(*words, **more):
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, **more)
    children.append(child)
    return child


def neighbours():
    """The two namespaces; returns what runs a command in the other one."""
    sh("ip link set lo up")
    holder = start("unshare", "-n", "sleep", "120")
    own = os.readlink("/proc/self/ns/net")
    until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own, "a second namespace")
    sh(f"ip link add v0 type veth peer name v1 netns {holder.pid}")
    there = ["nsenter", "-t", str(holder.pid), "-n"]
    for device, (v4, v6), how in (("v0", OWN, []), ("v1", OTHER, there)):
        for line in (
            "ip link set lo up",
            f"ip addr add {v4}/24 dev {device}",
            f"ip addr add {v6}/64 dev {device} nodad",
            f"ip link set {device} up",
        ):
            subprocess.run(how + line.split(), check=True)
    return there


def until(holds, what):
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise SystemExit(f"never: {what}")


def sandbox(arguments, program):
    """A sandbox that runs a Python program, once it has said that it is ready."""
    words = [PILLBOX, "do", "--platform", PLATFORM, *arguments, "--", "python3", "-u", "-c", program]
    child = start(*words, stdout=subprocess.PIPE, text=True)
    ready, _, _ = select.select([child.stdout], [], [], 60)
    line = child.stdout.readline() if ready else "nothing"
    if line != "ready\n":
        raise SystemExit(f"the sandbox says {line!r}")
    return child


def there_says(there, program, expected):
    result = subprocess.run(there + ["python3", "-c", program], stdout=subprocess.PIPE, text=True, timeout=120)
    same(result.stdout, expected, "the other namespace")


def same(got, expected, what):
    if got != expected:
        raise SystemExit(f"{what}: {got!r}, not {expected!r}")


ECHO = """
import socket, threading
def serve(s):
    while True:
        c, peer = s.accept()
        c.sendall(f"{peer[0]} {c.getsockname()[0]} {c.getsockname()[1]}\\n".encode())
        c.shutdown(socket.SHUT_WR)
        while c.recv(4096): pass
        c.close()
def listen(family, at, port):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((at, port))
    s.listen(4)
    threading.Thread(target=serve, args=(s,), daemon=True).start()
    return s.getsockname()[1]
"""

ASK = """
import socket
def ask(host, port):
    try:
        s = socket.create_connection((host, port), 20)
        said = b""
        while True:
            got = s.recv(4096)
            if not got:
                return said.decode().strip()
            said += got
    except OSError as error:
        return type(error).__name__
"""


def listeners():
    there = neighbours()
    program = ECHO + "listen(socket.AF_INET6, '::', 7000)\nlisten(socket.AF_INET, '127.0.0.1', 7001)\n"
    program += "listen(socket.AF_INET, '10.9.0.1', 7002)\nprint('ready')\nthreading.Event().wait()\n"
    sandbox([], program)
    asks = ASK + "print(ask('10.9.0.1', 7000)); print(ask('fd99::1', 7000))\n"
    asks += "print(ask('10.9.0.1', 7001)); print(ask('10.9.0.1', 7002))\n"
    expected = "::ffff:10.9.0.2 ::ffff:10.9.0.1 7000\nfd99::2 fd99::1 7000\nConnectionRefusedError\n10.9.0.2 10.9.0.1 7002\n"
    there_says(there, asks, expected)
    # The host itself is another matter.
    for host in ("127.0.0.1", "10.9.0.1", "fd99::1"):
        got = subprocess.run(["python3", "-c", ASK + f"print(ask('{host}', 7000))"], stdout=subprocess.PIPE, text=True).stdout
        if got not in ("ConnectionResetError\n", "ConnectionRefusedError\n"):
            raise SystemExit(f"from the host by {host}: {got!r}")
    # More at once than the listener has room for, none of which is lost.
    crowd = ASK + "import threading\ngot = []\n"
    crowd += "all = [threading.Thread(target=lambda: got.append(ask('10.9.0.1', 7002))) for _ in range(200)]\n"
    crowd += "[t.start() for t in all]; [t.join() for t in all]; print(got.count('10.9.0.2 10.9.0.1 7002'))"
    there_says(there, crowd, "200\n")


def ports():
    """A wildcard is of both worlds: the port of a listener of the host's is taken inside, too."""
    neighbours()
    host = socket.create_server(("0.0.0.0", 0))
    port = host.getsockname()[1]
    program = f"""
import socket
s = socket.socket()
try: s.bind(("0.0.0.0", {port})); print("bound")
except OSError as error: print(error.errno)
s.bind(("127.0.0.1", {port})); print("local")
t = socket.socket(); t.bind(("", 0)); t.listen(); u = socket.socket(); u.connect(("127.0.0.1", t.getsockname()[1])); print("any")
v = socket.socket(); v.bind(("10.9.0.1", 0)); v.listen(); w = socket.create_connection(v.getsockname()); print(w.getsockname()[0])
"""
    words = [PILLBOX, "do", "--platform", PLATFORM, "--", "python3", "-c", program]
    got = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    same(got, "98\nlocal\nany\n10.9.0.1\n", "inside")


def published():
    there = neighbours()
    program = ECHO + "listen(socket.AF_INET, '127.0.0.1', 80)\nlisten(socket.AF_INET6, '::1', 80)\n"
    program += "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nu.bind(('127.0.0.1', 53))\nprint('ready')\n"
    program += "while True:\n    text, peer = u.recvfrom(2000)\n    u.sendto(text + peer[0].encode(), peer)\n"
    sandbox(["-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1:8081:80", "-p", "9999:9"], program)
    asks = ASK + "print(ask('10.9.0.1', 8080)); print(ask('fd99::1', 8080)); print(ask('10.9.0.1', 8081)); print(ask('10.9.0.1', 9999))\n"
    asks += "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20); u.connect(('10.9.0.1', 5353))\n"
    asks += "u.send(b'from '); print(u.recv(100).decode())\n"
    expected = "10.9.0.2 127.0.0.1 80\nfd99::2 ::1 80\nConnectionRefusedError\nConnectionResetError\nfrom 10.9.0.2\n"
    there_says(there, asks, expected)
    # The host's own loopback is welcome here.
    there_says([], ASK + "print(ask('127.0.0.1', 8081))", "127.0.0.1 127.0.0.1 80\n")
    udp = "import socket\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20); u.connect(('127.0.0.1', 5353))\n"
    there_says([], udp + "u.send(b'from '); print(u.recv(100).decode())", "from 127.0.0.1\n")
    taken = subprocess.run(
        [PILLBOX, "do", "--platform", PLATFORM, "-p", "8080:80", "--", "true"], stderr=subprocess.PIPE, text=True
    )
    if taken.returncode != 125 or "--publish 8080:80: " not in taken.stderr or taken.stderr.count("\n") != 1:
        raise SystemExit(f"a port that is taken: {taken.returncode} {taken.stderr!r}")


try:
    if CASE in rules.CASES:
        rules.CASES[CASE](sys.modules["__main__"])
    else:
        {"listeners": listeners, "ports": ports, "published": published}[CASE]()
finally:
    for child in children:
        child.kill()
