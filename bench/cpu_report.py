# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of bench/cpu: a row's figure is units of work per CPU second, compared as ratios of medians; the spread is the
lowest and highest ratio of the rounds, whose engines ran one after the other."""
import json
import math
import statistics

TCG = ("max", "qemu64")
GROUPS = ["integer", "fp", "memory", "crypto", "kernel", "special", "apps", "smp", "boot"]
# Issue 3: how many times faster than TCG, as geometric means; the rest must be ahead.
BARS = [("integer", ["integer"], 2.0), ("applications", ["apps"], 2.0), ("kernel", ["kernel"], 1.5),
        ("floating point, SIMD, memory, crypto", ["fp", "memory", "crypto"], 10.0), ("boot", ["boot"], 1.7)]
SCALE_BAR = 1.9


def geometric_mean(values):
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else None


class Row:
    """All samples of one row: {engine: [Sample or None a round]}, {engine: why there are none}."""

    def __init__(self, name, group, rounds):
        self.name, self.group, self.rounds = name, group, rounds
        self.samples, self.why = {}, {}

    def add(self, engine, turn, sample):
        self.samples.setdefault(engine, [None] * self.rounds)[turn] = sample

    def rates(self, engine, wall=False):
        """Units a second of each round that was measured."""
        return [s and s.units / (s.wall_s if wall else s.cpu_s) for s in self.samples.get(engine, [])]

    def rate(self, engine, wall=False):
        rates = [r for r in self.rates(engine, wall) if r]
        return statistics.median(rates) if rates else None

    def tcg(self, wall=False):
        """The better model's name."""
        known = [e for e in TCG if self.rate(e)]
        return max(known, key=lambda e: self.rate(e, wall)) if known else None

    def slowdown(self, engine):
        native, other = self.rate("native"), self.rate(engine) if engine else None
        return native / other if native and other else None

    def lead(self, wall=False, over=None):
        """Ours over TCG's better, or over another engine: (ratio, lowest, highest); None without both."""
        over = over or self.tcg(wall)
        if not over or not self.rate(over) or not self.rate("ours"):
            return None
        pairs = [o / t for o, t in zip(self.rates("ours", wall), self.rates(over, wall)) if o and t]
        ratio = self.rate("ours", wall) / self.rate(over, wall)
        return ratio, min(pairs, default=ratio), max(pairs, default=ratio)

    def checksums(self):
        """{engine: checksum}; boot rows and missing ones left out."""
        return {e: next((s.checksum for s in samples if s), "") for e, samples in self.samples.items()
                if any(samples)}

    def differs(self):
        return len(set(self.checksums().values())) > 1


def number(value, width=8):
    if value is None:
        return "-".rjust(width)
    return f"{value:{width}.2f}" if value < 100 else f"{value:{width}.0f}"


