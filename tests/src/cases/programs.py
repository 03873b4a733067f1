"""Real programs, as their users run them: python3 programs.py CASE. What they come to is printed, nothing that varies.

Each case runs natively and in a sandbox, script and all, and has to print the same in both.
"""

import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

# Emulated machines are slow.
SECONDS = 240
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
children = []
cleanups = contextlib.ExitStack()


def work(owner=None):
    """A directory of the case's own, gone at its end."""
    path = tempfile.mkdtemp(prefix="programs-")
    cleanups.callback(shutil.rmtree, path, ignore_errors=True)
    if owner is not None and os.geteuid() == 0:
        os.chown(path, owner, owner)
        os.chmod(path, 0o755)
    return path


def loopback():
    """Brings the loopback interface up where nobody has."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        name, flags = struct.unpack("16sh", fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        if flags & IFF_UP == 0:
            fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))


def free_port():
    """A port that nobody has, and that nobody is given who asks for any: others have clients on this machine."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def start(*words, **more):
    """A program that goes on; what it says is shown if what it is for never happens."""
    more.setdefault("stdin", subprocess.DEVNULL)
    if "stdout" not in more:
        more["stdout"] = cleanups.enter_context(tempfile.TemporaryFile())
    child = subprocess.Popen(words, **more)
    child.said = more["stdout"]
    children.append(child)
    return child


def run(*words, status=0, **more):
    """What a command that has to end well writes."""
    if "input" not in more:
        more.setdefault("stdin", subprocess.DEVNULL)
    more.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, errors="replace", timeout=SECONDS, **more)
    if done.returncode != status:
        said = (done.stdout + (done.stderr or ""))[-2000:]
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}: {said}")
    return done.stdout


