"""CPython's own tests, natively and in a sandbox, as a table: python3 cpython.py PILLBOX LOGS [MODULE...].

Takes Debian's libpython3.11-testsuite and about half an hour. What was said is kept in the directory LOGS; modules that have been run
are not run again.
"""

import os
import re
import subprocess
import sys

PYTHON = "/usr/bin/python3.11"
MODULES = """os posix subprocess signal threading mmap select selectors io fileio pty fcntl resource time tempfile shutil
multiprocessing_fork multiprocessing_spawn multiprocessing_forkserver concurrent_futures asyncio faulthandler eintr
socket ssl httplib ftplib urllib2_localnet socketserver epoll smtplib xmlrpc poll httpservers""".split()
# Sockets between virtual machines take a machine that answers.
LEFT_OUT = ["-i", "*VSOCK*"]
SECONDS = 900


def said(log, command):
    if not os.path.exists(log):
        with open(f"{log}.new", "w") as out:
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                out.write("\nERROR: it did not end\n")
        os.rename(f"{log}.new", log)
    with open(log, errors="replace") as text:
        return text.read()


def outcome(text):
    """How many tests ran, how many of those were skipped, and which failed."""
    ran = sum(int(n) for n in re.findall(r"^Ran (\d+) tests?", text, re.M))
    skipped = sum(int(n) for n in re.findall(r"skipped=(\d+)", text))
    return ran, skipped, set(re.findall(r"^(?:FAIL|ERROR): (?:\S+ \()?([^)\s]+)", text, re.M))


def main():
    pillbox, logs, *modules = sys.argv[1:]
    os.makedirs(logs, exist_ok=True)
    print("| module | run | skipped | failed natively | failed inside |\n|---|---|---|---|---|")
    for module in modules or MODULES:
        # What this one calls a network is the loopback interface.
        more = ["-u", "network"] if module == "socketserver" else []
        test = [PYTHON, "-m", "test", "-v", *LEFT_OUT, *more, f"test_{module}"]
        native = outcome(said(f"{logs}/n.{module}", test))
        inside = outcome(said(f"{logs}/i.{module}", [pillbox, "do", "--network", "none", "--", *test]))
        both = [f"{a}" if a == b else f"{a}, inside {b}" for a, b in zip(native[:2], inside[:2])]
        print(f"| test_{module} | {both[0]} | {both[1]} | {len(native[2])} | {len(inside[2])} |", flush=True)
        for name in sorted(inside[2] - native[2]):
            print(f"inside only: {name}", file=sys.stderr)


main()
