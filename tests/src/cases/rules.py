"""Names and rules: a sandbox, a resolver, and a neighbour with several addresses, some of which the sandbox may not reach.

Cases of neighbours.py.
"""

import json
import os
import subprocess
import tempfile

# What a resolver answers: a name's records, of which one with a list of lists has another answer each time. It says nothing
# about silent.test, and cuts off what it says about big.test by datagram.
RESOLVER = r"""
import socket, struct, sys, threading
at = sys.argv[1]
good, other = "203.0.113.2", "203.0.113.3"
A, CNAME, TXT, AAAA, HTTPS = 1, 5, 16, 28, 65
def name(text): return b"".join(bytes([len(l)]) + l.encode() for l in text.split(".")) + b"\0"
def v4(text): return A, socket.inet_aton(text)
def v6(text): return AAAA, socket.inet_pton(socket.AF_INET6, text)
ZONE = {
    "good.test": [v4(good), v6("2001:db8::2")],
    "alias.test": [(CNAME, name("target.test")), ("target.test", *v4(good))],
    "target.test": [v4(good)],
    "other.test": [v4(other), v6("2001:db8::3")],
    "deep.one.test": [v4(good)],
    "inner.test": [v4("127.0.0.1"), v4("10.9.0.2"), v4("169.254.169.254")],
    "mapped.test": [v6("::ffff:127.0.0.1"), v6("64:ff9b::7f00:1"), v6("fe80::1")],
    "rebind.test": [[v4(good)], [v4("10.9.0.2")]],
    "smuggle.test": [("other.test", *v4(other)), v4(good)],
    "big.test": [(TXT, bytes([200]) + b"x" * 200)] * 10,
    "hints.test": [(HTTPS, b"\0\1\0" + b"\0\3\0\2\1\xbb" + b"\0\4\0\4" + socket.inet_aton(other))],
}
turns = {}
def answer(query, stream):
    number, flags, questions = struct.unpack("!HHH", query[:6])
    labels, end = [], 12
    while query[end]:
        labels.append(query[end + 1:end + 1 + query[end]].decode().lower()); end += 1 + query[end]
    text, kind = ".".join(labels), struct.unpack("!H", query[end + 1:end + 3])[0]
    if text == "silent.test": return None
    if text == "liar.test": number ^= 1
    records = ZONE.get(text)
    if records and isinstance(records[0], list):
        turn = turns.get((text, kind), 0); turns[text, kind] = turn + 1
        records = records[min(turn, len(records) - 1)]
    found = [(r if len(r) == 3 else (text, *r)) for r in records or []]
    found = [r for r in found if r[1] in (kind, CNAME)]
    cut = text == "big.test" and not stream
    head = struct.pack("!HHHHHH", number, 0x8180 | (0x200 if cut else 0) | (0 if records else 3), 1, 0 if cut else len(found), 0, 0)
    body = b"".join(name(o) + struct.pack("!HHIH", k, 1, 0, len(d)) + d for o, k, d in found)
    return head + query[12:end + 5] + (b"" if cut else body)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((at, 53))
t = socket.socket(); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind((at, 53)); t.listen(20)
def streams():
    while True:
        c, _ = t.accept()
        size = struct.unpack("!H", c.recv(2, socket.MSG_WAITALL))[0]
        reply = answer(c.recv(size, socket.MSG_WAITALL), True)
        c.sendall(struct.pack("!H", len(reply)) + reply); c.close()
threading.Thread(target=streams, daemon=True).start()
print("ready", flush=True)
while True:
    query, peer = u.recvfrom(4096)
    reply = answer(query, False)
    if reply: u.sendto(reply, peer)
"""