def rate_text(value):
    if value is None:
        return "-"
    for scale, unit in ((1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"


def print_group(group, rows):
    print(f"\n{group:22}{'native':>9}{'ours':>9}{'TCG':>9} {'model':7}{'ours/TCG':>9}  {'spread':15}{'by wall':>8}")
    for row in rows:
        lead, wall, tcg = row.lead(), row.lead(wall=True), row.tcg()
        spread = f"{lead[1]:.2f} to {lead[2]:.2f}" if lead else ""
        notes = []
        if lead and lead[0] <= 1:
            notes.append("BEHIND")
        if row.differs():
            notes.append("RESULTS DIFFER: " + ", ".join(f"{e} {c}" for e, c in row.checksums().items()))
        notes += [f"{engine}: {why}" for engine, why in row.why.items() if engine != "qemu64" or not tcg]
        if group == "boot":
            cells = [f"{1 / r:8.2f}s" if r else f"{'-':>9}" for r in (row.rate("ours"), row.rate(tcg) if tcg else None)]
            figures = f"{'-':>9}" + "".join(cells)
        else:
            figures = (f"{rate_text(row.rate('native')):>9} {number(row.slowdown('ours'))} "
                       f"{number(row.slowdown(tcg))}")
            if not row.rate("native"):  # no slowdown to tell: plain rates
                plain = [rate_text(r) + "/s" if r else "-" for r in (row.rate("ours"), row.rate(tcg) if tcg else None)]
                figures = f"{'-':>9}{plain[0]:>9}{plain[1]:>9}"
        print(f"{row.name:22}{figures} {tcg or '':7}{number(lead and lead[0], 9)}  {spread:15}"
              f"{number(wall and wall[0])}  {'; '.join(notes)}".rstrip())
    means = [geometric_mean([v for v in values if v]) for values in (
        [r.slowdown("ours") for r in rows], [r.slowdown(r.tcg()) for r in rows],
        [r.lead()[0] for r in rows if r.lead()])]
    if len(rows) > 1:
        print(f"{'geometric mean':22}{'':9} {number(means[0])} {number(means[1])} {'':7}{number(means[2], 9)}")


def own_rate(row, engine, workers):
    """Units a second as if the host were ours alone: what the workers' threads waited for a host CPU is taken out."""
    rates = [s.units / max(s.wall_s - sum(s.queued_s[:workers]) / workers, 1e-6)
             for s in row.samples.get(engine, []) if s]
    return statistics.median(rates) if rates else None


def scaling(rows):
    """Two workers over one: {title: {engine: (by time, by CPU)}}. By CPU: twice what a CPU second gave alone is 2."""
    named = {row.name: row for row in rows if row.group == "smp"}
    found = {}
    for name, one in named.items():
        two = named.get(name[:-2] + "-2")
        if not name.endswith("-1") or not two:
            continue
        for engine in one.samples:
            alone, both = own_rate(one, engine, 1), own_rate(two, engine, 2)
            if alone and both:
                found.setdefault(name[:-2], {})[engine] = (both / alone, 2 * two.rate(engine) / one.rate(engine))
    return found


def print_scaling(rows):
    table = scaling(rows)
    if not table:
        return
    names = [e for e in ("native", "ours", *TCG) if any(e in line for line in table.values())]
    print(f"\n{'two vCPUs over one':22}" + "".join(f"{n:>17}" for n in names)
          + "   (by time less waits for a host CPU, which native's has; by CPU time)")
    for title, line in table.items():
        print(f"{title:22}" + "".join(f"{line[n][0]:10.2f} {line[n][1]:6.2f}" if n in line else f"{'-':>17}"
                                      for n in names))


def verdict(title, value, bar):
    met = "-" if value is None else "met" if value >= bar else f"NOT MET, {value / bar:.2f} of it"
    print(f"{title:42}{number(value)}   bar {bar:5.2f}   {met}")


def print_summary(rows):
    print("\nours over TCG's better model, geometric means of work per CPU second")
    for title, groups, bar in BARS:
        leads = [r.lead()[0] for r in rows if r.group in groups and r.lead()]
        verdict(title, geometric_mean(leads), bar)
    compute = scaling(rows).get("compute", {}).get("ours")
    verdict("two vCPUs, compute, by time", compute and compute[0], SCALE_BAR)
    compared = [r for r in rows if r.lead()]
    behind = sorted((r.lead()[0], r.name) for r in compared if r.lead()[0] <= 1)
    print(f"{len(compared) - len(behind)} of {len(compared)} rows ahead"
          + ("; behind: " + ", ".join(f"{name} {ratio:.2f}" for ratio, name in behind) if behind else ""))
    failed = [f"{r.name} ({e}: {why})" for r in rows for e, why in r.why.items() if e != "qemu64" or not r.tcg()]
    if failed:
        print("without a figure: " + ", ".join(failed))
    differing = [r.name for r in rows if r.differs()]
    if differing:
        print("results differ: " + ", ".join(differing))
    return not differing


def print_all(rows):
    for group in GROUPS:
        members = [r for r in rows if r.group == group]
        if members:
            print_group(group, members)
    print_scaling(rows)
    return print_summary(rows)


def print_stats(stats):
    """Ours' counters, the largest first."""
    print("\nours, counted in a CPU second")
    for row, counters in stats.items():
        largest = sorted(counters.items(), key=lambda item: -item[1])
        print(f"{row:22}" + "  ".join(f"{name} {rate_text(value)}" for name, value in largest))


def print_base(rows):
    """Ours over the other ruche-vmm, which ran in the same rounds."""
    print("\nours over base")
    leads = [(row.lead(over="base"), row.name) for row in rows if row.lead(over="base")]
    for (ratio, low, high), name in sorted(leads):
        print(f"{name:22}{number(ratio)}  {low:.2f} to {high:.2f}")
    print(f"{'geometric mean':22}{number(geometric_mean([lead[0] for lead, _ in leads]))}")


def print_changes(rows, path):
    """Ours against a former run's --json, corrected by what the machine did natively in both runs."""
    with open(path, encoding="utf-8") as file:
        former = {entry["row"]: entry["samples"] for entry in json.load(file)}

    def rate(samples):
        rates = [s["units"] / s["cpu_s"] for s in samples or [] if s]
        return statistics.median(rates) if rates else None

    print(f"\nours against {path}")
    ratios = []
    for row in rows:
        before = rate(former.get(row.name, {}).get("ours"))
        if before and row.rate("ours"):
            native = rate(former[row.name].get("native"))
            machine = row.rate("native") / native if native and row.rate("native") else 1
            ratios.append((row.rate("ours") / before / machine, row.name))
    for ratio, name in sorted(ratios):
        if not 0.95 < ratio < 1.05:
            print(f"{name:22}{number(ratio)}")
    print(f"{'geometric mean':22}{number(geometric_mean([r for r, _ in ratios]))}")


def as_json(rows):
    return [{"row": r.name, "group": r.group, "tcg": r.tcg(), "lead": r.lead(), "lead_wall": r.lead(wall=True),
             "slowdown": {e: r.slowdown(e) for e in r.samples}, "why": r.why,
             "samples": {e: [s and s._asdict() for s in samples] for e, samples in r.samples.items()}} for r in rows]
