#!/usr/bin/env python3
"""Containers on this machine: bundles by the runtime's own command line, and podman above it.

    containers.py PILLBOX PLATFORM BUSYBOX CASE

Everything is made in a directory of its own, state included, and removed at the end; what is left of processes, mounts,
control groups and state is an error.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time

PILLBOX, PLATFORM, BUSYBOX, CASE = sys.argv[1:5]
DIR = pathlib.Path(tempfile.mkdtemp(prefix="pillbox-containers-"))
STATE = DIR / "state"
ROOTFS = DIR / "rootfs"
#: What this case's containers are called by, in control groups.
MARK = DIR.name


def command(*words, options=()):
    return [PILLBOX, "--root", str(STATE), "--platform", PLATFORM, *options, *words]


def run(words, check=None, text=None, timeout=60, quiet=False):
    """Runs a command, and returns its status, output and errors; `check` is the status that it must have.

    What outlives the command must not have the pipes: then it is `quiet`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} if not quiet else NO_STREAMS
    given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    done = subprocess.run(words, text=True, timeout=timeout, **{**streams, **given})
    if check is not None and done.returncode != check:
        raise AssertionError(f"{words}: status {done.returncode}, not {check}: {done.stdout}{done.stderr}")
    return done


def pillbox(*words, check=None, **more):
    return run(command(*words), check, **more)


def same(found, expected, what=""):
    if found != expected:
        raise AssertionError(f"{what}: {found!r}, not {expected!r}")


def root():
    """A root directory with busybox in it."""
    for name in ["bin", "proc", "sys", "dev", "tmp", "etc", "root", "run"]:
        (ROOTFS / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, ROOTFS / "bin/busybox")
    applets = run([BUSYBOX, "--list"], 0).stdout.split()
    for applet in applets:
        if applet != "busybox":
            os.symlink("busybox", ROOTFS / "bin" / applet)
    (ROOTFS / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")


def bundle(name, *args, **process):
    """A bundle that runs `args`."""
    place = DIR / name
    place.mkdir()
    capabilities = {kind: ["CAP_CHOWN", "CAP_KILL"] for kind in ["bounding", "effective", "permitted"]}
    config = {
        "ociVersion": "1.0.2",
        "root": {"path": str(ROOTFS)},
        "hostname": "box",
        "process": {
            "args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
            "capabilities": capabilities, **process,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},
        ],
        "linux": {"cgroupsPath": f"/{MARK}/{name}", "namespaces": [{"type": "pid"}, {"type": "network"}]},
        "annotations": {"test": name},
    }
    write(place, config)
    return place, config


def write(place, config):
    (place / "config.json").write_text(json.dumps(config))


def status(name):
    return json.loads(pillbox("state", name, check=0).stdout)["status"]


