#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the bare-metal payloads in ruche-vmm, on each accelerator that is here, and reports in TAP.

A payload says "FAILED ..." for what is wrong, and ends the machine through isa-debug-exit: status 1 is success.
A hostile payload stays in the machine instead; then QMP must answer and the process must not have grown.
"""
import argparse
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 3  # how much slower than ours a host's processors may be
INTERPRETED = 'soft,translate=off'
LOCKSTEP = 'soft,translate=lockstep'
OK = 1  # (0 << 1) | 1


@dataclasses.dataclass
class Case:
    payload: str
    cpus: tuple = (1,)
    append: str = ''
    status: int = OK
    expect: str = 'checks passed, 0 failed'  # a regular expression in the output
    args: tuple = ()                         # {tmp} is a folder of this run
    machine: str = 'q35'
    memory: str = '64M'
    limit: int = 20                          # seconds on soft, of a core (see Run.overdue)
    kvm_limit: int = 120
    kvm: str = 'quick'                       # its suite on KVM; 'hardware': not on one in software
    suite: str = 'quick'
    full_cpus: tuple = ()                    # more vCPU counts, suite full only
    hostile: bool = False
    lockstep: bool = False                   # also with the interpreter beside the translator, in suite full
    breaks: bool = False                     # QMP must tell of a device that stopped
    reboot: bool = False                     # the machine may come back after a reset
    files: tuple = ()                        # (name in {tmp}, what it must hold) at the end
    name: str = ''


BLK = ('-drive', 'file={tmp}/disk.img,format=raw,if=none,id=d0,discard=unmap',
       '-device', 'virtio-blk-pci,drive=d0,packed=on')
RNG = ('-device', 'virtio-rng-pci')
CONSOLE = ('-chardev', 'file,id=c0,path={tmp}/console', '-device', 'virtio-serial-pci',
           '-device', 'virtconsole,chardev=c0')
NET = ('-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0')
ALL = BLK + RNG + CONSOLE + NET
CASES = [
    Case('hello', name='hello-exit', append='a=1 exit=21', status=43, expect=r'command line: .*a=1 exit=21'),
    Case('hello', cpus=(1, 2)),
    Case('hello', name='hello-microvm', machine='microvm'),
    Case('smp', name='smp-microvm', machine='microvm', cpus=(2,), kvm='full'),
    Case('exceptions', lockstep=True),
    Case('triple', status=0, expect='triple fault'),
    Case('paging', kvm='full'),
    Case('smp', cpus=(1, 2), full_cpus=(8, 64), limit=60, kvm_limit=300, kvm='full'),
    Case('smp', name='smp-x2apic', cpus=(2,), append='x2apic=1', limit=60, kvm='full'),
    Case('smc', cpus=(1, 2), kvm='full'),
    Case('random', append='programs=80', lockstep=True, kvm='hardware', limit=60),
    Case('random', name='random-long', append='programs=800 seed=77', kvm='hardware', suite='full', limit=120),
    Case('returns', lockstep=True, kvm='hardware'),
    Case('smc_map', args=BLK, lockstep=True, kvm='hardware'),
    Case('smc_shapes', lockstep=True, kvm='hardware', limit=60),
    Case('xmc', cpus=(2,), kvm='hardware', limit=60),
    Case('xmc', name='xmc-many', append='turns=10', cpus=(8,), kvm='hardware', suite='full', limit=120),
    Case('xmc', name='xmc-long', append='turns=2000', cpus=(2,), kvm='hardware', suite='full', limit=120),
    Case('step', lockstep=True, kvm='hardware'),
    Case('code32', lockstep=True, kvm='hardware'),
    Case('prot32', lockstep=True, kvm='hardware'),
    Case('stress', cpus=(1, 2), kvm='hardware', limit=60),
    Case('stress', name='stress-many', append='ms=4000 turns=200', cpus=(2, 8), kvm='hardware', suite='full', limit=120),
    Case('string', kvm_limit=300, lockstep=True),
    Case('boundary', cpus=(2,), kvm='hardware', limit=60),
    Case('boundary', name='boundary-long', append='programs=400', cpus=(2,), kvm='hardware', suite='full', limit=120),
    Case('latency', cpus=(1, 2), kvm='hardware', limit=60),
    Case('faults', append='turns=1', lockstep=True, kvm='hardware', limit=60),
    Case('faults', name='faults-long', append='turns=16', kvm='hardware', suite='full', limit=120),
    Case('fpstate', kvm='hardware'),
    Case('irq', limit=40),
    Case('irq', name='irq-x2apic', append='x2apic=1', limit=40),
    Case('debug', kvm='hardware'),
    Case('modes', lockstep=True, kvm='hardware'),
    Case('syscall', lockstep=True, kvm='hardware'),
    Case('fwcfg', cpus=(1, 2)),
    Case('power', name='power-acpi', status=0, expect='power-off by port'),
    Case('power', name='power-keyboard', append='how=1', status=0, expect='keyboard'),
    Case('power', name='power-cf9', append='how=2', status=0, expect='cf9'),
    Case('power', name='power-again', append='how=1 again=1', reboot=True, expect='booted again'),
    Case('power', name='power-acpi-reset', append='how=3 again=1', reboot=True, expect='booted again'),
    Case('tlb', cpus=(1, 2), kvm='hardware', limit=60),
    Case('tlb', name='tlb-many', append='turns=40', cpus=(8,), kvm='hardware', suite='full', limit=120),
    Case('virtio', args=ALL, limit=60,
         files=(('console', 'through the virtio console'),)),
    Case('hostile', name='hostile-rings', append='what=0', hostile=True, breaks=True, args=ALL, limit=60),
    Case('hostile', name='hostile-dma', append='what=1', hostile=True, breaks=True, args=ALL, limit=60),
    Case('hostile', name='hostile-garbage', append='what=2 seed=1 ms=1500', hostile=True, args=ALL, limit=60),
    Case('hostile', name='hostile-garbage-2', append='what=2 seed=2 ms=8000', hostile=True, args=ALL,
         limit=90, suite='full', kvm='full'),
    Case('hostile', name='hostile-rewrite', cpus=(2,), append='what=3', hostile=True, args=ALL, limit=60),
    Case('hostile', name='hostile-registers', append='what=4 seed=3', hostile=True, args=ALL, limit=60),
    Case('hostile', name='hostile-registers-2', append='what=4 seed=4 ms=8000', hostile=True, args=ALL,
         limit=90, suite='full', kvm='full'),
    Case('hostile', name='hostile-ports', append='what=5 seed=5', hostile=True, args=ALL, limit=60),
    Case('hello-pvh', name='hello-pvh', append='x=1', expect=r'command line: .*x=1'),
]


def log(text):
    for line in text.splitlines():
        print('# ' + line, flush=True)


def cpu_seconds(pid):
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def rss_kib(pid):
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(r'RssAnon:\s+(\d+)', f.read()).group(1))


class Qmp:
    def __init__(self, path, deadline):
        self.sock = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.sock.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.sock.settimeout(300)
        self.file = self.sock.makefile('rw')
        self.events = []
        self.file.readline()
        self.command('qmp_capabilities')

    def command(self, name):
        self.file.write(json.dumps({'execute': name}) + '\n')
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise OSError('QMP closed the connection')
            answer = json.loads(line)
            if 'return' in answer or 'error' in answer:
                return answer
            self.events.append(answer)


class Run:
    """One machine, its output in a file, killed at the limit."""

    def __init__(self, options, case, accel, cpus):
        self.case = case
        self.tmp = tempfile.TemporaryDirectory(prefix='ruche-guest-')
        t = self.tmp.name
        with open(f'{t}/disk.img', 'wb') as disk:
            for sector in range(2048):
                disk.write(sector.to_bytes(4, 'little') * 128)
        self.out_path = f'{t}/serial'
        self.err_path = f'{t}/stderr'
        self.qmp_path = f'{t}/qmp'
        self.may_grow_kib = 65536 if options.sanitized else 8192
        soft_kvm = int(accel == 'kvm' and kvm_is_software())
        kernel = os.path.join(options.payloads, case.payload + '.elf')
        self.argv = [options.vmm, '-machine', case.machine, '-accel', accel, '-m', case.memory,
                     '-smp', str(cpus), '-display', 'none', '-monitor', 'none', '-nodefaults',
                     '-serial', f'file:{self.out_path}', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
                     '-qmp', f'unix:{self.qmp_path},server=on,wait=off',
                     '-kernel', kernel, '-append', f'cpus={cpus} softkvm={soft_kvm} {case.append}'.strip()]
        if not case.reboot:
            self.argv += ['-no-reboot']
        if case.hostile:
            self.argv += ['-S']
        self.argv += [a.replace('{tmp}', t) for a in case.args]
        if accel != 'kvm' or options.qemu:
            self.argv += ['-cpu', 'max']
        self.limit = PATIENCE * (case.kvm_limit if accel == 'kvm' else case.limit)
        self.limit_cpu = self.limit * min(cpus, os.cpu_count())
        self.begin = time.monotonic()
        with open(self.err_path, 'wb') as err:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=err, stderr=err)

    def output(self):
        try:
            with open(self.out_path, errors='replace') as f:
                return f.read()
        except OSError:
            return ''

    def errors(self):
        with open(self.err_path, errors='replace') as f:
            return f.read()

    def overdue(self):
        """A sentence once the machine has had its limit, or None. What other programs take is not held against it: the
        limit is in processor time; in time of the clock, for machines that hang asleep, it is ten times as much."""
        waited = time.monotonic() - self.begin
        try:
            used = cpu_seconds(self.process.pid)
        except OSError:
            return None  # it has just ended
        if used <= self.limit_cpu and waited <= 10 * self.limit:
            return None
        return f'not done after {waited:.0f} s, {used:.0f} s of them on a processor'

    def wait_hostile(self):
        """Waits until the payload has said what it did; then the process must be well. A sentence, or None."""
        first = None
        try: # it was started stopped (-S), so that no event is missed
            qmp = Qmp(self.qmp_path, self.begin + 10 * self.limit)
            qmp.command('cont')
        except OSError as e:
            return f'QMP does not answer: {e}'
        while 'hostile done' not in self.output():
            if self.process.poll() is not None:
                return f'the process ended with status {self.process.returncode}'
            problem = self.overdue()
            if problem:
                return problem
            if first is None and 'hostile begins' in self.output():
                first = rss_kib(self.process.pid)
            time.sleep(0.02)
        try:
            status = qmp.command('query-status')
            if status.get('return', {}).get('status') != 'running':
                return f'query-status answers {status}'
            broken = [e['data'] for e in qmp.events if e.get('event') == 'X_RUCHE_DEVICE_BROKEN']
            if self.case.breaks and not any(d.get('reason') and d.get('path') for d in broken):
                return f'QMP told of no broken device: {qmp.events}'
            for path in {d.get('path') for d in broken}:
                count = sum(d.get('path') == path for d in broken)
                if count > time.monotonic() - self.begin + 2: # at most one a second
                    return f'QMP told {count} times that {path} is broken'
            grown = rss_kib(self.process.pid) - (first if first is not None else 0)
            if first is not None and grown > self.may_grow_kib:
                return f'the process has grown by {grown} KiB'
            qmp.command('quit')
        except OSError as e:
            return f'QMP does not answer: {e}'
        return self.wait_status(0)

    def wait_status(self, wanted):
        while True:
            try:
                status = self.process.wait(0.5)
                break
            except subprocess.TimeoutExpired:
                problem = self.overdue()
                if problem:
                    return problem
        if status != wanted:
            return f'exit status {status}, not {wanted}'
        return None

    def result(self):
        problem = self.wait_hostile() if self.case.hostile else self.wait_status(self.case.status)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        out = self.output()
        if not problem and not self.case.hostile and not re.search(self.case.expect, out):
            problem = f'the output has no {self.case.expect!r}'
        if not problem and re.search('^FAILED', out, re.M):
            problem = 'the payload says that something failed'
        for name, wanted in self.case.files:
            problem = problem or self.missing_in_file(name, wanted)
        return problem

    def missing_in_file(self, name, wanted):
        with open(os.path.join(self.tmp.name, name), errors='replace') as f:
            return None if wanted in f.read() else f'the file {name} does not hold {wanted!r}'

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.tmp.cleanup()


def kvm_is_software():
    """True where /dev/kvm rests on neither VMX nor SVM: then it is wrong in some points of user mode."""
    with open('/proc/cpuinfo') as f:
        return not re.search(r'^flags.*\b(vmx|svm)\b', f.read(), re.M)


def accelerators(options):
    if options.accel:
        return options.accel.split('+')
    names = ['soft', INTERPRETED, LOCKSTEP]
    if os.access('/dev/kvm', os.R_OK | os.W_OK):
        names.append('kvm')
    return names


def suite_of(case, accel, cpus):
    if accel == LOCKSTEP or (accel == INTERPRETED and case.hostile):
        return 'full'
    slow = case.suite == 'full' or cpus in case.full_cpus or (accel == 'kvm' and case.kvm == 'full')
    return 'full' if slow else 'quick'


def leaves_out(accel, case, cpus):
    """The interpreter gets one short run of each payload, and so does lockstep where a case says so."""
    if accel == 'kvm':
        return case.kvm == 'hardware' and kvm_is_software()
    if accel == LOCKSTEP and not case.lockstep:
        return True
    return accel in (INTERPRETED, LOCKSTEP) and (case.suite == 'full' or cpus != case.cpus[0])


def plan(options):
    """(name, case, accelerator, vCPUs) of all that this suite runs: no run is in both."""
    for case in CASES:
        name = case.name or case.payload
        if options.only and not any(o in name for o in options.only):
            continue
        for accel in accelerators(options):
            for cpus in case.cpus + case.full_cpus:
                if not options.accel and leaves_out(accel, case, cpus):
                    continue
                if options.suite in (None, suite_of(case, accel, cpus)):
                    yield f'{name} {accel} {cpus} vCPU', case, accel, cpus


class Result(threading.Thread):
    """One case, run beside others."""

    def __init__(self, options, case, accel, cpus, on_end):
        super().__init__(daemon=True)
        self.options, self.case, self.accel, self.cpus, self.on_end = options, case, accel, cpus, on_end
        self.problem, self.took, self.notes = 'the test ended in an exception', 0, []

    def run(self):
        try:
            run = Run(self.options, self.case, self.accel, self.cpus)
            try:
                self.problem = run.result()
                self.took = time.monotonic() - run.begin
                if self.problem:
                    self.notes += [self.problem, ' '.join(run.argv)]
                if self.problem or self.options.verbose:
                    self.notes += [run.errors()[-4000:], run.output()[-4000:]]
            finally:
                run.close()
        finally:
            self.on_end(self)

    def show(self, number, name):
        print(f'{"not ok" if self.problem else "ok"} {number} - {name} ({self.took:.1f} s)', flush=True)
        for note in self.notes:
            log(note)


def run_all(options, todo):
    """Runs them in their order, so many at a time that all their vCPUs are at most options.jobs; an only one may have
    more. Shows them in the same order. Returns whether all is well."""
    free = [options.jobs]
    change = threading.Condition()

    def give_back(result):
        with change:
            free[0] += min(result.cpus, options.jobs)
            change.notify()

    running, shown, good = [], 0, True

    def show_up_to(wait_for):
        nonlocal shown, good
        while shown < len(running) and (wait_for or not running[shown].is_alive()):
            running[shown].join()
            running[shown].show(shown + 1, todo[shown][0])
            good = good and not running[shown].problem
            shown += 1

    for _, case, accel, cpus in todo:
        with change:
            change.wait_for(lambda: free[0] >= min(cpus, options.jobs))
            free[0] -= min(cpus, options.jobs)
        running.append(Result(options, case, accel, cpus, give_back))
        running[-1].start()
        show_up_to(wait_for=False)
    show_up_to(wait_for=True)
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--vmm', required=True, help='ruche-vmm, or a QEMU with --qemu')
    parser.add_argument('--payloads', required=True, help='folder of the built payloads')
    parser.add_argument('--suite', choices=('quick', 'full'), help='the default is both')
    parser.add_argument('--accel', help='names with their properties, separated by +; the default is all that work here')
    parser.add_argument('--qemu', action='store_true', help='the program is QEMU: leave out what is only ours')
    parser.add_argument('--jobs', type=int, default=1, help='how many vCPUs may run at a time (1)')
    parser.add_argument('--verbose', action='store_true', help='show all output')
    parser.add_argument('only', nargs='*', help='run the cases whose name contains one of these')
    options = parser.parse_args()
    with open(options.vmm, 'rb') as program:
        options.sanitized = b'__asan_init' in program.read()  # freed memory stays for a while
    todo = list(plan(options))
    print(f'1..{len(todo)}')
    return 0 if run_all(options, todo) else 1


if __name__ == '__main__':
    sys.exit(main())
