#!/bin/bash
# A bit of everything that a build script does. Its output must not depend on where it runs.
set -u
shopt -s extglob nullglob
work=$(mktemp -d /tmp/script.XXXXXX)
cd "$work" || exit 1

echo "== variables and arithmetic"
declare -A ages=([ada]=36 [alan]=41 [grace]=85)
for name in $(printf '%s\n' "${!ages[@]}" | sort); do
    printf '%-6s %3d\n' "$name" "$((ages[$name] + 1))"
done
fib() { if (($1 < 2)); then echo "$1"; else echo $(($(fib $(($1 - 1))) + $(fib $(($1 - 2))))); fi; }
echo "fib 8 = $(fib 8)"

echo "== files"
mkdir -p tree/{a,b}/{1,2,3}
for dir in tree/*/*; do echo "${dir##*/} in ${dir%/*}" >"$dir/note"; done
ln -s ../a tree/b/link
cp -r tree/a tree/c && mv tree/c/1 tree/c/one && rm -r tree/c/2
chmod 640 tree/a/1/note && touch -d '2001-02-03 04:05:06 UTC' tree/a/1/note
find tree -printf '%P %y %m\n' | grep -v '^ ' | LC_ALL=C sort
TZ=UTC stat -c '%n %s %Y %A' tree/a/1/note
du -a tree/b | wc -l
cat tree/*/*/note | sort | uniq -c | sort -rn | sed 's/^ *//'

echo "== pipes and processes"
seq 1 20000 >numbers
wc -l -c <numbers
tac numbers | head -3 | paste -sd, -
shuf -i 1-500 --random-source=numbers | sort -n | tail -2
dd if=/dev/zero bs=1M count=3 2>/dev/null | sha256sum
mkfifo turn; { read -r <turn; echo second; } & { echo first; echo >turn; } & wait
(exit 9) || echo "subshell returned $?"
coproc UPPER { while read -r line; do echo "${line^^}"; done; }
echo "through a coprocess" >&"${UPPER[1]}"; read -r answer <&"${UPPER[0]}"; echo "$answer"
trap 'echo "caught USR1"' USR1; kill -USR1 $$
timeout 0.1 sleep 5; echo "timeout returned $?"
diff <(sort -R numbers | sort -n) numbers && echo "sorted again"
xargs -n 100 <numbers echo | awk '{ sum += $NF } END { print NR, sum }'

echo "== python"
python3 - "$work" <<'PY'
import hashlib, json, os, re, subprocess, sys, threading
os.chdir(sys.argv[1])
totals = {}
for path, dirs, files in sorted(os.walk("tree")):
    dirs.sort()
    totals[path] = len(files)
print(json.dumps(totals, sort_keys=True))
found = []
threads = [threading.Thread(target=lambda n=n: found.append(sum(range(n * 1000)))) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(found))
out = subprocess.run(["wc", "-l", "numbers"], capture_output=True, text=True).stdout
print(re.sub(r"\s+", " ", out).strip(), hashlib.sha1(open("numbers", "rb").read()).hexdigest())
r, w = os.pipe()
if os.fork() == 0:
    os.write(w, b"from the child"); os._exit(5)
print(os.read(r, 100).decode(), os.waitstatus_to_exitcode(os.wait()[1]))
try:
    open("missing/file")
except OSError as error:
    print(type(error).__name__, error.errno)
PY
echo "python returned $?"
gzip -9n <numbers | gzip -d | cmp - numbers && echo "gzip round trip"
tar -C tree -cf - a | tar -tf - | LC_ALL=C sort | head -4
cd / && rm -r "$work" && echo "== done"