def wait_for(what, holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not after {seconds} s")
        time.sleep(0.02)


def case_life():
    """create, start, state, kill, delete."""
    place, _ = bundle("life", "sh", "-c", "trap 'exit 9' TERM; echo up > /tmp/up; while :; do sleep 0.05; done")
    pid_file = DIR / "pid"
    pillbox("create", "-b", str(place), "--pid-file", str(pid_file), "life", check=0, quiet=True)
    shown = json.loads(pillbox("state", "life", check=0).stdout)
    same((shown["status"], shown["annotations"]), ("created", {"test": "life"}), "created")
    same(shown["pid"], int(pid_file.read_text()), "pid-file")
    groups = pathlib.Path(f"/proc/{shown['pid']}/cgroup").read_text()
    same(f"/{MARK}/life" in groups, True, "its control group")
    same(pillbox("delete", "life-two").returncode, 1, "delete of none")
    pillbox("delete", "--force", "life-two", check=0)
    same("exists" in pillbox("create", "-b", str(place), "life").stderr, True, "a second one")
    pillbox("start", "life", check=0)
    same(status("life"), "running")
    same(pillbox("start", "life").returncode, 1, "a second start")
    same(pillbox("delete", "life").returncode, 1, "delete of one that runs")
    wait_for("it is up", lambda: pillbox("exec", "life", "cat", "/tmp/up").stdout == "up\n")
    same(pillbox("list", "-q", check=0).stdout, "life\n", "list")
    same(len(json.loads(pillbox("ps", "--format", "json", "life", check=0).stdout)), 1, "ps")
    pillbox("pause", "life", check=0)
    same(status("life"), "paused")
    pillbox("resume", "life", check=0)
    stats = json.loads(pillbox("events", "--stats", "life", check=0).stdout)
    same(stats["data"]["memory"]["usage"]["usage"] > 0, True, "memory in use")
    pillbox("kill", "life", "15", check=0)
    wait_for("it ends", lambda: status("life") == "stopped")
    same("not running" in pillbox("kill", "life", "KILL").stderr, True, "kill of one that has ended")
    pillbox("kill", "--all", "life", "9", check=0)
    pillbox("delete", "life", check=0)
    same(pillbox("state", "life").returncode, 1, "state afterwards")


def case_run():
    """What a program has of its specification."""
    place, config = bundle(
        "run", "sh", "-c", "id; umask; pwd; hostname; echo $A; ulimit -n; grep -E 'CapEff|NoNew' /proc/self/status; exit 7",
        env=["PATH=/bin", "A=b"], cwd="/tmp", user={"uid": 65534, "gid": 5, "umask": 0o27, "additionalGids": [6]},
        noNewPrivileges=True, rlimits=[{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 100}],
    )
    expected = "uid=65534(nobody) gid=5 groups=6\n0027\n/tmp\nbox\nb\n77\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
    same(pillbox("run", "-b", str(place), "run", check=7).stdout, expected)
    config["process"].update(user={"uid": 0, "gid": 0}, args=["sh", "-c", "grep CapEff /proc/self/status; echo no > /x"])
    config["root"]["readonly"] = True
    write(place, config)
    done = pillbox("run", "-b", str(place), "run", check=1)
    same(done.stdout, "CapEff:\t0000000000000021\n")
    same("Read-only file system" in done.stderr, True, done.stderr)
    volume = DIR / "volume"
    volume.mkdir()
    (volume / "file").write_text("from outside\n")
    config["mounts"] += [
        {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind", "ro"]},
        {"destination": "/etc/one", "type": "bind", "source": str(volume / "file"), "options": ["bind", "ro"]},
    ]
    config["linux"]["maskedPaths"] = ["/proc/cpuinfo", "/etc/passwd", "/etc/none"]
    config["root"]["readonly"] = False
    config["process"]["args"] = ["sh", "-c", "cat /v/file /etc/one /proc/cpuinfo /etc/passwd; echo > /v/file; echo in > /in; cat /in"]
    write(place, config)
    done = pillbox("run", "-b", str(place), "run", check=0)
    same(done.stdout, "from outside\nfrom outside\nin\n")


def case_changes():
    """Where changes to the root go."""
    script = "umask 0; echo in > /in; chown 5:6 /in; mkdir /d; mv /in /d/moved; ln -s moved /d/link; rm /etc/group; cat /d/link"
    place, _ = bundle("run", "sh", "-c", script)
    (ROOTFS / "etc/group").write_text("")
    same(pillbox("--overlay", "memory", "run", "-b", str(place), "run", check=0).stdout, "in\n")
    same(((ROOTFS / "d").exists(), (ROOTFS / "etc/group").exists()), (False, True), "it stays inside")
    same(pillbox("run", "-b", str(place), "run", check=0).stdout, "in\n")
    moved = (ROOTFS / "d/moved").stat()
    same((moved.st_uid, moved.st_gid, moved.st_mode), (5, 6, 0o100666))
    same((os.readlink(ROOTFS / "d/link"), (ROOTFS / "etc/group").exists()), ("moved", False))


def do(volume, *words, check=None, options=(), **more):
    """A command in a sandbox with a volume, in which it is."""
    start = [PILLBOX, "do", "--platform", PLATFORM, "-v", f"{volume}:/volume", "--cwd", "/volume", *options, "--"]
    return run([*start, *words], check, **more)


INSIDE = """
import mmap, os, sys, time

def wait(what, until):
    end = time.time() + 30
    while not until():
        assert time.time() < end, what
        time.sleep(0.01)

def say(word):
    print(word, flush=True)
"""


def case_volumes():
    """Both sides of a volume."""
    volume = DIR / "volume"
    volume.mkdir()
    (volume / "page").write_bytes(b"x" * 8192)
    script = INSIDE + """
os.mkdir("d")
open("d/f", "w").write("first")
os.chown("d/f", 5, 6)
os.chmod("d/f", 0o640)
os.setxattr("d/f", "user.a", b"b")
held = open("d/f")
page = open("page", "r+b")
map = mmap.mmap(page.fileno(), 8192)
map[:4] = b"ours"
map.flush()
say("made")
wait("a new file", lambda: os.path.exists("new"))
assert open("new").read() == "theirs" and os.listdir(".") == os.listdir("/volume")
wait("another file of that name", lambda: open("d/f").read() == "second")
assert held.read() == "first", "what is open stays"
wait("bytes of theirs", lambda: os.stat("page") and map[4096:4102] == b"theirs")
map[8:12] = b"more"
say("seen")
wait("a shorter file", lambda: os.stat("page").st_size == 4096)
child = os.fork()
if child == 0:
    map[5000]
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == -7, status
map.close()
"""
    begun = subprocess.Popen([PILLBOX, "do", "--platform", PLATFORM, "-v", f"{volume}:/volume", "--cwd", "/volume", "--",
                              "python3", "-c", script], stdout=subprocess.PIPE, text=True)
    same(begun.stdout.readline(), "made\n")
    made = (volume / "d/f").stat()
    same((made.st_uid, made.st_gid, made.st_mode), (5, 6, 0o100640))
    same(os.getxattr(volume / "d/f", "user.a"), b"b")
    same((volume / "page").read_bytes()[:5], b"oursx")
    (volume / "new").write_text("theirs")
    (volume / "other").write_text("second")
    (volume / "other").rename(volume / "d/f")
    with open(volume / "page", "r+b") as page:
        page.seek(4096)
        page.write(b"theirs")
    same(begun.stdout.readline(), "seen\n")
    os.truncate(volume / "page", 4096)
    same(begun.wait(60), 0)
    same((volume / "page").read_bytes()[:13], b"oursxxxxmorex", "what was mapped is written in the end")
    # A read-only one cannot be made another by root inside.
    done = run([PILLBOX, "do", "--platform", PLATFORM, "-v", f"{volume}:/volume:ro", "-v", f"{DIR}:/elsewhere", "--", "sh", "-c",
                "mount -o remount,rw /volume; cd /volume; cat new; echo > new; rm new; mkdir e; chmod 0 new; touch new; mv d e"])
    same((done.stdout, done.stderr.count("Read-only file system")), ("theirs", 6), done.stderr)
    same(sorted(os.listdir(volume)), ["d", "new", "page"])


def case_outside():
    """What is not below the volume, and what is no file there."""
    volume, outside = DIR / "volume", DIR / "outside"
    volume.mkdir()
    outside.mkdir()
    (volume / "real").mkdir()
    os.mkfifo(volume / "fifo")
    os.mknod(volume / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (volume / "up").symlink_to("../outside")
    (volume / "absolute").symlink_to(outside)
    done = do(volume, "sh", "-c", "cat device; mknod other c 1 3; timeout 1 cat fifo; echo $?; echo a > up/a; echo b > absolute/b")
    same((done.stdout, done.stderr.count("not permitted"), done.stderr.count("denied")), ("124\n", 1, 1), done.stderr)
    same(os.listdir(outside), [])
    same((volume / "other").exists(), False)
    # A directory that becomes a link, and another one, over and over.
    turn = "mv real held; ln -s ../outside real; rm real; mv held real; "
    begun = subprocess.Popen(["sh", "-c", f"while test ! -e stop; do {turn} done"], cwd=volume)
    script = INSIDE + """
made = 0
for n in range(3000):
    try:
        os.close(os.open("real/%d" % n, os.O_CREAT | os.O_WRONLY))
        made += 1
    except OSError:
        pass
print(made > 0)
"""
    done = do(volume, "python3", "-c", script, check=0)
    (volume / "stop").write_text("")
    begun.wait(60)
    same((done.stdout, os.listdir(outside)), ("True\n", []))


def case_settings():
    """What a specification says of the kernel: a filter of calls, settings, devices, sizes."""
    place, config = bundle(
        "settings", "sh", "-c",
        "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ping_group_range; stat -c '%F %t:%T %a %u' /dev/nil /etc/pipe;"
        "echo lost > /dev/nil; cat /dev/nil; df -k /t /dev/shm | awk '{ print $2 }'; dd if=/dev/zero of=/t/x bs=64k count=100 2>&1 |"
        "grep -c space; stat -c %s /t/x; rm /t/x; dd if=/dev/zero of=/t/y bs=64k count=16 2>&1 | grep -c space;"
        "mkdir /t/d || chmod 0 /t || chmod 700 /t && grep -E '^Seccomp' /proc/self/status; touch /t/1 /t/2 /t/3; ls /t",
    )
    config["mounts"] += [
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=755", "nr_inodes=4"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=2048k", "mode=1777"]},
    ]
    config["linux"].update(
        sysctl={"kernel.msgmax": "4096", "net.ipv4.ping_group_range": "5 6"},
        devices=[
            {"path": "/dev/nil", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20666, "uid": 7, "gid": 0},
            {"path": "/etc/pipe", "type": "p", "fileMode": 0o600},
        ],
        seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 1, "value": 0o7777, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["fchmodat"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 2, "value": 0o7777, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            ],
        },
    )
    write(place, config)
    done = pillbox("run", "-b", str(place), "settings", check=0)
    expected = ("4096\n5\t6\ncharacter special file 1:3 666 7\nfifo 0:0 600 0\n1K-blocks\n1024\n2048\n1\n1048576\n0\n"
                "Seccomp:\t2\nSeccomp_filters:\t1\n1\n2\ny\n")
    same(done.stdout, expected, done.stderr)
    for text in ["/t/d': Input/output error", "/t: Operation not permitted", "/t/3: No space left"]:
        same(text in done.stderr, True, f"{text} in {done.stderr}")
    # Those that join it are screened, too.
    config["process"]["args"] = ["sleep", "1000"]
    write(place, config)
    pillbox("run", "-d", "-b", str(place), "settings", check=0, quiet=True)
    same("Input/output" in pillbox("exec", "settings", "mkdir", "/d", check=1).stderr, True)
    pillbox("delete", "--force", "settings", check=0)
    for change, text in [
        ({"sysctl": {"kernel.nonesuch": "1"}}, "sysctl kernel.nonesuch"), ({"sysctl": {"kernel.msgmax": "x"}}, "EINVAL"),
        ({"devices": [{"path": "/tmp", "type": "c", "major": 1, "minor": 3}]}, "device /tmp"),
        ({"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}, "SCMP_ACT_NOTIFY"),
    ]:
        write(place, {**config, "linux": {**config["linux"], **change}})
        same(text in pillbox("create", "-b", str(place), "settings").stderr, True, text)


def limited(name, *args, **process):
    """A bundle with limits, that sees its control groups."""
    place, config = bundle(name, *args, **process)
    config["mounts"] += [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec"]},
    ]
    config["linux"]["resources"] = {
        "memory": {"limit": 256 << 20}, "pids": {"limit": 100}, "cpu": {"quota": 150000, "period": 100000},
    }
    write(place, config)
    return place, config


#: What a container does in its control groups: a bomb of each kind in a group with limits, and its neighbour lives.
GROUPS = r"""
cd /sys/fs/cgroup
for f in memory.max cpu.max pids.max cgroup.controllers; do cat $f | tr '\n' ' '; done; echo
cat /proc/self/cgroup /proc/1/cgroup
echo 1M > memory.max || echo refused
echo "+memory +pids" > cgroup.subtree_control
mkdir a a/b; echo 20M > a/memory.max; echo 5 > a/pids.max
echo 10M > a/memory.high || echo not supported
sleep 50 & n=$!
sh -c 'echo 0 > a/cgroup.procs; cat /proc/self/cgroup; head -c 5242880 /dev/zero | tail | wc -c; head -c 62914560 /dev/zero | tail | wc -c'
grep oom_kill\  a/memory.events
sh -c 'echo 0 > a/cgroup.procs; f() { f | f; }; f' 2>/dev/null
[ $(cut -d\  -f2 a/pids.events) -ge 1 ] && [ $(cat a/pids.peak) = 5 ] && echo forks refused
echo 1 > a/cgroup.kill; while [ -n "$(cat a/cgroup.procs)" ]; do sleep 0.01; done; echo 100 > a/pids.max
echo "+memory" > a/cgroup.subtree_control; echo 10M > a/b/memory.max; echo 1 > a/b/memory.oom.group
sh -c 'echo 0 > a/b/cgroup.procs; sleep 50 & head -c 62914560 /dev/zero | tail | wc -c' || echo all of it killed: $?
while [ -n "$(cat a/b/cgroup.procs)" ]; do sleep 0.01; done
kill -0 $n && echo the neighbour lives
rmdir a && echo busy; rmdir a/b a && echo removed
[ $(cat memory.current) -lt $(cat memory.max) ] && [ $(cat pids.current) -ge 2 ] && echo within
mount -t cgroup2 none /tmp 2>/dev/null || echo may not mount
"""
GROUPS_SAY = """268435456 150000 100000 100 cpuset cpu io memory pids 
0::/
0::/
refused
not supported
0::/a
5242880
0
oom_kill 1
forks refused
all of it killed: 137
the neighbour lives
removed
within
may not mount
"""


def case_cgroups():
    """Control groups as the container sees them."""
    place, config = limited("groups", "sh", "-c", GROUPS)
    done = pillbox("run", "-b", str(place), "groups", check=0)
    same(done.stdout.splitlines(), GROUPS_SAY.splitlines(), f"groups: {done.stderr}")
    # Read-only, as most engines ask for it; the same from processes that join.
    config["mounts"][-1]["options"].append("ro")
    config["process"]["args"] = ["sleep", "50"]
    write(place, config)
    pillbox("run", "-d", "-b", str(place), "joined", check=0, quiet=True)
    same(pillbox("exec", "joined", "cat", "/sys/fs/cgroup/memory.max", check=0).stdout, f"{256 << 20}\n", "joined")
    same(pillbox("exec", "joined", "mkdir", "/sys/fs/cgroup/a").returncode, 1, "a group where none may be made")
    pillbox("delete", "--force", "joined", check=0)


#: What run-times say of the limits of `limited`, as far as they are there.
RUNTIMES = [
    (["java", "-XshowSettings:system", "-version"], ["Memory Limit: 256.00M", "CPU Quota: 150000us", "Provider: cgroupv2"]),
    (["node", "-p", "process.constrainedMemory()"], [str(256 << 20)]),
]


def case_limits():
    """Run-times on this machine know the limits of their container."""
    for program, (words, expected) in enumerate(RUNTIMES):
        path = shutil.which(words[0])
        if path is None:
            continue
        place, config = limited(f"limits-{program}", path, *words[1:])
        config["root"] = {"path": "/", "readonly": True}
        write(place, config)
        done = run(command("run", "-b", str(place), f"limits-{program}", options=("--overlay", "memory")), 0)
        for line in expected:
            same(line in done.stdout + done.stderr, True, f"{words}: {line} in {done.stdout}{done.stderr}")


def layer(*members, pack=None):
    """A layer of these members: (name, what), where what is text, None for a directory, or a dict for tarfile. Returns the
    digest of what it is unpacked, and its bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.mode, data = 0o755, None
            if what is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(what, dict):
                for key, value in what.items():
                    setattr(info, key, value)
            else:
                data = what if isinstance(what, bytes) else what.encode()
                info.size = len(data)
            archive.addfile(info, data and io.BytesIO(data))
    plain = out.getvalue()
    return hashlib.sha256(plain).hexdigest(), gzip.compress(plain) if pack == "gz" else plain


def saved(path, layers, form="oci", mode="w", **config):
    """An image of these layers, as an archive in either form, or a directory."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    whole = json.dumps({
        "architecture": arch, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest, _ in layers]},
    }).encode()
    parts = {}

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        parts[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    if form == "oci":
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(whole, "config.v1+json"), "layers": [blob(data, "layer.v1.tar") for _, data in layers],
        }).encode()
        parts["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [blob(manifest, "manifest.v1+json")]}).encode()
        parts["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    else:
        names = [f"{number}/layer.tar" for number, _ in enumerate(layers)]
        parts["config.json"] = whole
        parts.update(zip(names, [data for _, data in layers]))
        parts["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": names}]).encode()
    if mode is None:
        for name, data in parts.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path
    with tarfile.open(path, mode) as archive:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def in_image(path, *words, check=0, options=()):
    """`do` in an image, with a cache of this case's own."""
    command = [PILLBOX, "do", "--platform", PLATFORM, *options, "--image", str(path), *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env={**os.environ, "XDG_CACHE_HOME": str(DIR / "cache")},
    )
    if done.returncode != check:
        raise AssertionError(f"{command}: status {done.returncode}, not {check}: {done.stdout}{done.stderr}")
    return done