def until(holds, what):
    """Waits for something that the program started last is to do, as long as that has not failed."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        failed = bool(children) and (children[-1].poll() or 0) > 0
        if found := holds():
            return found
        if failed:
            break
        time.sleep(0.1)
    raise SystemExit(f"never: {what}; {'; '.join(map(state, children))}")


def state(child):
    """Whether a program has ended, and the last of what it said."""
    said = b""
    if hasattr(child.said, "seek"):
        child.said.seek(0)
        said = child.said.read()[-500:]
    return f"{child.args[0]} {'goes on' if child.poll() is None else f'ended with {child.returncode}'}: {said.decode(errors='replace')}"


def answers(where):
    """Whether somebody listens at a port or a path."""
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    with socket.socket(family) as s:
        try:
            s.connect(where if isinstance(where, str) else ("127.0.0.1", where))
        except OSError:
            return False
        return True


def ended(child, what):
    status = child.wait(SECONDS)
    print(f"{what} ended with {status}")


def nobody(*words):
    """Servers that refuse to be root."""
    return (["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []) + list(words)


def postgres():
    directory, port = work(65534), free_port()
    binaries = sorted(os.listdir("/usr/lib/postgresql"))[-1]
    binaries = f"/usr/lib/postgresql/{binaries}/bin"
    env = {**os.environ, "HOME": directory, "PGUSER": "me", "LC_ALL": "C"}
    data = f"{directory}/data"
    here = {"cwd": directory, "env": env}
    run(*nobody(f"{binaries}/initdb", "-D", data, "-U", "me", "--no-sync"), **here)
    options = f"-k {directory} -h 127.0.0.1 -p {port}"
    run(*nobody(f"{binaries}/pg_ctl", "-D", data, "-l", f"{directory}/log", "-w", "-o", options, "start"), **here)
    bench = f"{binaries}/pgbench"
    for host in (directory, "127.0.0.1"):
        at = ["-h", host, "-p", str(port)]
        run(bench, *at, "-i", "-q", "postgres", **here)
        said = run(bench, *at, "-n", "-c", "4", "-j", "2", "-t", "50", "postgres", **here)
        print(*re.findall(r"number of (?:transactions actually|failed).*", said), sep="\n")
        sql = "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history"
        print(run("psql", *at, "-At", "-c", sql, "postgres", **here).strip())
    print(run(*nobody(f"{binaries}/pg_ctl", "-D", data, "-m", "fast", "-w", "stop"), **here).split("\n")[-2])
    print(run(*nobody(f"{binaries}/pg_controldata", "-D", data), **here).split("cluster state:")[1].split("\n")[0].strip())


def nginx():
    directory, port = work(), free_port()
    with open(f"{directory}/conf", "w") as conf:
        conf.write(f"""
            user root; worker_processes 2; pid {directory}/pid; error_log {directory}/errors;
            events {{ worker_connections 256; }}
            http {{
                access_log {directory}/log; sendfile on; tcp_nopush on; aio threads;
                client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
                uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
                server {{
                    listen unix:{directory}/socket; listen 127.0.0.1:{port}; root {directory}/www;
                    location /again/ {{ proxy_pass http://unix:{directory}/socket:/; }}
                }}
            }}
        """)
    os.mkdir(f"{directory}/www")
    body = os.urandom(3 << 20)
    with open(f"{directory}/www/index.html", "w") as page:
        page.write("a page\n")
    with open(f"{directory}/www/large", "wb") as page:
        page.write(body)
    server = start("nginx", "-c", f"{directory}/conf", "-g", "daemon off;")
    until(lambda: answers(port) and answers(f"{directory}/socket"), "nginx listens")
    print(run("curl", "-sS", "--unix-socket", f"{directory}/socket", "http://host/"), end="")
    print(run("curl", "-sS", f"http://127.0.0.1:{port}/"), end="")
    for path in ("large", "again/large"):
        run("curl", "-sS", "-o", f"{directory}/got", f"http://127.0.0.1:{port}/{path}")
        with open(f"{directory}/got", "rb") as got:
            print(path, got.read() == body)
    print(run("curl", "-sS", "-r", "5-9", "-D", "-", "-o", "/dev/null", f"http://127.0.0.1:{port}/large").split("\n")[0].strip())
    with open(f"{directory}/urls", "w") as urls:
        urls.writelines(f'url = "http://127.0.0.1:{port}/again/?{i}"\n' for i in range(100))
    print(run("curl", "-sS", "-Z", "--parallel-max", "32", "-K", f"{directory}/urls").count("a page"))
    # New workers, and the old ones end.
    server.send_signal(signal.SIGHUP)
    until(lambda: run("curl", "-sS", f"http://127.0.0.1:{port}/") == "a page\n", "nginx answers after a reload")
    server.send_signal(signal.SIGQUIT)
    ended(server, "nginx")
    with open(f"{directory}/log") as log:
        print(sum(" 200 " in line or " 206 " in line for line in log) >= 206, "lines of the log")
    with open(f"{directory}/errors") as errors:
        print("".join(re.sub(r"^.*?#\d+: ", "", line) for line in errors), end="")


def redis():
    directory, port = work(), free_port()
    # One binary by several names; the package redis-tools has it without the service.
    server = start(
        "redis-server", "--unixsocket", f"{directory}/socket", "--port", str(port), "--dir", directory, "--save", "",
        "--io-threads", "2", executable=shutil.which("redis-server") or shutil.which("redis-check-rdb"))
    until(lambda: answers(f"{directory}/socket") and answers(port), "redis listens")
    for at in (["-s", f"{directory}/socket"], ["-p", str(port)]):
        cli = ["redis-cli", *at]
        said = run("redis-benchmark", *at, "-q", "--csv", "-n", "2000", "-c", "20", "-t", "ping,set,get,incr,lpush,mset")
        print(re.findall(r'^"(.*?)"', said, re.M))
        run("redis-benchmark", *at, "-q", "-n", "5000", "-c", "20", "-P", "16", "-r", "1000", "-t", "set")
        print(run(*cli, "incr", "visits").strip(), run(*cli, "eval", "return redis.call('get', 'visits') + 1", "0").strip())
        print(run(*cli, input="multi\nset a 1\nincr a\nexec\n").split())
        heard = start(*cli, "subscribe", "news", stdout=subprocess.PIPE, text=True)
        until(lambda: run(*cli, "publish", "news", "hello").strip() == "1", "somebody listens")
        print([heard.stdout.readline().strip() for _ in range(6)])
        heard.terminate()
        # A child writes what the parent has at this moment.
        run(*cli, "bgsave")
        until(lambda: "rdb_bgsave_in_progress:0" in run(*cli, "info", "persistence"), "it is saved")
        print("rdb_last_bgsave_status:ok" in run(*cli, "info", "persistence"), os.path.getsize(f"{directory}/dump.rdb") > 1000)
    run("redis-cli", "-p", str(port), "shutdown", "nosave")
    ended(server, "redis")


def memcached():
    directory, port = work(), free_port()
    for at, where in ((["-l", "127.0.0.1", "-p", str(port)], port), (["-s", f"{directory}/socket"], f"{directory}/socket")):
        server = start("memcached", "-u", "root", "-t", "4", "-m", "32", *at)
        until(lambda: answers(where), "memcached listens")
        socks = []
        for i in range(20):
            s = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
            s.connect(where if isinstance(where, str) else ("127.0.0.1", where))
            socks.append(s)
        for i, s in enumerate(socks):
            s.sendall(b"set k%d 0 0 100000\r\n" % i + b"%d" % (i % 10) * 100000 + b"\r\n")
        files = [s.makefile("rb") for s in socks]
        print({f.readline() for f in files})
        good = 0
        for i, (s, f) in enumerate(zip(socks, files)):
            s.sendall(b"get k%d\r\n" % ((i + 1) % 20))
            head, body, end = f.readline(), f.readline(), f.readline()
            good += body == b"%d" % ((i + 1) % 10) * 100000 + b"\r\n"
        print(good)
        server.terminate()
        ended(server, "memcached")


def mariadb():
    directory, port = work(), free_port()
    install = shutil.which("mariadb-install-db") or "mysql_install_db"
    run(install, "--no-defaults", f"--datadir={directory}/data", "--user=root", "--auth-root-authentication-method=normal",
        "--skip-test-db", "--innodb-log-file-size=8M")
    path = f"{directory}/socket"
    server = start("mariadbd", "--no-defaults", f"--datadir={directory}/data", "--user=root", f"--socket={path}", f"--port={port}",
                   "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M",
                   f"--pid-file={directory}/pid", stderr=subprocess.DEVNULL)
    until(lambda: answers(path), "mariadb listens")
    client = ["mariadb", "--no-defaults", "-uroot", "-BN"]
    sql = "create database d; create table d.t (i int auto_increment primary key, who int, x varchar(100)) engine=innodb;"
    print(run(*client, "-S", path, input=sql + "select version() like '10%';").strip())
    clients = []
    for who in range(4):
        inserts = "".join(f"insert into d.t (who, x) values ({who}, repeat('x', {i % 90}));\n" for i in range(50))
        at = ["-S", path] if who % 2 else ["-h", "127.0.0.1", "-P", str(port)]
        child = start(*client, *at, stdin=subprocess.PIPE, text=True)
        child.stdin.write(f"begin; {inserts} commit;")
        child.stdin.close()
        clients.append(child)
    print([child.wait(SECONDS) for child in clients])
    print(run(*client, "-S", path, input="select who, count(*), sum(length(x)) from d.t group by who order by who;"), end="")
    print(run(*client, "-S", path, input="check table d.t; alter table d.t add index (x); select count(*) from d.t where x = 'xxx';"), end="")
    run(*client, "-S", path, input="shutdown;")
    ended(server, "mariadb")


def sqlite():
    directory = work()
    for mode in ("delete", "wal"):
        file = f"{directory}/{mode}"
        print(run("sqlite3", file, f"pragma journal_mode={mode}; create table t (i integer primary key, who int);").strip())
        writer = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=120, isolation_level=None)
for i in range(25):
    db.execute("begin immediate")
    n, = db.execute("select count(*) from t").fetchone()
    db.execute("insert into t values (?, ?)", (n, int(sys.argv[2])))
    db.execute("commit")
"""
        writers = [start("python3", "-c", writer, file, str(who)) for who in range(4)]
        print([child.wait(SECONDS) for child in writers])
        print(run("sqlite3", file, "select who, count(*) from t group by who; select max(i) from t; pragma integrity_check;"), end="")


def git():
    directory, port = work(), free_port()
    env = {**os.environ, "HOME": directory, "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{who}_NAME": "me", f"GIT_{who}_EMAIL": "me@example.org", f"GIT_{who}_DATE": "2020-01-01T00:00:00Z"}
    at = {"cwd": f"{directory}/one", "env": env}
    run("git", "init", "-q", "-b", "main", f"{directory}/one", env=env)
    for i in range(40):
        with open(f"{directory}/one/file{i}", "w") as f:
            f.write(f"line {i}\n" * (i + 1) * 20)
    run("git", "add", ".", **at)
    run("git", "commit", "-q", "-m", "first", **at)
    run("git", "checkout", "-q", "-b", "side", **at)
    for i in range(0, 40, 3):
        os.rename(f"{directory}/one/file{i}", f"{directory}/one/moved{i}")
    run("git", "add", "-A", **at)
    run("git", "commit", "-q", "-m", "second", **at)
    run("git", "checkout", "-q", "main", **at)
    run("git", "merge", "-q", "--no-ff", "-m", "merged", "side", **at)
    run("git", "gc", "-q", "--aggressive", **at)
    run("git", "update-server-info", **at)
    print(run("git", "log", "--format=%H %s", "--stat=60", **at))
    print(run("git", "fsck", "--full", **at).strip())
    start("python3", "-m", "http.server", "--bind", "127.0.0.1", str(port), cwd=directory, stderr=subprocess.DEVNULL)
    until(lambda: answers(port), "python serves")
    run("git", "clone", "-q", f"http://127.0.0.1:{port}/one/.git", f"{directory}/two", env=env)
    daemon = free_port()
    start("git", "daemon", "--export-all", "--enable=receive-pack", f"--base-path={directory}", "--listen=127.0.0.1", f"--port={daemon}",
          env=env, stderr=subprocess.DEVNULL)
    until(lambda: answers(daemon), "git serves")
    run("git", "clone", "-q", "--bare", f"git://127.0.0.1:{daemon}/one", f"{directory}/three", env=env)
    two = {"cwd": f"{directory}/two", "env": env}
    run("git", "rm", "-q", "file1", **two)
    run("git", "commit", "-q", "-m", "third", **two)
    run("git", "push", "-q", f"git://127.0.0.1:{daemon}/three", "main", **two)
    print(run("git", "--git-dir", f"{directory}/three", "log", "-1", "--format=%H %s", "main", env=env).strip())
    print(run("git", "status", "--porcelain", **two) == "", sorted(os.listdir(f"{directory}/two"))[:3])


def make():
    directory = work()
    units = 12
    for i in range(units):
        with open(f"{directory}/u{i}.c", "w") as f:
            f.write(f"#include <stdio.h>\n#include <math.h>\nint u{i}(int x) {{ return (int) sqrt(x * {i}.0) + {i}; }}\n")
    with open(f"{directory}/main.c", "w") as f:
        f.write("#include <stdio.h>\n" + "".join(f"int u{i}(int);\n" for i in range(units)))
        f.write("int main(void) { int s = 0;" + "".join(f" s += u{i}({i});" for i in range(units)) + ' printf("%d\\n", s); return 0; }\n')
    with open(f"{directory}/Makefile", "w") as f:
        f.write("OBJS = main.o " + " ".join(f"u{i}.o" for i in range(units)) + "\n")
        f.write("prog: $(OBJS)\n\tgcc -pipe -o $@ $^ -lm\n%.o: %.c\n\tgcc -O2 -pipe -c -o $@ $<\nclean:\n\trm -f *.o prog\n")
    print(sorted(run("make", "-j4", cwd=directory).split("\n"))[:4])
    print(run(f"{directory}/prog").strip(), run("make", "-j4", "--no-print-directory", cwd=directory).strip())
    os.utime(f"{directory}/u3.c")
    print(run("make", "-j4", cwd=directory).strip())
    # A compiler that fails ends the rest.
    with open(f"{directory}/u5.c", "a") as f:
        f.write("nonsense\n")
    run("make", "-j4", "-k", cwd=directory, status=2)
    print(run("make", "clean", cwd=directory).strip(), sorted(os.listdir(directory))[:2])


NODE = r"""
const http = require('http'), fs = require('fs'), path = require('path'), os = require('os');
const {Worker} = require('worker_threads'), {execFile, fork, spawn} = require('child_process'), cluster = require('cluster');
const dir = process.argv[2];
const get = (options) => new Promise((good, bad) => http.get(options, (answer) => {
  let size = 0; answer.on('data', (d) => size += d.length); answer.on('end', () => good([answer.statusCode, size]));
}).on('error', bad));
const listen = (server, at) => new Promise((good) => server.listen(at, () => good(server.address())));
(async () => {
  const server = http.createServer((request, answer) => {
    if (request.url == '/file') fs.createReadStream(dir + '/large').pipe(answer); else answer.end('hello\n');
  });
  fs.writeFileSync(dir + '/large', Buffer.alloc(2000000, 'x'));
  const {port} = await listen(server, {port: 0, host: '127.0.0.1'});
  console.log(await get({port, path: '/'}), await get({port, path: '/file'}));
  const many = await Promise.all(Array.from({length: 100}, () => get({port, path: '/'})));
  console.log(many.filter(([status, size]) => status == 200 && size == 6).length);
  const local = http.createServer((request, answer) => answer.end('unix'));
  await listen(local, dir + '/socket');
  console.log(await get({socketPath: dir + '/socket'}));
  console.log(await Promise.all([1, 2, 3].map((n) => new Promise((good) => new Worker(
    'const {parentPort, workerData} = require("worker_threads"); let s = 0; for (let i = 0; i < 1e6; i++) s += i % workerData; parentPort.postMessage(s)',
    {eval: true, workerData: n}).on('message', good)))));
  console.log(await new Promise((good) => execFile('sh', ['-c', 'echo out; exit 3'], (error, out) => good([error.code, out]))));
  const child = fork(process.argv[1], [dir, 'child']);
  console.log(await new Promise((good) => { child.on('message', good); child.send({n: 20}); }));
  console.log(await new Promise((good) => child.on('exit', (...all) => good(all))));
  const seen = new Promise((good) => fs.watch(dir, (kind, name) => name == 'new' && good(kind + ' ' + name)));
  fs.writeFileSync(dir + '/new', '1');
  console.log(await seen);
  console.log((await fs.promises.readdir(dir)).sort().join());
  server.close(); local.close();
  process.exit(0);
})().catch((error) => { console.log(error); process.exit(1); });
if (process.argv[3] == 'child') process.on('message', ({n}) => { process.send(n + 1, () => process.exit(5)); });
"""


def node():
    directory = work()
    source = NODE.replace("(async () => {", "if (process.argv[3] != 'child') (async () => {", 1)
    with open(f"{directory}/main.js", "w") as f:
        f.write(source)
    os.mkdir(f"{directory}/d")
    print(run("node", f"{directory}/main.js", f"{directory}/d"), end="")


GO = r"""
package main

import ("context"; "fmt"; "io"; "net"; "net/http"; "os"; "os/exec"; "os/signal"; "sync"; "sync/atomic"; "syscall"; "time")

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.URL.Path) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { panic(err) }
	server := &http.Server{Handler: mux}
	go server.Serve(tcp)
	base := "http://" + tcp.Addr().String()
	var good int64
	var wait sync.WaitGroup
	for i := 0; i < 50; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			answer, err := http.Get(fmt.Sprintf("%s/%d", base, i))
			if err != nil { fmt.Println(err); return }
			defer answer.Body.Close()
			text, _ := io.ReadAll(answer.Body)
			if string(text) == fmt.Sprintf("hello /%d", i) { atomic.AddInt64(&good, 1) }
		}(i)
	}
	wait.Wait()
	fmt.Println("good", good)
	addrs, err := net.LookupHost("localhost")
	fmt.Println("localhost", len(addrs) > 0, err)
	client := http.Client{Timeout: 200 * time.Millisecond}
	silent, _ := net.Listen("tcp", "127.0.0.1:0")
	_, err = client.Get("http://" + silent.Addr().String())
	fmt.Println("timeout", os.IsTimeout(err))
	out, err := exec.Command("sh", "-c", "echo from a child; exit 4").Output()
	fmt.Printf("%q %v\n", out, err)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	syscall.Kill(syscall.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-signals)
	var spinning int64
	for i := 0; i < 4; i++ { go func() { for atomic.LoadInt64(&spinning) == 0 { } }() }
	time.Sleep(50 * time.Millisecond)
	atomic.StoreInt64(&spinning, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	fmt.Println("down", server.Shutdown(ctx))
}
"""


def go():
    directory = work()
    with open(f"{directory}/main.go", "w") as f:
        f.write(GO)
    env = {**os.environ, "HOME": directory, "GOCACHE": f"{directory}/cache", "GO111MODULE": "off", "GOFLAGS": "-p=4"}
    run("go", "build", "-o", f"{directory}/main", f"{directory}/main.go", env=env, cwd=directory)
    print(run(f"{directory}/main"), end="")


JAVA = r"""
import com.sun.net.httpserver.HttpServer;
import java.net.*; import java.net.http.*; import java.nio.file.*; import java.util.*; import java.util.concurrent.*;
public class Main {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 50);
        server.createContext("/", exchange -> {
            byte[] text = ("hello " + exchange.getRequestURI()).getBytes();
            exchange.sendResponseHeaders(200, text.length);
            try (var out = exchange.getResponseBody()) { out.write(text); }
        });
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
        int port = server.getAddress().getPort();
        HttpClient client = HttpClient.newHttpClient();
        List<CompletableFuture<String>> all = new ArrayList<>();
        for (int i = 0; i < 40; i++)
            all.add(client.sendAsync(HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/" + i)).build(),
                HttpResponse.BodyHandlers.ofString()).thenApply(HttpResponse::body));
        Set<String> got = new TreeSet<>();
        for (var one : all) got.add(one.get());
        System.out.println(got.size() + " " + got.iterator().next());
        Process child = new ProcessBuilder("sh", "-c", "cat; exit 3").start();
        child.getOutputStream().write("through a child\n".getBytes()); child.getOutputStream().close();
        System.out.print(new String(child.getInputStream().readAllBytes()));
        System.out.println(child.waitFor());
        Path dir = Path.of(args[0]);
        WatchService watch = dir.getFileSystem().newWatchService();
        dir.register(watch, StandardWatchEventKinds.ENTRY_CREATE);
        Files.writeString(dir.resolve("new"), "x");
        System.out.println(watch.take().pollEvents().get(0).context());
        long sum = 0; for (int i = 0; i < 200; i++) { byte[] b = new byte[1 << 20]; sum += b.length; } System.gc();
        System.out.println(sum + " " + Runtime.getRuntime().maxMemory() / (1 << 20) + " " + Runtime.getRuntime().availableProcessors());
        server.stop(0);
        System.exit(7);
    }
}
"""


def java():
    directory = work()
    with open(f"{directory}/Main.java", "w") as f:
        f.write(JAVA)
    print(run("java", "-Xmx64m", f"{directory}/Main.java", directory, status=7), end="")


PYTHON = r"""
import asyncio, concurrent.futures, http.client, http.server, multiprocessing, os, signal, subprocess, sys, threading
def square(x): return x * x
def fill(array, queue, lock, i):
    for _ in range(100):
        with lock: array[0] += 1
    queue.put(i)
async def network(directory):
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper()); await writer.drain()
        writer.close()
    tcp = await asyncio.start_server(echo, "127.0.0.1", 0)
    unix = await asyncio.start_unix_server(echo, directory + "/socket")
    async def client(i):
        if i % 2: r, w = await asyncio.open_connection(*tcp.sockets[0].getsockname())
        else: r, w = await asyncio.open_unix_connection(directory + "/socket")
        w.write(b"line %d\n" % i); w.write_eof()
        said = await r.read(); w.close(); await w.wait_closed()
        return said
    got = await asyncio.gather(*(client(i) for i in range(100)))
    print(len(got), got[7])
    child = await asyncio.create_subprocess_exec("sh", "-c", "read x; echo $x; exit 9", stdin=-1, stdout=-1)
    print(await child.communicate(b"to a child\n"), child.returncode)
    loop = asyncio.get_running_loop(); caught = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, caught.set); os.kill(os.getpid(), signal.SIGUSR1); await caught.wait()
    try: await asyncio.wait_for(asyncio.sleep(10), 0.05)
    except asyncio.TimeoutError: print("in time")
    tcp.close(); unix.close()
if __name__ == "__main__":
    asyncio.run(network(sys.argv[1]))
    for how in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(how)
        with context.Pool(3) as pool: print(how, sum(pool.map(square, range(200))))
        array, queue, lock = context.Array("i", 4), context.Queue(), context.Lock()
        children = [context.Process(target=fill, args=(array, queue, lock, i)) for i in range(3)]
        [c.start() for c in children]; print(sorted(queue.get() for _ in children)); [c.join() for c in children]
        print(array[0], [c.exitcode for c in children])
    with concurrent.futures.ProcessPoolExecutor(2) as pool: print(list(pool.map(square, range(5))))
    with multiprocessing.Manager() as manager:
        d = manager.dict(); d["a"] = 1; print(dict(d))
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *rest): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = http.client.HTTPConnection(*server.server_address)
    os.chdir(sys.argv[1]); open("page", "w").write("page"); client.request("GET", "/page"); answer = client.getresponse()
    print(answer.status, answer.read())
"""


def python():
    directory = work()
    with open(f"{directory}/main.py", "w") as f:
        f.write(PYTHON)
    print(run("python3", f"{directory}/main.py", directory), end="")


def tmux():
    directory = work()
    env = {**os.environ, "TERM": "xterm", "HOME": directory, "TMUX_TMPDIR": directory, "PS1": "$ ", "LC_ALL": "C.UTF-8"}
    env.pop("TMUX", None)

    def tell(*words, status=0):
        return run("tmux", "-f", "/dev/null", *words, env=env, cwd=directory, status=status)

    tell("new-session", "-d", "-x", "80", "-y", "24", "-s", "one", "sh")
    tell("send-keys", "-t", "one", "stty size; tty | cut -c1-9; echo is $((6*7))", "Enter")
    until(lambda: "is 42" in tell("capture-pane", "-p", "-t", "one"), "the shell answers")
    print(re.findall("24 80|/dev/pts/|is 42", tell("capture-pane", "-p", "-t", "one")))
    tell("split-window", "-t", "one", "sh -c 'echo below; exec cat'")
    until(lambda: tell("capture-pane", "-p").startswith("below"), "the second pane")
    print(tell("list-panes", "-t", "one", "-F", "#{pane_width}x#{pane_height}"), end="")
    # A job that is interrupted, and one that is stopped.
    tell("select-pane", "-t", "one.0")
    tell("send-keys", "-t", "one.0", "clear; sleep 1000", "Enter")
    until(lambda: "sleep" in tell("list-panes", "-t", "one", "-F", "#{pane_current_command}"), "sleep runs")
    tell("send-keys", "-t", "one.0", "C-c")
    tell("send-keys", "-t", "one.0", "echo status $?", "Enter")
    until(lambda: "status 130" in tell("capture-pane", "-p", "-t", "one.0"), "it is interrupted")
    print(tell("list-sessions", "-F", "#{session_name} #{session_windows}"), end="")
    tell("kill-server")
    tell("has-session", status=1)


def screen():
    directory = work()
    os.chmod(directory, 0o700)
    env = {**os.environ, "TERM": "xterm", "HOME": directory, "SCREENDIR": directory, "LC_ALL": "C", "PS1": "$ ", "ENV": ""}

    def tell(*words):
        run("screen", "-S", "one", "-p", "0", "-X", *words, env=env)

    def copy():
        tell("hardcopy", f"{directory}/copy")
        with contextlib.suppress(OSError), open(f"{directory}/copy") as f:
            return f.read()
        return ""

    run("screen", "-c", "/dev/null", "-d", "-m", "-S", "one", "sh", env=env)
    until(lambda: ".one" in subprocess.run(["screen", "-ls"], env=env, stdout=subprocess.PIPE, text=True).stdout, "screen runs")
    tell("stuff", "tty | cut -c1-9; echo is $((6*7))\n")
    print(until(lambda: re.findall(r"(/dev/pts/)\n+(is 42)", copy()), "the shell answers"))
    tell("stuff", "clear; sleep 1000\n")
    until(lambda: subprocess.run(["pgrep", "-f", "^sleep 1000$"], stdout=subprocess.DEVNULL).returncode == 0, "sleep runs")
    tell("stuff", "\003")
    tell("stuff", "echo status $?\n")
    until(lambda: "status 130" in copy(), "it is interrupted")
    tell("quit")
    until(lambda: ".one" not in subprocess.run(["screen", "-ls"], env=env, stdout=subprocess.PIPE, text=True).stdout, "screen ends")
    print("ended")


def tools():
    """socat, nc and ss."""
    directory, port = work(), free_port()
    start("socat", f"TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1", "EXEC:tr a-z A-Z,pipes")
    until(lambda: answers(port), "socat listens")
    print(run("nc", "-N", "127.0.0.1", str(port), input="by nc\n").strip())
    print(run("socat", "-t5", "-", f"TCP:127.0.0.1:{port}", input="by socat\n").strip())
    start("socat", f"UNIX-LISTEN:{directory}/socket,fork", f"TCP:127.0.0.1:{port}")
    until(lambda: os.path.exists(f"{directory}/socket"), "the other socat listens")
    print(run("nc", "-N", "-U", f"{directory}/socket", input="by a socket\n").strip())
    # A terminal of the program's own.
    print(run("socat", "-t5", "-", "EXEC:'sh -c \"tty | cut -c1-9; stty -a | grep -c speed\"',pty,setsid,ctty,raw,echo=0").strip())
    udp = free_port()
    # (Socat 1.8 takes an address for an IPv6 one unless it is told.)
    start("socat", f"UDP4-RECVFROM:{udp},bind=127.0.0.1,fork", "EXEC:rev")
    until(lambda: f"127.0.0.1:{udp}" in run("ss", "-ulnH"), "a third socat listens")
    print(run("socat", "-t1", "-", f"UDP4:127.0.0.1:{udp}", input="datagram\n").strip())
    idle = start("nc", "-l", "127.0.0.1", str(udp))
    until(lambda: f"127.0.0.1:{udp}" in run("ss", "-tlnH"), "ss shows it")
    line = [line for line in run("ss", "-tlnpH").split("\n") if f"127.0.0.1:{udp}" in line][0].split()
    # The length of its queue is known only to kernels with tcp_diag.
    print(line[:2], line[3] == f"127.0.0.1:{udp}", f'"nc",pid={idle.pid}' in line[5])
    print(len([line for line in run("ss", "-xlnH").split("\n") if f"{directory}/socket" in line]))
    run("nc", "-z", "-w2", "127.0.0.1", str(udp))
    run("nc", "-z", "-w2", "127.0.0.1", str(free_port()), status=1)


def iperf():
    import json

    port = free_port()
    start("iperf3", "-s", "-B", "127.0.0.1", "-p", str(port))
    until(lambda: answers(port), "iperf3 listens")
    for more in ([], ["-R"], ["-P", "4"], ["--bidir"], ["-u", "-b", "20M"]):
        said = json.loads(run("iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-t", "1", *more))
        end = said["end"]
        total = end.get("sum_received") or end["sum"]
        print(more, total["bytes"] > 1_000_000, len(end["streams"]), end["sum"]["lost_percent"] < 50 if "-u" in more else "")


def ssh():
    directory, port = work(), free_port()
    os.makedirs("/run/sshd", exist_ok=True)
    os.chmod(directory, 0o755)
    for kind, name in (("ed25519", "host"), ("ed25519", "me")):
        run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", f"{directory}/{name}")
    shutil.copy(f"{directory}/me.pub", f"{directory}/keys")
    with open(f"{directory}/conf", "w") as f:
        f.write(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/keys\n"
                f"StrictModes no\nPidFile {directory}/pid\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nPrintMotd no\n")
    server = start("/usr/sbin/sshd", "-D", "-e", "-f", f"{directory}/conf", stderr=subprocess.DEVNULL)
    until(lambda: answers(port), "sshd listens")
    options = ["-F", "/dev/null", "-i", f"{directory}/me", "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={directory}/known",
               "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"]
    shell = ["ssh", *options, "-p", str(port), "127.0.0.1"]
    print(run(*shell, "echo from afar; cat; exit 3", input="through\n", status=3), end="")
    # With a terminal of its own.
    print(run(*shell, "-tt", "tty | cut -c1-9; stty size; echo $TERM", env={**os.environ, "TERM": "vt100"}).split())
    body = os.urandom(2 << 20)
    with open(f"{directory}/large", "wb") as f:
        f.write(body)
    run("scp", *options, "-P", str(port), f"{directory}/large", f"127.0.0.1:{directory}/by-scp")
    forward = free_port()
    start("python3", "-m", "http.server", "--bind", "127.0.0.1", str(web := free_port()), cwd=directory, stderr=subprocess.DEVNULL)
    until(lambda: answers(web), "python serves")
    tunnel = start(*shell, "-N", "-L", f"127.0.0.1:{forward}:127.0.0.1:{web}")
    until(lambda: answers(forward), "the tunnel")
    run("curl", "-sS", "-o", f"{directory}/by-curl", f"http://127.0.0.1:{forward}/large")
    tunnel.terminate()
    os.mkdir(f"{directory}/tree")
    for i in range(60):
        with open(f"{directory}/tree/{i}", "w") as f:
            f.write(str(i) * 1000)
    os.symlink("3", f"{directory}/tree/link")
    os.link(f"{directory}/tree/3", f"{directory}/tree/hard")
    how = f"ssh {' '.join(options)} -p {port}"
    sync = ["rsync", "-aHX", "--delete", "--stats", "-e", how, f"{directory}/tree/", f"127.0.0.1:{directory}/copy/"]
    print(re.findall(r"Number of (?:created|deleted).*", run(*sync)))
    os.remove(f"{directory}/tree/7")
    with open(f"{directory}/tree/8", "a") as f:
        f.write("more")
    print(re.findall(r"Number of (?:created|deleted|regular).*", run(*sync)))
    run("diff", "-r", f"{directory}/tree", f"{directory}/copy")
    print(os.stat(f"{directory}/copy/3").st_nlink, os.readlink(f"{directory}/copy/link"))
    for name in ("by-scp", "by-curl"):
        with open(f"{directory}/{name}", "rb") as f:
            print(name, f.read() == body)
    server.terminate()
    ended(server, "sshd")


def xvfb():
    directory = work()
    read, write = os.pipe()
    server = start("Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24", "-nolisten", "tcp", "-auth", "/dev/null",
                   "-fbdir", directory, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as said:
        number = said.readline().strip()
    env = {**os.environ, "DISPLAY": f":{number}"}
    info = run("xdpyinfo", env=env)
    print(*re.findall(r"dimensions: +(\S+)|MIT-SHM|number of extensions: +\d+", info))
    clients = [start("xev", "-name", f"window-{i}", env=env, stderr=subprocess.DEVNULL) for i in range(3)]
    tree = lambda: sorted(set(re.findall(r'"(window-\d)"', run("xwininfo", "-root", "-tree", env=env))))
    until(lambda: len(tree()) == 3, "three windows")
    print(tree())
    run("xkill", "-id", re.search(r'(0x[0-9a-f]+) "window-1"', run("xwininfo", "-root", "-tree", env=env))[1], env=env)
    until(lambda: len(tree()) == 2, "two windows")
    print(clients[1].wait(SECONDS) != 0, tree())
    server.terminate()
    ended(server, "Xvfb")


def bubblewrap():
    box = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-pid", "--unshare-ipc",
           "--unshare-uts", "--unshare-net", "--hostname", "inside", "--die-with-parent"]
    look = "hostname; echo $$; ls /proc | grep -c '^[0-9]'; ls -A /tmp /dev/shm; touch /written 2>/dev/null; echo $?; " \
           "echo x > /tmp/x && cat /tmp/x; grep -c : /proc/net/dev; exit 5"
    print(run(*box, "sh", "-c", look, status=5), end="")
    print(run(*box, "--cap-drop", "ALL", "--chdir", "/usr", "--setenv", "A", "b", "sh", "-c", "pwd; echo $A; grep CapEff /proc/self/status"), end="")
    # Who is told how it ends, and that the rest ends with the first.
    print(run(*box, "--as-pid-1", "sh", "-c", "sleep 1000 & echo $$; kill -KILL $$; echo there"), end="")
    print(run(*box, "sh", "-c", "kill -TERM $$", status=143), end="")


def deb():
    """A package of our own, by apt: for a sandbox, where nothing of it stays."""
    directory = work()
    os.chmod(directory, 0o755)
    os.makedirs(f"{directory}/p/DEBIAN")
    os.makedirs(f"{directory}/p/usr/share/ours")
    with open(f"{directory}/p/usr/share/ours/file", "w") as f:
        f.write("installed\n")
    with open(f"{directory}/p/DEBIAN/control", "w") as f:
        f.write("Package: ours\nVersion: 1\nArchitecture: all\nMaintainer: me <me@example.org>\nDescription: ours\n")
    with open(f"{directory}/p/DEBIAN/postinst", "w") as f:
        f.write("#!/bin/sh\nset -e\nadduser --system --quiet ours-user\necho configured for $1 > /usr/share/ours/configured\n")
    os.chmod(f"{directory}/p/DEBIAN/postinst", 0o755)
    run("dpkg-deb", "--root-owner-group", "-b", f"{directory}/p", f"{directory}/ours.deb")
    said = run("apt-get", "-y", "-q", "install", f"{directory}/ours.deb", env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    print(re.findall(r"^Setting up.*", said, re.M))
    print(run("cat", "/usr/share/ours/file", "/usr/share/ours/configured"), end="")
    print(run("dpkg-query", "-W", "ours").strip(), run("getent", "passwd", "ours-user").split(":")[0])
    run("apt-get", "-y", "-q", "purge", "ours")
    print(os.path.exists("/usr/share/ours/file"), run("dpkg", "--audit") == "")


if __name__ == "__main__":
    try:
        loopback()
        globals()[sys.argv[1]]()
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        cleanups.close()