# What listens over there: streams and datagrams at two ports.
SERVICE = r"""
import socket, sys, threading
def streams(port):
    s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("::", port)); s.listen(50)
    while True:
        c, _ = s.accept(); c.sendall(b"hello"); c.close()
def datagrams(at):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((at, 7000))
    while True:
        text, peer = s.recvfrom(2000); s.sendto(text, peer)
for port in (7000, 7001, 80): threading.Thread(target=streams, args=(port,), daemon=True).start()
for at in sys.argv[1:]: threading.Thread(target=datagrams, args=(at,), daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""

# Inside: one word for each way out.
TRY = r"""
import array, errno, os, socket, struct, sys
def word(what, body):
    try: got = body()
    except socket.gaierror: got = "unknown"
    except TimeoutError: got = "silence"
    except OSError as error: got = errno.errorcode.get(error.errno, str(error))
    print(what, got, flush=True)
def tcp(host, port=7000, **more):
    def body():
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET); s.settimeout(10)
        for level, option, value in more.get("options", []):
            try: s.setsockopt(level, option, value)
            except OSError: pass
        s.connect((host, port)); return s.recv(10).decode()
    return body
def named(host, port=7000):
    def body():
        last = None
        for family, _, _, _, at in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family) as s: s.settimeout(10); s.connect(at); return s.recv(10).decode()
            except OSError as error: last = error
        raise last
    return body
def udp(host, port=7000, connected=False):
    def body():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(5)
            if connected: s.connect((host, port)); s.send(b"text")
            else: s.sendto(b"text", (host, port))
            text, peer = s.recvfrom(100); return f"{text.decode()} {peer[0]} {peer[1]}"
    return body
def query(host, kind, server, stream=False):
    def body():
        name = b"".join(bytes([len(l)]) + l.encode() for l in host.split(".")) + b"\0"
        message = struct.pack("!HHHHHH", 77, 0x100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as s:
            s.settimeout(3); s.connect((server, 53))
            s.sendall((struct.pack("!H", len(message)) if stream else b"") + message)
            if stream:
                size = struct.unpack("!H", s.recv(2, socket.MSG_WAITALL))[0]
                reply = s.recv(size, socket.MSG_WAITALL)
            else: reply = s.recv(4096)
            number, flags, _, answers = struct.unpack("!HHHH", reply[:8])
            cut = " cut" if flags & 0x200 else ""
            hint = " hint" if socket.inet_aton("203.0.113.3") in reply else ""
            return f"{number} {flags & 15} {answers}{cut}{hint}"
    return body
def passed():
    ours, theirs = socket.socketpair()
    plain = socket.socket()
    if not os.fork():
        _, control, _, _ = theirs.recvmsg(1, 100)
        fd = array.array("i", control[0][2])[0]
        word("passed", lambda: (lambda s: (s.settimeout(10), s.connect(("203.0.113.3", 7000)), s.recv(10).decode())[2])(socket.socket(fileno=fd)))
        os._exit(0)
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [plain.fileno()]))])
    os.wait()
