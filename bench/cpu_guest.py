# SPDX-License-Identifier: GPL-2.0-or-later
"""What bench/cpu runs: the rows' static binary, their data, and the guests' initial file systems.

Made once, into a folder of the cache named by a hash of what it is made from. The guest gets the host's own copies of
Debian's programs, so that all engines run the same bytes.
"""
import gzip
import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
ROWS = os.path.join(ROOT, "bench", "rows")

CFLAGS = ["-O2", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-unused-parameter",
          "-Wno-missing-field-initializers", "-fno-toplevel-reorder"]
# fp.c is compiled once for each.
VARIANTS = {
    "sse2": ["-O3", "-ffp-contract=off", "-DVECTOR=16", "-DVARIANT_NEEDS=ROW_NEEDS_NOTHING"],
    "avx2": ["-O3", "-mavx2", "-mfma", "-DVECTOR=32", "-DVARIANT_NEEDS=ROW_NEEDS_AVX2"],
}
PROGRAMS = ["openssl", "gzip", "xz", "python3.11", "sqlite3", "dash", "bash", "mawk", "gawk", "env"]
PYTHON = "/usr/lib/python3.11"
PYTHON_FOLDERS = ["__pycache__", "collections", "encodings", "importlib", "json", "lib-dynload", "re"]

LOOP_PY = """\
def primes(limit):
    found = []
    for n in range(2, limit):
        for p in found:
            if p * p > n:
                found.append(n)
                break
            if n % p == 0:
                break
        else:
            found.append(n)
    return found

class Account:
    def __init__(self):
        self.sums = {}
    def add(self, key, value):
        self.sums[key] = self.sums.get(key, 0) + value

a = Account()
for i, p in enumerate(primes(6000)):
    a.add(p % 97, i)
words = " ".join(str(k * v) for k, v in sorted(a.sums.items())).split()
print(len(words), sum(map(int, words)), max(words))
"""
QUERIES_SQL = """\
create table t(id integer primary key, name text, value real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000)
insert into t select i, 'name' || (i * 7919 % 1000), i * 0.5 from n;
create index t_name on t(name);
select count(*), sum(value), min(name), max(name) from t;
select name, count(*) c, avg(value) from t group by name order by c desc, name limit 5;
select sum(a.value * b.value) from t a join t b on a.name = b.name where a.id < 1000;
update t set value = value + 1 where id % 3 = 0;
select total(value) from t where name like '%77%';
"""
LOOP_SH = """\
i=0 sum=0
step() {
    case $1 in *7) sum=$((sum + $1)) ;; *) sum=$((sum ^ $1)) ;; esac
}
while [ $i -lt 8000 ]; do
    step $i
    text="$i-${i%5}"
    i=$((i + 1))
done
echo $sum $text
"""
WORDS_AWK = """\
{ for (i = 1; i <= NF; i++) { count[$i]++; length_sum += length($i) } if ($0 ~ /ab+c/) hits++ }
END { for (w in count) if (count[w] > most || count[w] == most && w < best) { most = count[w]; best = w }
      print NR, length_sum, hits + 0, best, most }
"""


def text(size):
    """Words with the frequencies of a language, always the same."""
    rng = random.Random(42)
    letters = "eeeetttaaooiinnsshhrrddlcumwfgypbvk"
    words = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 9))) for _ in range(3000)]
    out, used = [], 0
    while used < size:
        line = " ".join(words[min(int(rng.paretovariate(0.9)), len(words) - 1)] for _ in range(rng.randint(4, 14)))
        out.append(line)
        used += len(line) + 1
    return "\n".join(out).encode() + b"\n"


def make_data(folder):
    os.mkdir(folder)
    words = text(600_000)
    files = {"text": words, "text.gz": gzip.compress(words, 6, mtime=0), "binary": random.Random(1).randbytes(8 << 20),
             "loop.py": LOOP_PY.encode(), "queries.sql": QUERIES_SQL.encode(), "loop.sh": LOOP_SH.encode(),
             "words.awk": WORDS_AWK.encode()}
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as out:
            out.write(content)


def compile_rows(folder):
    """The static binary: a program on the host, and the guest's init."""
    units = []
    for name in sorted(os.listdir(ROWS)):
        if name == "fp.c":
            units += [(name, f"fp-{v}.o", [*flags, f'-DVARIANT="{v}"']) for v, flags in VARIANTS.items()]
        elif name.endswith(".c"):
            units.append((name, name[:-2] + ".o", []))
    objects = []
    for source, name, flags in units:
        objects.append(os.path.join(folder, name))
        subprocess.run(["gcc", *CFLAGS, *flags, "-c", os.path.join(ROWS, source), "-o", objects[-1]], check=True)
    binary = os.path.join(folder, "rows")
    subprocess.run(["gcc", "-static", "-o", binary, *objects, "-lm"], check=True)
    for path in objects:
        os.unlink(path)
    return binary