def base():
    """A layer with busybox."""
    applets = [(f"bin/{name}", {"type": tarfile.SYMTYPE, "linkname": "busybox"}) for name in
               ["sh", "ls", "cat", "id", "pwd", "env", "echo", "true", "touch", "find", "sort", "stat"]]
    passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"
    busybox = pathlib.Path(BUSYBOX).read_bytes()
    return layer(("bin", None), ("bin/busybox", busybox), *applets, ("etc/passwd", passwd),
                 ("etc/group", "ann:x:1000:\nmore:x:50:ann\n"), ("tmp", None), ("old/a", "a"), ("old/b", "b"), pack="gz")


def case_images():
    """Images without an engine."""
    second = layer(
        ("old/.wh..wh..opq", ""), ("old/c", "c"), ("etc/.wh.gone", ""), ("bin/.wh.stat", ""),
        ("link", {"type": tarfile.LNKTYPE, "linkname": "old/c"}), ("lib", {"type": tarfile.SYMTYPE, "linkname": "/old"}),
        ("lib/d", "d"), ("pipe", {"type": tarfile.FIFOTYPE}), ("dev/sda", {"type": tarfile.BLKTYPE, "devmajor": 8}),
    )
    config = {
        "Env": ["A=1", "B=2"], "Entrypoint": ["echo", "say"], "Cmd": ["it"], "WorkingDir": "/work/here", "User": "ann",
    }
    layers = [base(), second]
    archive = saved(DIR / "oci.tar", layers, **config)
    same(in_image(archive).stdout, "say it\n", "as it says")
    same(in_image(archive, "--", "words", "else").stdout, "say words else\n", "another Cmd")
    (DIR / "oci.dir").mkdir()
    images = [
        saved(DIR / "oci.tar.gz", layers, mode="w:gz"), saved(DIR / "saved.tar", layers, "docker"),
        saved(DIR / "saved.tar.gz", layers, "docker", "w:gz"), saved(DIR / "oci.dir", layers, mode=None),
    ]
    for image in images:
        found = in_image(image, "--", "find", "/old", "/link", "/lib/", "/pipe", "-type", "f").stdout.split()
        same(sorted(found), ["/lib/c", "/lib/d", "/link", "/old/c", "/old/d"], f"{image}: files")
        same(in_image(image, "--", "ls", "/bin/stat", check=1).stdout, "", "a whiteout")
    same(len(list((DIR / "cache/pillbox/images").glob("sha256-*"))), 2, "unpacked once")
    own = saved(DIR / "own.tar", layers, **{**config, "Entrypoint": None})
    text = in_image(own, "--", "sh", "-c", "id -u; id -G; pwd; echo $A $B $HOME; touch /bin/x || echo no").stdout
    same(text, "1000\n1000 50\n/work/here\n1 2 /home/ann\nno\n", "who and where") if os.geteuid() == 0 else None
    text = in_image(own, "--", "sh", "-c", "pwd; echo $A$B", options=("--user", "0", "--cwd", "/", "-e", "A=x")).stdout
    same(text, "/\nx2\n", "said otherwise")
    # A root directory as it is.
    same(in_image(ROOTFS, "--", "pwd").stdout, "/\n", "a directory")
    hostile_images()
    for words, what in [
        ([DIR / "missing.tar"], "No such file"), (["/dev/null"], "neither"), ([BUSYBOX], "archive"),
        ([ROOTFS], "no command"), ([saved(DIR / "nobody.tar", layers, User="nobody2"), "--", "true"], "nobody2"),
    ]:
        done = in_image(*words, check=125)
        same((what in done.stderr, done.stderr.count("\n")), (True, 1), f"{words}: {done.stderr}")


SAVED = """
echo more >> etc/issue; echo new > etc/new; ln etc/new hard; ln -s nowhere soft; mkfifo fifo; rm gone/a
mv tree/below moved; echo x > moved/x; rm -rf instead; mkdir instead; echo z > instead/z; chown 1:2 set; chmod 4755 set
mkdir -p LONG/LONG; echo deep > LONG/LONG/f; truncate -s 50G big; echo end >> big; touch "$(printf 'a\\nb\\377\\033')"
cat etc/group looked/at nothing > /dev/null; find looked tree2 > /dev/null; mknod null c 1 3; echo > .wh.a; exit 9
"""


def case_saved():
    """`do --save-diff`, and what tar(1) makes of it; `diff`."""
    for name in ["gone/a", "tree/below/b", "instead/old", "set", "looked/at", "tree2/x/y/z", "etc/group", "etc/issue"]:
        (ROOTFS / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOTFS / name).write_text(name)
    copy, archive = DIR / "copy", DIR / "saved.tar"
    run(["cp", "-a", str(ROOTFS), str(copy)], 0)

    def save(script, check, to=archive, options=()):
        words = [PILLBOX, "do", "--platform", PLATFORM, "--root", str(ROOTFS), "--save-diff", str(to), *options]
        return run([*words, "--cwd", "/", "--", "sh", "-c", script], check)

    said = save(SAVED.replace("LONG", "n" * 250), 9).stderr
    same(said, "".join(line for line in [
        "cat: can't open 'nothing': No such file or directory\n",
        f"pillbox: --save-diff {archive}: left out: device nodes (1), names that begin with .wh. (1)\n",
    ]), "what is left out is said")
    listed = run([PILLBOX, "diff", str(archive)], 0).stdout.splitlines()
    same([line for line in listed if "nnn" not in line], [
        "A /a\\nb\\xff\\u{1b}", "A /big", "C /etc", "C /etc/issue", "A /etc/new", "A /fifo", "C /gone", "D /gone/a",
        "A /hard", "C /instead", "A /instead/z", "A /moved", "A /moved/x", "A /moved/b", "C /set", "A /soft",
        "C /tree", "D /tree/below",
    ], "the list")
    # Applied by tar(1), and removed what the marks say.
    run(["tar", "-C", str(copy), "-xpf", str(archive)], 0)
    marks = sorted(str(path.relative_to(copy)) for path in copy.glob("**/.wh.*"))
    same(marks, ["gone/.wh.a", "instead/.wh..wh..opq", "tree/.wh.below"], "marks")
    same((copy / "etc/issue").read_text().endswith("more\n"), True, "a changed file")
    same([(copy / name).read_text() for name in ["moved/b", "moved/x", "instead/z"]], ["tree/below/b", "x\n", "z\n"])
    same((copy / "etc/new").stat().st_ino, (copy / "hard").stat().st_ino, "one file")
    same(((copy / "set").stat().st_mode, (copy / "set").stat().st_uid), (0o104755, 1), "mode and owner")
    same((copy / "big").stat().st_blocks < 100, True, "a hole")
    same((copy / "big").stat().st_size, (50 << 30) + 4, "its size")
    same(((copy / "fifo").is_fifo(), os.readlink(copy / "soft")), (True, "nowhere"), "others")
    same((copy / ("n" * 250) / ("n" * 250) / "f").read_text(), "deep\n", "a long name")
    same(os.path.exists(os.fsencode(copy) + b"/a\nb\xff\x1b"), True, "a name that is no text")
    same((ROOTFS / "etc/issue").read_text().endswith("more\n"), False, "the root itself is as it was")
    # Nothing where nothing was changed; a status is kept where it cannot be written.
    save("find / -xdev > /dev/null; cat etc/passwd > /dev/null", 0, options=("-v", f"{DIR}:/volume"))
    same(run([PILLBOX, "diff", str(archive)], 0).stdout, "", "nothing was changed")
    full = save("echo x > x; exit 4", 4, "/dev/full").stderr
    same(full, "pillbox: --save-diff /dev/full: No space left on device (os error 28): the archive is not complete\n")
    same("--save-diff" in save("echo no", 125, DIR / "no/where").stderr, True, "before it is run")
    # Many, and deep ones.
    script = "mkdir many; cd many; i=0; while [ $i -lt 5000 ]; do : > $i; i=$((i+1)); done; NAME=LONG; "
    script += "i=0; while [ $i -lt 40 ]; do mkdir $NAME; cd $NAME 2>/dev/null || break; i=$((i+1)); done"
    said = save(script.replace("LONG", "d" * 200), 0).stderr
    same(("left out: what cannot be read (1)" in said, said.count("\n")), (True, 1), said)
    same(len(run([PILLBOX, "diff", str(archive)], 0).stdout.splitlines()), 5021, "many")
    same("no such file" in run([PILLBOX, "diff", str(DIR / "none")], 125).stderr.lower(), True, "no archive")
    shutil.rmtree(copy)