"""

# Ways out, all of which there are without rules. What is said with rules is beside each.
WAYS = [
    ("a name", "named('good.test')", "hello"),
    ("another name", "named('other.test')", "unknown"),
    ("a name in other letters", "named('GOOD.test.')", "hello"),
    ("a port of the name", "named('good.test', 7001)", "EACCES"),
    ("a name below one", "named('deep.one.test')", "hello"),
    ("its address", "tcp('203.0.113.2')", "hello"),
    ("another address", "tcp('203.0.113.3')", "EACCES"),
    ("another address of IPv6", "tcp('2001:db8::3')", "EACCES"),
    ("a mapped address", "tcp('::ffff:203.0.113.3')", "EACCES"),
    ("the mapped address of a name", "tcp('::ffff:203.0.113.2')", "hello"),
    ("a device", "tcp('203.0.113.3', options=[(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'v0')])", "EACCES"),
    ("datagrams", "udp('203.0.113.3')", "EACCES"),
    ("datagrams by connect", "udp('203.0.113.3', connected=True)", "EACCES"),
    ("another resolver", "query('other.test', 1, '10.9.0.2')", "EACCES"),
    ("another resolver by TCP", "query('other.test', 1, '10.9.0.2', True)", "EACCES"),
    ("an alias", "named('alias.test')", "hello"),
    ("a name that leads inside", "named('inner.test', 7001)", "unknown"),
    ("an answer about another name", "query('smuggle.test', 1, '127.0.0.11')", "77 0 1"),
    ("hints", "query('hints.test', 65, '127.0.0.11')", "77 0 1"),
]
# The same without rules, where that is something else than for all others.
OPEN = {
    "datagrams": "text 203.0.113.3 7000",
    "datagrams by connect": "text 203.0.113.3 7000",
    "another resolver": "77 0 1 hint",
    "another resolver by TCP": "77 0 1 hint",
    "an answer about another name": "77 0 2 hint",
    "hints": "77 0 1 hint",
    # Its first address is the sandbox's own, the second one the neighbour's.
    "a name that leads inside": "hello",
}
ALLOWED = ["good.test:7000", "alias.test:7000", "*.one.test", "inner.test", "mapped.test", "rebind.test", "smuggle.test", "hints.test", "big.test", "silent.test", "liar.test"]


class World:
    """The two namespaces, with a resolver over there and services at several addresses."""

    def __init__(self, n, resolvers):
        self.n = n
        self.there = n.neighbours()
        for line in (
            "ip addr add 203.0.113.2/24 dev v1", "ip addr add 203.0.113.3/24 dev v1", "ip addr add 169.254.169.254/32 dev v1",
            "ip addr add 2001:db8::2/64 dev v1 nodad", "ip addr add 2001:db8::3/64 dev v1 nodad",
        ):
            subprocess.run(self.there + line.split(), check=True)
        for line in (
            "ip route add 203.0.113.0/24 via 10.9.0.2", "ip route add 169.254.169.254/32 via 10.9.0.2",
            "ip -6 route add 2001:db8::/64 via fd99::2",
        ):
            n.sh(line)
        self.file = tempfile.NamedTemporaryFile("w", suffix=".conf")
        self.file.write(resolvers)
        self.file.flush()
        os.chmod(self.file.name, 0o644)
        n.sh(f"mount --bind {self.file.name} /etc/resolv.conf")
        self.serve(self.there, RESOLVER, "10.9.0.2")
        self.serve(self.there, SERVICE, "203.0.113.2", "203.0.113.3")

    def serve(self, how, program, *arguments):
        child = self.n.start(*how, "python3", "-u", "-c", program, *arguments, stdout=subprocess.PIPE, text=True)
        self.n.same(child.stdout.readline(), "ready\n", "a server")

    def inside(self, arguments, program):
        words = [self.n.PILLBOX, "do", "--platform", self.n.PLATFORM, *arguments, "--", "python3", "-u", "-c", program]
        got = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=200)
        if got.returncode or got.stderr:
            raise SystemExit(f"{arguments}: {got.returncode} {got.stderr!r}")
        return got.stdout

    def says(self, arguments, body, expected):
        self.n.same(self.inside(arguments, TRY + body), expected, f"with {arguments}")


def resolvers(n):
    """Names are found by what /etc/resolv.conf has, also where that is a stub on the host's own loopback."""
    world = World(n, "nameserver 127.0.0.53\nsearch test\nnameserver 10.9.0.2\n")
    world.serve([], RESOLVER, "127.0.0.53")
    body = "print(open('/etc/resolv.conf').read(), end='')\nword('1', named('good'))\nword('2', query('other.test', 1, '127.0.0.11'))\n"
    body += "word('3', query('big.test', 16, '127.0.0.11'))\nword('4', query('big.test', 16, '127.0.0.11', True))\n"
    body += "word('5', query('good.test', 28, '127.0.0.12'))\nword('6', query('good.test', 1, '127.0.0.53', True))\n"
    body += "word('7', query('silent.test', 1, '127.0.0.11'))\nword('8', named('nothing.test'))\n"
    body += "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.11', 53)); print(s.getpeername(), s.getsockname()[0])\n"
    expected = "nameserver 127.0.0.11\nnameserver 127.0.0.12\nsearch test\n1 hello\n2 77 0 1 hint\n3 77 0 0 cut\n4 77 0 10\n"
    expected += "5 77 0 1\n6 ECONNREFUSED\n7 silence\n8 unknown\n('127.0.0.11', 53) 127.0.0.1\n"
    world.says([], body, expected)
    # The same of the warden, which a log has.
    log = tempfile.NamedTemporaryFile()
    world.says(["--net-log", log.name], body, expected)
    # Without an outside the file is the host's.
    world.says(["--network", "none"], "print(open('/etc/resolv.conf').readline(), end='')", "nameserver 127.0.0.53\n")