class Archive:
    """A cpio archive in the "newc" form, as the kernel unpacks it."""

    def __init__(self, path):
        self.out = open(path, "wb")  # pylint: disable=consider-using-with
        self.seen = set()

    def entry(self, name, mode, content=b"", mtime=0):
        fields = [len(self.seen) + 1, mode, 0, 0, 1, int(mtime), len(content), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        self.out.write(head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4))
        self.seen.add(name)

    def folders(self, name):
        parts = name.split("/")[:-1]
        for i in range(1, len(parts) + 1):
            folder = "/".join(parts[:i])
            if folder not in self.seen:
                self.entry(folder, stat.S_IFDIR | 0o755)

    def file(self, source, name=None):
        name = (name or source).lstrip("/")
        if name in self.seen:
            return
        self.folders(name)
        with open(source, "rb") as content:
            status = os.fstat(content.fileno())
            self.entry(name, stat.S_IFREG | stat.S_IMODE(status.st_mode), content.read(), status.st_mtime)

    def link(self, name, target):
        self.folders(name)
        self.entry(name, stat.S_IFLNK | 0o777, target.encode())

    def close(self):
        self.entry("TRAILER!!!", 0)
        self.out.close()


def libraries(path):
    """Paths of a program's shared libraries and of its loader."""
    listing = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return re.findall(r"(/\S+) \(0x", listing.stdout)


def python_files():
    for name in sorted(os.listdir(PYTHON)):
        if name.endswith(".py"):
            yield os.path.join(PYTHON, name)
    for folder in PYTHON_FOLDERS:
        for place, _, names in os.walk(os.path.join(PYTHON, folder)):
            yield from (os.path.join(place, name) for name in sorted(names))


def make_archives(folder, binary, data):
    boot = Archive(os.path.join(folder, "boot.cpio"))
    boot.file(binary, "init")
    boot.close()
    rows = Archive(os.path.join(folder, "rows.cpio"))
    rows.file(binary, "init")
    for link in ("bin", "lib", "lib64"):
        rows.link(link, f"usr/{link}")
    for program in PROGRAMS:
        path = f"/usr/bin/{program}"
        if os.path.exists(path):
            rows.file(path)
            for library in libraries(path):
                rows.file(library, library if library.startswith("/usr") else "/usr" + library)
    for path in python_files():
        rows.file(path)
        if path.endswith(".so"):
            for library in libraries(path):
                rows.file(library, library if library.startswith("/usr") else "/usr" + library)
    if os.path.exists("/usr/lib/ssl/openssl.cnf"):
        rows.file("/usr/lib/ssl/openssl.cnf")
    for name in sorted(os.listdir(data)):
        rows.file(os.path.join(data, name), f"bench/{name}")
    rows.close()


def fingerprint():
    """A hash of all that the folder is made from."""
    sources = [os.path.abspath(__file__), *(os.path.join(ROWS, n) for n in sorted(os.listdir(ROWS)))]
    total = hashlib.sha256()
    for path in sources:
        with open(path, "rb") as content:
            total.update(content.read())
    for program in PROGRAMS:
        path = f"/usr/bin/{program}"
        for used in [path, *libraries(path)] if os.path.exists(path) else []:
            status = os.stat(used)
            total.update(f"{used} {status.st_size} {status.st_mtime_ns}".encode())
    return total.hexdigest()[:12]


def build():
    """The folder with rows, data/, rows.cpio and boot.cpio."""
    cache = os.environ.get("RUCHE_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ruche")
    os.makedirs(cache, exist_ok=True)
    folder = os.path.join(cache, f"bench-{fingerprint()}")
    if os.path.isdir(folder):
        return folder
    work = tempfile.mkdtemp(prefix="building.", dir=cache)
    try:
        make_data(os.path.join(work, "data"))
        make_archives(work, compile_rows(work), os.path.join(work, "data"))
        os.chmod(work, 0o755)
        os.rename(work, folder)
    except OSError:
        if not os.path.isdir(folder):  # else: somebody else built it meanwhile
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def kernel():
    """Debian's kernel, from the guest that ./run boots."""
    done = subprocess.run([os.path.join(ROOT, "tools", "guest-image")], check=True, stdout=subprocess.PIPE, text=True)
    return os.path.join(done.stdout.strip(), "vmlinuz")