def hostile_images():
    """Nothing is written outside of the cache, whatever layers say."""
    victim = DIR / "victim"
    victim.mkdir()
    up = "../" * 20
    symlink = lambda target: {"type": tarfile.SYMTYPE, "linkname": target}
    for number, (members, expected) in enumerate([
        ([(f"{up}{victim}/a", "x")], "upwards"),
        ([(f"{victim}/b", "x")], None),
        ([("out", symlink(str(victim))), ("out/c", "x")], "directory"),
        ([("out", symlink(up + str(victim))), ("out/d", "x")], "directory"),
        ([("out", symlink(str(victim))), ("out", "x")], None),
        ([("l", {"type": tarfile.LNKTYPE, "linkname": up + "etc/passwd"})], "upwards"),
        ([("l", {"type": tarfile.LNKTYPE, "linkname": "/etc/shadow"})], "link"),
        ([("x", symlink("y")), ("y", symlink("x")), ("x/f", "x")], "directory"),
        ([("p", symlink("/proc/self/root" + str(victim))), ("p/e", "x")], "directory"),
        ([(".wh...", "")], "upwards"), ([(".wh.", "")], None), ([("a/.wh..", "")], None),
        ([("n" * 5000, "x")], "no name"),
    ]):
        image = saved(DIR / f"hostile-{number}.tar", [base(), layer(*members)])
        done = in_image(image, "--", "true", check=0 if expected is None else 125)
        same((expected or "") in done.stderr, True, f"{members}: {done.stderr}")
        same(done.stderr.count("\n"), int(expected is not None), f"{members}: {done.stderr}")
        same(list(victim.iterdir()), [], f"{members}")
    # One layer under another's digest; a bomb; one that is cut off.
    good, other = base(), layer(("evil", "x"))
    image = saved(DIR / "other.tar", [(good[0], other[1])])
    same("digest" in in_image(image, "--", "true", check=125).stderr, True, "another layer")
    bomb = layer(("bomb", b"\0" * (400 << 20)), pack="gz")
    same("larger" in in_image(saved(DIR / "bomb.tar", [bomb]), "--", "true", check=125).stderr, True, "a bomb")
    cut = DIR / "cut.tar"
    cut.write_bytes((DIR / "oci.tar").read_bytes()[:300000])
    in_image(cut, "--", "true", check=125)
    same([name for name in os.listdir(DIR / "cache/pillbox/images") if not name.startswith(("sha256-", ".lock", "of-"))], [],
         "what is left of them")


def named(*words, check=0, options=(), **more):
    """`run` of a container with a name, and what else takes names."""
    return run([PILLBOX, "--root", str(STATE), *words[:1], *options, *words[1:]], check, **more)