def rules(n):
    """Rules hold, and every way that they close is one."""
    world = World(n, "nameserver 10.9.0.2\n")
    body = "".join(f"word({what!r}, {way})\n" for what, way, _ in WAYS) + "passed()\n"
    free = "".join(f"{what} {OPEN.get(what, 'hello')}\n" for what, _, _ in WAYS) + "passed hello\n"
    world.says([], body, free)
    held = "".join(f"{what} {said}\n" for what, _, said in WAYS) + "passed EACCES\n"
    world.says(["--allow-net", *ALLOWED], body, held)
    world.says(["--allow-net", "203.0.113.0/24:7000-7001", "2001:db8::/32", "10.9.0.2:53", "--deny-net", "203.0.113.2"],
               "word(1, tcp('203.0.113.3'))\nword(2, tcp('203.0.113.2'))\nword(3, tcp('::ffff:203.0.113.2'))\nword(4, tcp('2001:db8::3'))\n"
               "word(5, tcp('203.0.113.3', 80))\nword(6, udp('203.0.113.3'))\nword(7, query('other.test', 1, '10.9.0.2'))\nword(8, named('other.test'))\n",
               "1 hello\n2 EACCES\n3 EACCES\n4 hello\n5 EACCES\n6 text 203.0.113.3 7000\n7 77 0 1 hint\n8 unknown\n")
    world.says(["--deny-net", "other.test", "203.0.113.2:7001"],
               "word(1, named('good.test'))\nword(2, named('other.test'))\nword(3, tcp('203.0.113.2', 7001))\nword(4, tcp('203.0.113.3'))\n",
               "1 hello\n2 unknown\n3 EACCES\n4 hello\n")


def rebinding(n):
    """A name whose address changes, one that leads nowhere, metadata, one that a resolver is silent about."""
    world = World(n, "nameserver 10.9.0.2\n")
    body = "word(1, named('rebind.test'))\nword(2, named('rebind.test'))\nword(3, tcp('203.0.113.2'))\nword(4, tcp('10.9.0.2'))\n"
    body += "word(5, named('mapped.test'))\nword(6, tcp('127.0.0.1'))\nword(7, tcp('169.254.169.254', 80))\nword(8, tcp('64:ff9b::a9fe:a9fe', 80))\n"
    body += "word(9, query('silent.test', 1, '127.0.0.11'))\nword(10, query('liar.test', 1, '127.0.0.11'))\nword(11, query('big.test', 16, '127.0.0.11'))\n"
    body += "word(12, query('big.test', 16, '127.0.0.11', True))\nword(13, query('other.test', 1, '127.0.0.11', True))\nword(14, query('x' * 70 + '.test', 1, '127.0.0.11'))\n"
    expected = "1 hello\n2 unknown\n3 hello\n4 EACCES\n5 unknown\n6 ECONNREFUSED\n7 EACCES\n8 EACCES\n9 silence\n10 silence\n"
    expected += "11 77 0 0 cut\n12 77 0 10\n13 77 3 0\n14 77 1 0\n"
    world.says(["--allow-net", *ALLOWED], body, expected)
    metadata = "word(1, tcp('169.254.169.254', 80))\nword(2, tcp('203.0.113.3'))\n"
    world.says([], metadata, "1 EACCES\n2 hello\n")
    world.says(["--allow-net", "0.0.0.0/0"], metadata, "1 EACCES\n2 hello\n")
    world.says(["--allow-net", "169.254.169.254:80"], metadata, "1 hello\n2 EACCES\n")
    # Floods: of names, of sockets, of questions that nobody answers, of nonsense; and then it still works.
    flood = """
import random
all = []
for number in range(1500):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.11', 53)); s.setblocking(False); all.append(s)
    for message in (os.urandom(random.randrange(60)), b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6silent\\4test\\0\\0\\1\\0\\1'):
        try: s.send(message)
        except OSError: pass
for number in range(600):
    t = socket.socket(); t.settimeout(5)
    try: t.connect(('127.0.0.11', 53)); t.send(b'\\xff\\xff' + os.urandom(700))
    except OSError: pass
    all.append(t)
word(1, named('good.test'))
"""
    world.says(["--allow-net", *ALLOWED], flood, "1 hello\n")