def case_named():
    """The life of a container without an engine."""
    here = ("--platform", PLATFORM)
    script = "trap 'echo stopping >&2; exit 9' TERM; echo up; echo wrong >&2; while :; do sleep 0.05; done"
    same(named("run", "-d", "--name", "box", "--", "sh", "-c", script, options=here, quiet=False).stdout, "box\n")
    wait_for("what it prints", lambda: "wrong" in named("logs", "box").stderr)
    same(named("logs", "box").stdout, "up\n", "its output")
    same(named("exec", "-e", "A=1", "box", "sh", "-c", "echo $A; exit 4", check=4).stdout, "1\n", "exec")
    same([named("exec", "box", word, check=None).returncode for word in ["/none", "/etc/passwd"]], [127, 126], "no program")
    line = named("ps").stdout.splitlines()[1]
    same(("box" in line, "Up" in line, named("ps", "-q").stdout), (True, True, "box\n"), line)
    same("sh" in named("ps", "box").stdout, True, "its processes")
    same(status("box"), "running", "engines see it, too")
    copies()
    # Taken, unknown, running.
    said = named("run", "-d", "--name", "box", "--", "true", check=125, options=here).stderr
    same(("box" in said, said.count("\n")), (True, 1), said)
    for words in [("logs", "none"), ("stop", "none"), ("rm", "none"), ("exec", "none", "true"), ("rm", "box")]:
        said = named(*words, check=None)
        same((said.returncode in (1, 255), said.stderr.count("\n")), (True, 1), f"{words}: {said.stderr}")
    same(named("rm", "-f", "none", check=None).returncode, 0, "as delete --force")
    follow = subprocess.Popen(command("logs", "-f", "box"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    same(named("stop", "box").stdout, "box\n", "stop")
    same("stopping" in follow.communicate(timeout=30)[0], True, "who follows is told to the end")
    same((named("ps").stdout.count("\n"), "Exited (9)" in named("ps", "-a").stdout), (1, True), "its status is kept")
    same(named("rm", "box").stdout, "box\n", "rm")
    same(named("ps", "-aq").stdout, "", "nothing is left")
    # What nobody reads does not hold it up, and is bounded.
    flood = "i=0; while [ $i -lt 400 ]; do head -c 100000 /dev/zero; i=$((i+1)); done; echo; echo end >&2"
    named("run", "-d", "--name", "flood", "--", "sh", "-c", flood, options=here)
    wait_for("a flood", lambda: "Exited (0)" in named("ps", "-a").stdout, 60)
    size = sum(path.stat().st_size for path in (STATE / "flood").glob("log*"))
    same((size < 20 << 20, named("logs", "flood").stderr), (True, "end\n"), f"a bounded log: {size}")
    named("rm", "flood")
    # What ignores SIGTERM is killed; what cannot be started leaves nothing.
    named("run", "-d", "--name", "deaf", "--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done", options=here)
    wait_for("its output", lambda: named("logs", "deaf").stdout == "up\n")
    named("stop", "-t", "1", "deaf")
    same("Exited (137)" in named("ps", "-a").stdout, True, "killed")
    named("rm", "deaf")
    for word, expected in [("/none", 127), ("/etc/passwd", 126), ("none", 127)]:
        done = named("run", "-d", "--name", "bad", "--", word, check=expected, options=here)
        same(done.stderr.count("\n"), 1, done.stderr)
    same(named("run", "-d", "--name", "bad", "--bogus", "--", "true", check=125, options=here).stderr.count("\n"), 1)
    same(list(STATE.iterdir()), [], "nothing is left of them")
    # In the foreground; a bundle is still one.
    done = named("run", "--rm", "--", "cat", text="in\n", options=here)
    same((done.stdout, list(STATE.iterdir())), ("in\n", []), "in the foreground")
    named("run", "--name", "kept", "--", "sh", "-c", "exit 5", check=5, options=here)
    same("Exited (5)" in named("ps", "-a").stdout, True, "in the foreground")
    named("rm", "kept")
    place, _ = bundle("one", "echo", "bundle")
    same(pillbox("run", "-b", str(place), "one", check=0).stdout, "bundle\n", "runc's run")
    kill_named()


def copies():
    """`cp`, both ways."""
    place = DIR / "copies"
    (place / "in/sub").mkdir(parents=True)
    (place / "in/sub/file").write_text("here\n")
    (place / "in/link").symlink_to("/etc/passwd")
    (place / "victim").mkdir()
    named("cp", str(place / "in"), "box:/tmp/new")
    named("cp", str(place / "in"), "box:/tmp/new")
    script = "cat /tmp/new/sub/file /tmp/new/in/sub/file; readlink /tmp/new/link; ln -s /etc /tmp/etc; echo inner > /etc/inner"
    same(named("exec", "box", "sh", "-c", script).stdout, "here\nhere\n/etc/passwd\n", "a directory, and into it")
    # Names and targets that do not fit into a header.
    long = "/".join(["d" * 200] * 3)
    (place / "in" / long).mkdir(parents=True)
    (place / "in" / long / "file").write_text("deep\n")
    (place / "in/far").symlink_to("t" * 300)
    named("cp", str(place / "in"), "box:/tmp/long")
    same(named("exec", "box", "sh", "-c", f"cat /tmp/long/{long}/file; readlink /tmp/long/far").stdout, "deep\n" + "t" * 300 + "\n")
    named("cp", "box:/tmp/long", str(place / "back"))
    same(((place / "back" / long / "file").read_text(), os.readlink(place / "back/far")), ("deep\n", "t" * 300), "long names")
    # Links are followed inside.
    named("cp", str(place / "in/sub/file"), "box:/tmp/etc/copied")
    same((named("exec", "box", "cat", "/etc/copied").stdout, os.path.exists("/etc/copied")), ("here\n", False), "through a link")
    named("cp", "box:/tmp/etc/inner", str(place))
    same((place / "inner").read_text(), "inner\n", "out, through a link")
    # What a link names outside is not written to.
    script = f"mkdir -p /tmp/out/sub; ln -s {place}/victim /tmp/out/link; echo s > /tmp/out/sub/s; chmod 4755 /tmp/out/sub/s"
    named("exec", "box", "sh", "-c", script)
    (place / "out").mkdir()
    (place / "out/sub").symlink_to(place / "victim")
    named("cp", "box:/tmp/out/.", str(place / "out"), check=1)
    same(list((place / "victim").iterdir()), [], "a link that was there")
    named("cp", "box:/tmp/out", str(place / "fresh"))
    same((os.readlink(place / "fresh/link"), (place / "fresh/sub/s").stat().st_mode), (f"{place}/victim", 0o100755), "no set-id")
    for words in [("box:/none", str(place)), (str(place / "none"), "box:/"), (str(place / "inner"), "box:/none/x"), ("a", "b")]:
        same(named("cp", *words, check=1).stderr.count("\n"), 1, f"{words}")


def kill_named():
    """Kills of any of its processes leave what can be removed."""
    for number in range(12):
        starting = subprocess.Popen(
            [*command("run", "-d", "--name", "victim", "--"), "sh", "-c", "while :; do echo x; sleep 0.01; done"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        time.sleep(random.uniform(0, 0.4))
        if number % 3 == 0:
            starting.kill()
        else:
            try:
                state = json.loads((STATE / "victim/state.json").read_text())
                pid = state["pid"] if number % 3 == 1 else state["own"]["keeper"][0]
                # There is none before it runs, and 0 is whoever asks.
                if pid > 0:
                    os.kill(pid, signal.SIGKILL)
            except (OSError, TypeError, ValueError):
                pass
        starting.wait(timeout=30)
        for words in [("ps", "-a"), ("logs", "victim"), ("stop", "-t", "1", "victim")]:
            done = named(*words, check=None)
            same((done.returncode in (0, 1), done.stderr.count("\n") < 2), (True, True), f"{words}: {done}")
        named("rm", "-f", "victim", check=None)
        wait_for("removed", lambda: named("rm", "-f", "victim", check=None).returncode == 0 and not list(STATE.iterdir()))


def case_errors():
    """What engines read when something is wrong."""
    log = DIR / "log"
    place, config = bundle("wrong", "/nonesuch")
    for words, text in [
        (["/nonesuch"], "no such file or directory"), (["nonesuch"], "executable file not found in $PATH"),
        (["/etc"], "permission denied"), (["/etc/passwd"], "permission denied"),
    ]:
        config["process"]["args"] = words
        write(place, config)
        log.unlink(missing_ok=True)
        options = ["--log", str(log), "--log-format", "json"]
        done = run(command("create", "-b", str(place), "wrong", options=options), 1)
        last = json.loads(log.read_text().splitlines()[-1])
        same((last["level"], text in last["msg"], text in done.stderr), ("error", True, True), words)
        same(list(STATE.iterdir()), [], "state of one that was not made")
    config["linux"]["namespaces"].append({"type": "user"})
    write(place, config)
    same("user: not supported" in pillbox("create", "-b", str(place), "wrong").stderr, True)
    for name in ["", "..", "a/b", "a b"]:
        same(pillbox("create", "-b", str(place), "--", name).returncode, 1, name)


def case_exec():
    """Processes in a container that runs."""
    place, _ = bundle("ex", "sleep", "1000")
    pillbox("run", "-d", "-b", str(place), "ex", check=0, quiet=True)
    same(pillbox("exec", "ex", "sh", "-c", "echo $PPID; exit 4", check=4).stdout, "0\n")
    same(pillbox("exec", "-u", "5:6", "--cwd", "/tmp", "-e", "X=y", "ex", "sh", "-c", "id -u; id -g; pwd; echo $X", check=0).stdout,
         "5\n6\n/tmp\ny\n")
    same(pillbox("exec", "ex", "cat", text="through\n", check=0).stdout, "through\n")
    same(pillbox("exec", "ex", "sh", "-c", "kill -9 $$").returncode, 137, "killed")
    same((pillbox("exec", "ex", "/nonesuch").returncode, pillbox("exec", "ex", "/etc").returncode), (127, 126))
    pid_file, process = DIR / "exec-pid", DIR / "process.json"
    process.write_text(json.dumps({"args": ["sh", "-c", "sleep 0.3; exit 3"], "cwd": "/", "user": {"uid": 0, "gid": 0},
                                   "env": ["PATH=/bin"]}))
    become_subreaper()
    pillbox("exec", "--process", str(process), "--detach", "--pid-file", str(pid_file), "ex", check=0, quiet=True)
    _, ended = os.waitpid(int(pid_file.read_text()), 0)
    same(os.waitstatus_to_exitcode(ended), 3, "the status of a detached process")
    # Whoever waits learns of the end of the container, too.
    waiting = subprocess.Popen(command("exec", "ex", "sleep", "1000"), **NO_STREAMS)
    wait_for("it is there", lambda: pillbox("ps", "ex").stdout.count("sleep") == 2)
    pillbox("delete", "--force", "ex", check=0)
    same(waiting.wait(20), 137)
    reap()


def become_subreaper():
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def reap():
    """Waits for adopted processes that have ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def case_descriptors():
    """The sandbox's list of its host descriptors is what its process has."""
    place, config = bundle("fds", "sh", "-c", "exec 4< /etc/passwd 5< /bin; mkfifo /tmp/f; echo up > /tmp/up; cat /tmp/f")
    (DIR / "volume").mkdir()
    (DIR / "volume/file").write_text("text")
    config["mounts"].append({"destination": "/v", "type": "bind", "source": str(DIR / "volume"), "options": ["bind"]})
    write(place, config)
    pillbox("create", "-b", str(place), "fds", check=0, quiet=True)
    pillbox("start", "fds", check=0)
    wait_for("it is up", lambda: pillbox("exec", "fds", "cat", "/tmp/up", "/v/file").stdout == "up\ntext")
    pid = json.loads(pillbox("state", "fds", check=0).stdout)["pid"]
    listed = {}

    def agree():
        before = set(os.listdir(f"/proc/{pid}/fd"))
        lines = pillbox("descriptors", "fds", check=0).stdout.splitlines()
        after = set(os.listdir(f"/proc/{pid}/fd"))
        listed.clear()
        listed.update((line.split()[0], line.split(" ", 2)[2]) for line in lines)
        # The request's own stream is there for as long as it takes to answer.
        numbers = {number for number, what in listed.items() if what != "given by a request"}
        return before == after == numbers

    wait_for("the list is the host's", agree)
    kinds = "\n".join(listed.values())
    for what in ["given by the caller", "event", "epoll", "signals", "given by who makes the container", "/proc/cpuinfo",
                 "etc/passwd below descriptor ", "bin/busybox below descriptor ", "file below descriptor "]:
        same(what in kinds, True, f"{what} in {kinds}")
    pillbox("delete", "--force", "fds", check=0)


def in_pod(name, pod, *args, share=("network", "ipc", "uts"), **process):
    """A bundle for a container in the pod of `pod`, or for that one itself, which is its sandbox."""
    place, config = bundle(name, *args, **process)
    own = name == pod
    config["annotations"] = {
        "io.kubernetes.cri.container-type": "sandbox" if own else "container", "io.kubernetes.cri.sandbox-id": pod,
    }
    config["hostname"] = name
    spaces = [{"type": kind} for kind in ["pid", "network", "ipc", "uts", "mount"]]
    if not own:
        pid = json.loads(pillbox("state", pod, check=0).stdout)["pid"]
        files = {"network": "net"}
        for space in spaces:
            if space["type"] in share:
                space["path"] = f"/proc/{pid}/ns/{files.get(space['type'], space['type'])}"
        # A root of its own.
        root = DIR / f"{name}-root"
        shutil.copytree(ROOTFS, root, symlinks=True)
        (root / "etc/name").write_text(f"{name}\n")
        config["root"]["path"] = str(root)
    config["linux"]["namespaces"] = spaces
    write(place, config)
    return place, config


def begin_pod(name="pod", *args):
    place, _ = in_pod(name, name, *(args or ("sleep", "1000")))
    pillbox("run", "-d", "-b", str(place), name, check=0, quiet=True)


def begin_in_pod(name, *args, **more):
    """Creates and starts one, and returns the process that its engine would wait for."""
    place, _ = in_pod(name, "pod", *args, **more)
    pid_file = DIR / f"{name}.pid"
    pillbox("create", "-b", str(place), "--pid-file", str(pid_file), name, check=0, quiet=True)
    pillbox("start", name, check=0)
    return int(pid_file.read_text())


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def inside(name, script, check=0):
    return pillbox("exec", name, "sh", "-c", script, check=check).stdout


def case_pods():
    """Two containers in one kernel: what they share, and what each has of its own."""
    become_subreaper()
    begin_pod()
    volume = DIR / "volume"
    volume.mkdir()
    script = "echo up > /v/one; echo from one | nc -l -p 7070 > /tmp/got; sleep 0.1; echo done; exit 6"
    place, config = in_pod("one", "pod", "sh", "-c", script)
    config["mounts"].append({"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]})
    write(place, config)
    pid_file = DIR / "one.pid"
    pillbox("create", "-b", str(place), "--pid-file", str(pid_file), "one", check=0, quiet=True)
    same(status("one"), "created")
    same("not running" in pillbox("exec", "one", "true").stderr, True)
    one = int(pid_file.read_text())
    same(pillbox("start", "one", check=0).returncode, 0)
    same(pillbox("start", "one").returncode, 1, "a second start")
    wait_for("it writes to its volume", lambda: (volume / "one").exists())
    same((volume / "one").read_text(), "up\n")
    groups = pathlib.Path(f"/proc/{one}/cgroup").read_text()
    same(f"/{MARK}/one" in groups, True, "its control group")
    same(os.readlink(f"/proc/{one}/ns/net"), os.readlink(f"/proc/{json.loads(pillbox('state', 'pod').stdout)['pid']}/ns/net"))
    # Each has its root, its processes and its numbers; names, queues and the network are the sandbox's.
    same(inside("one", "cat /etc/name; hostname; ls /proc | grep -c '^[0-9]'; cat /proc/1/comm"), "one\npod\n5\nsh\n")
    same(inside("pod", "cat /etc/name 2>/dev/null; hostname; cat /proc/1/comm; ls /v 2>/dev/null; true"), "pod\nsleep\n")
    same(inside("one", "echo shared > /dev/shm/s; echo own > /tmp/t; touch /made"), "")
    same(inside("pod", "cat /dev/shm/s; ls /tmp /made 2>/dev/null; true"), "shared\n/tmp:\n")
    same((DIR / "one-root/made").exists(), True, "its root is written through")
    same([line.split()[-1] for line in pillbox("ps", "one", check=0).stdout.splitlines()[1:]], ["sh", "nc"])
    same([line.split()[-1] for line in pillbox("ps", "pod", check=0).stdout.splitlines()[1:]], ["sleep"])
    # The sandbox is talked to at its own address, from both.
    same(inside("pod", "echo from pod | nc 127.0.0.1 7070"), "from one\n")
    same(ended(one), 6, "the status of the first that ends")
    same((status("one"), status("pod")), ("stopped", "running"))
    same("not running" in pillbox("exec", "one", "true").stderr, True)
    pillbox("delete", "one", check=0)
    # Nothing of it is left in the kernel.
    wait_for("its descriptors go", lambda: "request" not in pillbox("descriptors", "pod", check=0).stdout.replace(
        "given by a request", "", 1))
    # The name can be had again, and what it says is for who made it.
    place, config = in_pod("two", "pod", "sh", "-c", "echo out; echo err >&2; exit 3", share=())
    done = pillbox("run", "-b", str(place), "two", check=3)
    same((done.stdout, done.stderr), ("out\n", "err\n"))
    config["process"]["args"] = ["sh", "-c", "hostname; nc 127.0.0.1 7070 || echo alone; ls /dev/shm"]
    write(place, config)
    same(pillbox("run", "-b", str(place), "two", check=0).stdout, "two\nalone\n", "namespaces of its own")
    pillbox("delete", "--force", "pod", check=0)
    reap()


def case_pods_together():
    """Ten containers, numbers of the pod's, limits, pauses, and the end of the sandbox."""
    become_subreaper()
    begin_pod()
    pids = {f"c{n}": begin_in_pod(f"c{n}", "sleep", "1000") for n in range(9)}
    shared = begin_in_pod("shared", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done", share=("pid", "network"))
    same(inside("shared", "cat /proc/1/comm; test $(ls /proc | grep -c '^[0-9]') -ge 11 && echo all"), "sleep\nall\n")
    same(inside("c0", "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; hostname"), "sleep\n4\npod\n")
    same(len(pillbox("list", "-q", check=0).stdout.split()), 11)
    # The end of its first process is that of all that is in a container, in whatever pid namespace.
    pillbox("exec", "shared", "sh", "-c", "setsid sleep 777 &", check=0, quiet=True)
    same("777" in inside("shared", "cat /proc/*/cmdline | tr '\\0' ' '"), True)
    pillbox("kill", "shared", "TERM", check=0)
    same(ended(shared), 5)
    pillbox("kill", "--all", "shared", "9", check=0)
    wait_for("what it left ends", lambda: "777" not in pillbox("ps", "pod", check=0).stdout + inside("pod", "cat /proc/*/cmdline 2>/dev/null || true"))
    pillbox("delete", "shared", check=0)
    # A namespace of another container's.
    place, config = in_pod("target", "pod", "sh", "-c", "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'")
    config["linux"]["namespaces"][0]["path"] = f"/proc/{pids['c1']}/ns/pid"
    write(place, config)
    same(pillbox("run", "-b", str(place), "target", check=0).stdout, "sleep\n4\n")
    # Limits are a container's own.
    place, config = in_pod("small", "pod", "sh", "-c",
                           "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /proc/self/cgroup; sleep 1000")
    config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]})
    config["linux"]["resources"] = {"memory": {"limit": 32 << 20}, "pids": {"limit": 8}}
    write(place, config)
    small = subprocess.Popen(command("run", "-b", str(place), "small"), stdout=subprocess.PIPE, text=True)
    same([small.stdout.readline() for _ in range(3)], [f"{32 << 20}\n", "8\n", "0::/\n"])
    same(pillbox("exec", "small", "sh", "-c", "head -c 62914560 /dev/zero | tail | wc -c").stdout, "0\n", "more than its memory")
    same("fork" in pillbox("exec", "small", "sh", "-c", "for n in 1 2 3 4 5 6 7 8; do sleep 1000 > /dev/null 2>&1 & done").stderr, True)
    same(inside("c2", "head -c 62914560 /dev/zero | tail | wc -c"), "62914560\n", "a neighbour has more")
    pillbox("update", "--memory", str(200 << 20), "--pids-limit", "50", "small", check=0)
    same(inside("small", "cat /sys/fs/cgroup/memory.max; head -c 62914560 /dev/zero | tail | wc -c"), f"{200 << 20}\n62914560\n")
    stats = json.loads(pillbox("events", "--stats", "small", check=0).stdout)["data"]
    same((0 < stats["memory"]["usage"]["usage"] < 32 << 20, 1 <= stats["pids"]["current"] <= 10), (True, True), stats)
    pillbox("kill", "small", "KILL", check=0)
    same(small.wait(20), 137)
    # One is stopped, and others go on.
    pillbox("pause", "c3", check=0)
    same((status("c3"), status("c4"), pillbox("exec", "c3", "true").returncode), ("paused", "running", 255))
    same(inside("c4", "echo goes on"), "goes on\n")
    pillbox("resume", "c3", check=0)
    same(inside("c3", "echo again"), "again\n")
    pillbox("pause", "c3", check=0)
    pillbox("delete", "--force", "c3", check=0)
    same(ended(pids.pop("c3")), 137)
    # The process outside is the container: with it goes what is inside.
    os.kill(pids["c4"], signal.SIGKILL)
    same(ended(pids.pop("c4")), -9)
    wait_for("what is inside ends", lambda: inside("pod", "cat /proc/*/comm").count("sleep") == len(pids) + 1)
    pillbox("delete", "c4", check=0)
    # With the sandbox all of them end.
    pillbox("kill", "pod", "KILL", check=0)
    same([ended(pid) for pid in pids.values()], [137] * len(pids))
    for name in [*pids, "pod"]:
        same(status(name), "stopped")
        pillbox("delete", name, check=0)
    reap()


def case_pods_wrong():
    """Errors in one line, and what a container cannot do to its neighbours."""
    become_subreaper()
    begin_pod()
    place, config = in_pod("one", "pod", "sleep", "1000")

    def refused(text, **change):
        write(place, {**config, **change})
        done = pillbox("create", "-b", str(place), "one")
        same((done.returncode, text in done.stderr, done.stderr.count("\n")), (1, True, 1), f"{text} in {done.stderr}")
        same("one" in pillbox("list", "-q", check=0).stdout.split(), False)

    def spaces(**paths):
        return {**config["linux"], "namespaces": [{"type": kind, "path": path} for kind, path in paths.items()]}

    kind, of = config["annotations"]
    refused("sandbox other of the pod does not exist", annotations={kind: "container", of: "other"})
    refused("no annotation io.kubernetes.cri.sandbox-id", annotations={kind: "container"})
    refused("not sandbox and not container", annotations={kind: "pod", of: "pod"})
    refused("ipc: /proc/1/ns/ipc is not of the pod", linux=spaces(ipc="/proc/1/ns/ipc"))
    refused("is not of the pod", linux=spaces(pid=f"/proc/{os.getpid()}/ns/pid"))
    refused("linux.sysctl", linux={**config["linux"], "sysctl": {"kernel.msgmax": "4096"}})
    refused("executable file not found", process={**config["process"], "args": ["nonesuch"]})
    refused("no such file", process={**config["process"], "args": ["/nonesuch"]})
    refused("nonesuch: ENOENT", root={"path": str(DIR / "nonesuch")})
    place, config = bundle("alone", "sleep", "1000")
    pillbox("run", "-d", "-b", str(place), "alone", check=0, quiet=True)
    place, config = in_pod("in-alone", "pod", "sleep", "1000")
    config["linux"]["namespaces"] = [{"type": "pid"}]
    config["annotations"][of] = "alone"
    config["linux"]["namespaces"].append({"type": "network"})
    write(place, config)
    same("no pod's" in pillbox("create", "-b", str(place), "in-alone", check=1).stderr, True)
    pillbox("delete", "--force", "alone", check=0)
    # Root in one container, with all capabilities, does not reach what is another's.
    (DIR / "secret").mkdir()
    (DIR / "secret/s").write_text("secret\n")
    place, config = in_pod("owner", "pod", "sleep", "1000")
    config["mounts"].append({"destination": "/s", "type": "bind", "source": str(DIR / "secret"), "options": ["rbind"]})
    write(place, config)
    pillbox("run", "-d", "-b", str(place), "owner", check=0, quiet=True)
    every = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_KILL", "CAP_MKNOD"]
    script = ("cat /proc/*/root/s/s; ls /../../s; kill -9 -1; mkdir /tmp/m; mount -t cgroup2 none /tmp/m && ls /tmp/m | grep -c owner;"
              "mount -t proc none /tmp/m; cat /tmp/m/*/root/s/s; true")
    place, config = in_pod("hostile", "pod", "sh", "-c", script,
                           capabilities={kind: every for kind in ["bounding", "effective", "permitted"]})
    write(place, config)
    done = pillbox("run", "-b", str(place), "hostile", check=0)
    same(("secret" in done.stdout, done.stdout), (False, "0\n"), done.stderr)
    same((status("owner"), status("pod"), inside("owner", "cat /s/s")), ("running", "running", "secret\n"))
    # A sandbox that has stopped takes nobody in.
    pillbox("kill", "pod", "KILL", check=0)
    wait_for("it ends", lambda: status("pod") == "stopped")
    place, config = in_pod("late", "pod", "sleep", "1000", share=())
    same("sandbox pod of the pod has stopped" in pillbox("create", "-b", str(place), "late", check=1).stderr, True)
    for name in ["owner", "pod"]:
        pillbox("delete", "--force", name, check=0)
    reap()


def case_together():
    """Commands at the same time."""
    places = [bundle(f"t{n}", "sleep", "1000")[0] for n in range(8)]
    begun = [subprocess.Popen(command("run", "-d", "-b", str(place), place.name), **NO_STREAMS) for place in places]
    same([child.wait(60) for child in begun], [0] * 8, "eight at once")
    same(len(pillbox("list", "-q", check=0).stdout.split()), 8)
    twice = [subprocess.Popen(command("create", "-b", str(places[0]), "twin"), **NO_STREAMS) for _ in range(4)]
    same(sorted(child.wait(60) for child in twice), [0, 1, 1, 1], "four of one name")
    gone = [subprocess.Popen(command("delete", "--force", name), **NO_STREAMS)
            for name in [*(place.name for place in places), "twin"] for _ in range(2)]
    # Whoever comes second finds none: that is no error, or it is one that says so.
    same({child.wait(60) for child in gone} <= {0, 1}, True)


def case_kills():
    """Kills at random moments."""
    generator = random.Random(12)
    place, _ = bundle("k", "sh", "-c", "while :; do sleep 0.01; done")
    for _ in range(20):
        verb = generator.choice(["create", "start", "exec", "delete"])
        made = subprocess.Popen(command("create", "-b", str(place), "k"), **NO_STREAMS)
        if verb != "create":
            made.wait(60)
            victim = {"start": ["start", "k"], "exec": ["exec", "k", "true"], "delete": ["delete", "-f", "k"]}[verb]
            if verb == "exec":
                pillbox("start", "k", check=0)
            made = subprocess.Popen(command(*victim), **NO_STREAMS)
        time.sleep(generator.random() * 0.04)
        if verb == "exec" and generator.random() < 0.5:
            state = json.loads(pillbox("state", "k", check=0).stdout)
            if state["pid"]:
                os.kill(state["pid"], signal.SIGKILL)
        made.kill()
        made.wait(60)
        pillbox("list", check=0)
        pillbox("delete", "--force", "k", check=0)
        same(list(STATE.iterdir()), [], f"state after a kill in {verb}")


NO_STREAMS = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def podman_environment(DIR=DIR, command=None):
    conf, storage = DIR / "containers.conf", DIR / "storage.conf"
    conf.write_text(f"""
[containers]
default_ulimits=["nofile=1000:1000","nproc=1000:1000"]
netns="none"
log_driver="k8s-file"
cgroup_conf=[]
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
runtime="pillbox"
tmp_dir="{DIR}/libpod"
[engine.runtimes]
pillbox=["{DIR}/runtime"]
""")
    # What cleans up after a container is not told of --runtime-flag.
    wrapper = DIR / "runtime"
    command = command or f"{PILLBOX} --root {STATE}"
    wrapper.write_text(f'#!/bin/sh\nexec {command} --platform {PLATFORM} "$@"\n')
    wrapper.chmod(0o755)
    storage.write_text(f'[storage]\ndriver="vfs"\ngraphroot="{DIR}/graph"\nrunroot="{DIR}/run"\n')
    os.environ.update(CONTAINERS_CONF=str(conf), CONTAINERS_STORAGE_CONF=str(storage))


def podman(*words, check=None, **more):
    return run(["podman", *words], check, **more)


def image():
    podman_environment()
    run(["tar", "-C", str(ROOTFS), "-cf", str(DIR / "image.tar"), "."], 0)
    podman("import", "--change", 'CMD ["/bin/sh"]', str(DIR / "image.tar"), "bb:1", check=0)


def case_podman_run():
    """podman run: statuses and streams, and what the command line says."""
    image()
    same(podman("run", "--rm", "bb:1", "echo", "hi", check=0).stdout, "hi\n")
    for words, expected in [(["true"], 0), (["false"], 1), (["/etc"], 126), (["nonesuch"], 127),
                            (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
                            (["sh", "-c", "sh -c 'kill -15 $$'; exit $?"], 143)]:
        podman("run", "--rm", "bb:1", *words, check=expected)
    same(podman("run", "--rm", "-i", "bb:1", "cat", text="piped\n", check=0).stdout, "piped\n")
    same(podman("run", "--rm", "-t", "bb:1", "tty", check=0).stdout, "/dev/pts/0\n")
    said = podman("run", "--rm", "-u", "5:6", "-w", "/tmp", "-e", "A=b", "--hostname", "h", "bb:1",
                  "sh", "-c", "id -u; id -g; pwd; echo $A; hostname", check=0).stdout
    same(said, "5\n6\n/tmp\nb\nh\n")
    done = podman("run", "--rm", "--read-only", "--tmpfs", "/t", "bb:1", "sh", "-c", "echo a > /t/x; cat /t/x; echo > /y")
    same((done.stdout, "Read-only" in done.stderr), ("a\n", True), done)
    volume = DIR / "volume"
    volume.mkdir()
    (volume / "f").write_text("outside\n")
    done = podman("run", "--rm", "-v", f"{volume}:/v:ro", "bb:1", "sh", "-c", "cat /v/f; echo > /v/f")
    same((done.stdout, "Read-only" in done.stderr), ("outside\n", True), done)
    podman("run", "--rm", "-v", f"{volume}:/v", "bb:1", "sh", "-c", "echo inside >> /v/f; mkdir /v/d; chown 7 /v/d", check=0)
    same(((volume / "f").read_text(), (volume / "d").stat().st_uid), ("outside\ninside\n", 7))
    same(podman("run", "--name", "made", "bb:1", "sh", "-c", "echo committed > /new; rm /etc/passwd", check=0).stdout, "")
    changed = podman("diff", "made", check=0).stdout.splitlines()
    same({"A /new", "D /etc/passwd"} <= set(changed), True, changed)
    podman("commit", "-q", "made", "bb:2", check=0)
    same(podman("run", "--rm", "bb:2", "cat", "/new", check=0).stdout, "committed\n")
    podman("rm", "made", check=0)
    same(podman("run", "--rm", "-m", "64m", "bb:1", "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=200 2>&1 | grep -c space",
                ).stdout, "1\n", "no more memory than that")


def goes_through_life(engine, *options, absent, running):
    """What an engine does with a container, from run to rm; `absent` is exec's status for a program that is not there, `running`
    what else holds while it runs."""
    engine("run", "-d", "--name", "box", *options, "bb:1", "sh", "-c",
           "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done", check=0)
    wait_for("its log", lambda: engine("logs", "box").stdout == "up\n")
    same(engine("exec", "-u", "65534", "-w", "/tmp", "-e", "A=b", "box", "sh", "-c", "id -u; pwd; echo $A; exit 5", check=5).stdout,
         "65534\n/tmp\nb\n")
    same(engine("exec", "-i", "box", "cat", text="in\n", check=0).stdout, "in\n")
    engine("exec", "box", "nonesuch", check=absent)
    engine("pause", "box", check=0)
    same(engine("inspect", "-f", "{{.State.Status}}", "box", check=0).stdout, "paused\n")
    engine("unpause", "box", check=0)
    same("box" in engine("stats", "--no-stream", "--format", "{{.Name}}", "box", check=0).stdout, True)
    running()
    engine("stop", "-t", "10", "box", check=0)
    same(engine("inspect", "-f", "{{.State.ExitCode}}", "box", check=0).stdout, "3\n", "a handler's status")
    engine("start", "box", check=0)
    engine("restart", "-t", "5", "box", check=0)
    engine("kill", "box", check=0)
    same(engine("wait", "box", check=0).stdout, "137\n")
    engine("rm", "box", check=0)
    # Nobody handles SIGTERM there.
    engine("run", "-d", "--name", "deaf", *options, "bb:1", "sleep", "1000", check=0)
    engine("stop", "-t", "1", "deaf", check=0)
    same(engine("inspect", "-f", "{{.State.ExitCode}}", "deaf", check=0).stdout, "137\n")
    engine("rm", "deaf", check=0)


def case_podman_life():
    """podman: exec, pause, stop, restart, logs, stats, update, rm."""
    image()

    def running():
        same(podman("exec", "-t", "box", "tty", check=0).stdout, "/dev/pts/0\n")

    goes_through_life(podman, absent=127, running=running)


def case_podman_ten():
    """Ten containers at once."""
    image()
    for n in range(10):
        podman("run", "-d", "--name", f"c{n}", "bb:1", "sleep", "1000", check=0)
    for n in range(10):
        same(podman("exec", f"c{n}", "hostname", check=0).stdout != "", True)
    same(len(podman("ps", "-q", check=0).stdout.split()), 10)
    podman("rm", "-f", "-a", "-t", "0", check=0, timeout=120)


def case_podman_user():
    """podman as an ordinary user: state in XDG_RUNTIME_DIR, no control groups, an id that is root in a user namespace."""
    nobody, home = 65534, DIR / "user"
    DIR.chmod(0o711)
    (home / "run").mkdir(parents=True)
    shutil.copy(PILLBOX, home / "pillbox")
    podman_environment(home, f"{home}/pillbox")
    run(["tar", "-C", str(ROOTFS), "-cf", str(home / "image.tar"), "."], 0)
    for path in [home, *home.iterdir()]:
        os.chown(path, nobody, nobody)
    os.environ.update(HOME=str(home), XDG_RUNTIME_DIR=str(home / "run"))
    (home / "run").chmod(0o700)

    def podman(*words, check=None, **more):
        given = {"cwd": str(home), "user": nobody, "group": nobody, "extra_groups": []}
        streams = {"stdin": subprocess.DEVNULL} if "input" not in more else {}
        done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=60, **given, **streams, **more)
        if check is not None and done.returncode != check:
            raise AssertionError(f"{words}: status {done.returncode}, not {check}: {done.stdout}{done.stderr}")
        return done

    podman("import", "--change", 'CMD ["/bin/sh"]', str(home / "image.tar"), "bb:1", check=0)
    same(podman("run", "--rm", "bb:1", "sh", "-c", "echo hi; id -u", check=0).stdout, "hi\n0\n")
    for words, expected in [(["false"], 1), (["/etc"], 126), (["nonesuch"], 127)]:
        podman("run", "--rm", "bb:1", *words, check=expected)
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    podman("run", "-d", "--name", "box", "bb:1", "sh", "-c", script, check=0)
    wait_for("its log", lambda: podman("logs", "box").stdout == "up\n")
    same(len(list((home / "run/pillbox/containers").iterdir())), 1, "its state")
    same(podman("exec", "box", "sh", "-c", "echo in; exit 5", check=5).stdout, "in\n")
    same(podman("exec", "-i", "box", "cat", input="in\n", check=0).stdout, "in\n")
    same(podman("exec", "-t", "box", "tty", check=0).stdout, "/dev/pts/0\n")
    podman("stop", "-t", "10", "box", check=0)
    same(podman("inspect", "-f", "{{.State.ExitCode}}", "box", check=0).stdout, "3\n", "a handler's status")
    (home / "f").write_text("copied\n")
    os.chown(home / "f", nobody, nobody)
    podman("cp", str(home / "f"), "box:/f", check=0)
    podman("start", "box", check=0)
    same(podman("exec", "box", "cat", "/f", check=0).stdout, "copied\n", "cp")
    podman("rm", "-f", "-t", "0", "box", check=0)
    same(list((home / "run/pillbox/containers").iterdir()), [], "nothing is left")
    # What holds its namespaces.
    for pause in home.glob("**/pause.pid"):
        os.kill(int(pause.read_text()), signal.SIGKILL)


class Daemon:
    """A program of ours that serves on a socket in DIR until the case is over."""

    def __init__(self, *words, ready):
        log = open(DIR / (words[0] + ".log"), "wb")
        self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.ready = ready

    def __enter__(self):
        wait_for("the daemon answers", lambda: self.ready().returncode == 0, 60)
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait(60)


def dockerd():
    """A daemon of its own, which knows no other runtime by name."""
    socket = f"unix://{DIR}/docker.sock"
    (DIR / "daemon.json").write_text(json.dumps({
        "data-root": f"{DIR}/docker", "exec-root": f"{DIR}/exec", "pidfile": f"{DIR}/docker.pid", "hosts": [socket],
        "storage-driver": "vfs", "iptables": False, "ip6tables": False, "ip-forward": False, "ip-masq": False,
        "userland-proxy": False, "bridge": "none", "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/{MARK}", "default-runtime": "pillbox",
        "runtimes": {"pillbox": {"path": PILLBOX, "runtimeArgs": ["--platform", PLATFORM, "--cpu-num-from-quota"]}},
    }))
    os.environ["DOCKER_HOST"] = socket
    os.environ["DOCKER_CONFIG"] = str(DIR / "client")
    return Daemon("dockerd", "--config-file", str(DIR / "daemon.json"), ready=lambda: docker("version"))


def docker(*words, check=None, **more):
    return run(["docker", *words], check, **more)


def docker_image():
    run(["tar", "-C", str(ROOTFS), "-cf", str(DIR / "image.tar"), "."], 0)
    docker("import", "--change", 'CMD ["/bin/sh"]', str(DIR / "image.tar"), "bb:1", check=0)


def docker_run(*words, check=None, **more):
    return docker("run", "--rm", "--network", "none", *words, check=check, **more)


def case_docker_run():
    """docker run: statuses and streams, and what the command line says."""
    with dockerd():
        docker_image()
        for words, expected in [(["true"], 0), (["false"], 1), (["/etc"], 126), (["nonesuch"], 127),
                                (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
                                (["sh", "-c", "sh -c 'kill -15 $$'; exit $?"], 143)]:
            docker_run("bb:1", *words, check=expected)
        done = docker_run("-i", "bb:1", "cat", text="piped\n", check=0)
        same((done.stdout, done.stderr), ("piped\n", ""), "nothing but what the program says")
        said = docker_run("-u", "5:6", "-w", "/tmp", "-e", "A=b", "--hostname", "h", "--ulimit", "nofile=100:200", "bb:1",
                          "sh", "-c", "id -u; id -g; pwd; echo $A; hostname; ulimit -n; ulimit -Hn", check=0).stdout
        same(said, "5\n6\n/tmp\nb\nh\n100\n200\n")
        done = docker_run("--read-only", "--tmpfs", "/t:size=1m", "--shm-size", "2m", "bb:1", "sh", "-c",
                          "df -k /t /dev/shm | awk '{ print $2 }'; echo > /y")
        same((done.stdout, "Read-only" in done.stderr), ("1K-blocks\n1024\n2048\n", True), done)
        same(docker_run("--init", "bb:1", "sh", "-c", "cat /proc/1/comm", check=0).stdout, "docker-init\n")
        same(docker_run("--cap-drop", "ALL", "bb:1", "grep", "CapBnd", "/proc/self/status", check=0).stdout.split()[1], "0" * 16)
        same(docker_run("--device", "/dev/zero:/dev/zz", "bb:1", "sh", "-c", "head -c 3 /dev/zz | wc -c", check=0).stdout, "3\n")
        same(docker_run("--sysctl", "kernel.msgmax=4096", "bb:1", "cat", "/proc/sys/kernel/msgmax", check=0).stdout, "4096\n")
        said = docker_run("-m", "64m", "--cpus", "1", "bb:1", "sh", "-c",
                          "nproc; dd if=/dev/zero of=/dev/shm/x bs=1M count=200 2>&1 | grep -c space").stdout
        same(said, "1\n1\n", "one CPU, and no more memory than that")
        profile = DIR / "profile.json"
        profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]}))
        done = docker_run("--security-opt", f"seccomp={profile}", "bb:1", "mkdir", "/d", check=1)
        same("Input/output" in done.stderr, True, done)
        many = [subprocess.Popen(["docker", "run", "--rm", "--network", "none", "bb:1", "true"], **NO_STREAMS) for _ in range(10)]
        same([child.wait(60) for child in many], [0] * 10, "ten at once")


def case_docker_life():
    """docker: exec, cp, diff, commit, pause, stop, restart, logs, top, stats, update, rm."""
    def running():
        # Both sides see what the other has made.
        (DIR / "given").write_text("from outside\n")
        docker("cp", str(DIR / "given"), "box:/root/given", check=0)
        same(docker("exec", "box", "sh", "-c", "cat /root/given; echo made > /root/made", check=0).stdout, "from outside\n")
        docker("cp", "box:/root/made", str(DIR / "made"), check=0)
        same((DIR / "made").read_text(), "made\n")
        changes = docker("diff", "box", check=0).stdout.splitlines()
        same({"A /root/given", "A /root/made"} <= set(changes), True, changes)
        same(len(docker("top", "box", check=0).stdout.splitlines()), 2)
        same(docker("stats", "--no-stream", "--format", "{{.Name}}", "box", check=0).stdout, "box\n")
        docker("commit", "box", "bb:2", check=0)
        volume = DIR / "volume"
        volume.mkdir()
        (volume / "given").write_text("from outside\n")
        done = docker_run("-v", f"{volume}:/v", "bb:2", "sh", "-c", "cat /root/made /v/given; echo inside > /v/made", check=0)
        same((done.stdout, (volume / "made").read_text()), ("made\nfrom outside\n", "inside\n"))
        docker("update", "-m", "128m", "--memory-swap", "256m", "box", check=0)
        total = docker("exec", "box", "grep", "MemTotal", "/proc/meminfo", check=0).stdout.split()[1]
        same(64 << 10 < int(total) <= 128 << 10, True, total)

    with dockerd():
        docker_image()
        goes_through_life(docker, "--network", "none", absent=126, running=running)


def case_containerd():
    """ctr: run, exec, kill, rm."""
    (DIR / "containerd.toml").write_text(f"""
version = 2
root = "{DIR}/containerd"
state = "{DIR}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{DIR}/containerd.sock"
""")

    def ctr(*words, check=None, **more):
        return run(["ctr", "-a", f"{DIR}/containerd.sock", *words], check, **more)

    with Daemon("containerd", "-c", str(DIR / "containerd.toml"), ready=lambda: ctr("version")):
        runs = ["run", "--runc-binary", PILLBOX, "--cgroup", f"/{MARK}/c", "--rootfs"]
        same(ctr(*runs, "--rm", str(ROOTFS), "one", "sh", "-c", "echo hi; exit 4", check=4).stdout, "hi\n")
        ctr(*runs, "-d", str(ROOTFS), "two", "sleep", "1000", check=0)
        same(ctr("task", "exec", "--exec-id", "e", "two", "sh", "-c", "echo in; exit 5", check=5).stdout, "in\n")
        same("RUNNING" in ctr("task", "ls", check=0).stdout, True)
        ctr("task", "pause", "two", check=0)
        same("PAUSED" in ctr("task", "ls", check=0).stdout, True)
        ctr("task", "resume", "two", check=0)
        ctr("task", "kill", "-s", "KILL", "-a", "two", check=0)
        wait_for("it ends", lambda: "STOPPED" in ctr("task", "ls", check=0).stdout)
        ctr("task", "rm", "two")
        ctr("container", "rm", "two", check=0)


def left():
    """What is still there of this case."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(str(DIR) in word for word in words) and words[0] != "podman":
                found.append(" ".join(words))
    mounts = pathlib.Path("/proc/self/mounts").read_text().splitlines()
    # The storage's own directory is a mount of podman's, while there is a storage.
    found += [line for line in mounts if str(DIR) in line and "/graph" not in line.split()[1]]
    found += [str(path) for path in pathlib.Path("/sys/fs/cgroup").glob(f"**/{MARK}/*/")]
    if STATE.exists():
        found += [str(path) for path in STATE.iterdir()]
    return found


def clean():
    if STATE.exists():
        for entry in STATE.iterdir():
            pillbox("delete", "--force", entry.name)
    for line in reversed(pathlib.Path("/proc/self/mounts").read_text().splitlines()):
        if str(DIR) in line:
            subprocess.run(["umount", "-l", line.split()[1]], check=False)
    for path in pathlib.Path("/sys/fs/cgroup").glob(f"**/{MARK}"):
        for below in path.glob("*/"):
            below.rmdir()
        path.rmdir()
    shutil.rmtree(DIR, ignore_errors=True)


def main():
    try:
        root()
        STATE.mkdir()
        globals()[f"case_{CASE}"]()
        wait_for_nothing = time.monotonic() + 10
        while (there := left()) and time.monotonic() < wait_for_nothing:
            reap()
            time.sleep(0.1)
        same(there, [], "left behind")
    finally:
        clean()


main()