def logged(n):
    """The log has a line for each connection, and the host's own loopback leads there if that is asked for."""
    world = World(n, "nameserver 10.9.0.2\n")
    log = tempfile.NamedTemporaryFile("r")
    world.says(["--net-log", log.name, "--allow-net", "good.test", "203.0.113.3:7000"],
               "word(1, tcp('203.0.113.3'))\nword(2, tcp('203.0.113.3', 7001))\nword(3, named('good.test', 7001))\nword(4, named('other.test'))\n"
               "word(5, udp('203.0.113.3'))\ns = socket.create_connection(('203.0.113.3', 7000)); s.recv(10); os.kill(os.getpid(), 0)\n",
               "1 hello\n2 EACCES\n3 hello\n4 unknown\n5 text 203.0.113.3 7000\n")
    lines = [json.loads(line) for line in log.read().splitlines()]
    seen = [(l["verdict"], l.get("program"), l.get("name"), l.get("protocol"), l.get("address"), l.get("port"), l.get("received"), l.get("sent")) for l in lines]
    three = ("python3", None, "tcp", "203.0.113.3", 7000)
    for line, count in (
        (("allowed", *three, None, None), 2),
        (("closed", *three, 5, 0), 2),
        (("refused", "python3", None, "tcp", "203.0.113.3", 7001, None, None), 1),
        (("refused", None, "other.test", None, None, None, None, None), 2),
        (("closed", "python3", None, "udp", "203.0.113.3", 7000, 4, 4), 1),
    ):
        n.same(seen.count(line), count, f"lines like {line} in {seen}")
    if not any(line[:3] == ("closed", "python3", "good.test") and line[6] == 5 for line in seen):
        raise SystemExit(f"no name in {seen}")
    host_loopback(world)


def host_loopback(world):
    world.serve([], SERVICE, "127.0.0.1")
    body = "word(1, tcp('127.0.0.1'))\nword(2, tcp('::1'))\nword(3, tcp('10.9.0.1'))\nword(4, tcp('127.0.0.1', 7001))\nword(5, udp('127.0.0.1'))\n"
    body += "l = socket.create_server(('127.0.0.1', 7000)); word(6, lambda: socket.create_connection(('127.0.0.1', 7000), 2).getpeername())\n"
    own = "6 ('127.0.0.1', 7000)\n"
    refused = "".join(f"{number} ECONNREFUSED\n" for number in range(1, 5))
    world.says([], body.replace("word(5, udp('127.0.0.1'))\n", ""), refused + own)
    some = "1 hello\n2 hello\n3 hello\n4 ECONNREFUSED\n5 text 127.0.0.1 7000\n" + own
    world.says(["--host-loopback=7000"], body, some)
    world.says(["--host-loopback=7000", "--allow-net", "good.test"], body, some)
    world.says(["--host-loopback"], "word(1, tcp('127.0.0.1', 7001))\n", "1 hello\n")


CASES = {"resolvers": resolvers, "rules": rules, "rebinding": rebinding, "logged": logged}
