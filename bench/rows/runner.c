/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: runs rows on request. The same static binary is a program on the host and a guest's init.
 *
 * Requests are lines on standard input (a guest: on its serial port), answers lines that begin with "@@ ":
 *
 *   list                   row NAME GROUP WORKERS ... then: ok
 *   count NAME MS          count NAME N: units that take about MS milliseconds here
 *   run NAME N             begin NAME; waits for any line; end NAME UNITS WALL-NS CPU-NS CHECKSUM
 *   poweroff               ends the guest
 *
 * In place of an answer: skip NAME REASON (cannot run here), fail NAME REASON. A row runs in a child, so its crash is
 * its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "row.h"

const char *row_data_folder = "/bench", *row_temp_folder = "/tmp";

extern const struct row *const __start_rows[], *const __stop_rows[];

enum { MAX_WORKERS = 8 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t usage_ns(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static uint64_t cpu_ns(void)
{
    return usage_ns(RUSAGE_SELF) + usage_ns(RUSAGE_CHILDREN);
}

/* A line of input without its end; false at the end of input. */
static int read_line(char *line, size_t size)
{
    size_t used = 0;
    char c;
    while (read(0, &c, 1) == 1) {
        if (c == '\n') {
            line[used] = 0;
            return 1;
        }
        if (used + 1 < size)
            line[used++] = c;
    }
    return 0;
}

static __attribute__((format(printf, 1, 2))) void answer(const char *format, ...)
{
    char line[256] = "@@ ";
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line + 3, sizeof(line) - 4, format, list);
    va_end(list);
    if (length > (int)sizeof(line) - 5)
        length = (int)sizeof(line) - 5;
    line[3 + length] = '\n';
    if (write(1, line, (size_t)length + 4) < 0)
        _exit(1);
}

static const struct row *find_row(const char *name)
{
    for (const struct row *const *r = __start_rows; r < __stop_rows; r++)
        if (strcmp((*r)->name, name) == 0)
            return *r;
    return NULL;
}

/* Why the row cannot run here; NULL if it can. Sets it up. */
static const char *prepare(const struct row *row)
{
    if (row->needs == ROW_NEEDS_AVX2 && (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")))
        return "the processor has no AVX2 with FMA";
    return row->setup ? row->setup() : NULL;
}

/* Does `units` units and returns how many gave the value of the first. */
static uint64_t repeat(const struct row *row, uint64_t units, uint64_t value)
{
    uint64_t same = 0;
    for (uint64_t i = 0; i < units; i++)
        same += row->run() == value;
    return same;
}

/* The same in each of the row's workers; returns the units of all. */
static uint64_t repeat_all(const struct row *row, uint64_t units, uint64_t value)
{
    pid_t pids[MAX_WORKERS];
    uint64_t all = 0;
    if (row->workers == 0)
        return repeat(row, units, value);
    for (unsigned i = 0; i < row->workers; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            _exit(repeat(row, units, value) == units ? 0 : 1);
    }
    for (unsigned i = 0; i < row->workers; i++) {
        int status = 1;
        if (pids[i] > 0 && waitpid(pids[i], &status, 0) == pids[i] && status == 0)
            all += units;
    }
    return all;
}

static void do_count(const struct row *row, uint64_t budget_ns)
{
    uint64_t units = 1, start = now_ns(), value = row->run();
    if (now_ns() - start >= budget_ns) {
        answer("count %s 1", row->name);
        return;
    }
    for (;;) {
        start = now_ns();
        repeat(row, units, value);
        uint64_t took = now_ns() - start;
        if (took >= budget_ns / 4 || units >= 1u << 30) {
            units = took ? (uint64_t)((double)units * (double)budget_ns / (double)took) : units;
            break;
        }
        units *= took < budget_ns / 32 ? 8 : 2;
    }
    answer("count %s %llu", row->name, (unsigned long long)(units ? units : 1));
}

static void do_run(const struct row *row, uint64_t units)
{
    char line[16];
    uint64_t sum = row->check ? row->check() : row->run(), value = row->check ? 1 : sum;
    answer("begin %s", row->name);
    if (!read_line(line, sizeof(line)))
        _exit(1);
    uint64_t wall = now_ns(), cpu = cpu_ns();
    uint64_t same = repeat_all(row, units, value);
    cpu = cpu_ns() - cpu;
    wall = now_ns() - wall;
    uint64_t all = units * (row->workers ? row->workers : 1);
    if (same != all || sum == 0)
        answer("fail %s %llu of %llu units gave another result", row->name, (unsigned long long)(all - same),
               (unsigned long long)all);
    else
        answer("end %s %llu %llu %llu %016llx", row->name, (unsigned long long)all, (unsigned long long)wall,
               (unsigned long long)cpu, (unsigned long long)sum);
}

static void in_child(const char *verb, const char *name, uint64_t number)
{
    const struct row *row = find_row(name);
    if (!row) {
        answer("skip %s there is no such row", name);
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const char *why = prepare(row);
        if (why)
            answer("skip %s %s", name, why);
        else if (strcmp(verb, "count") == 0)
            do_count(row, number * 1000000u);
        else
            do_run(row, number);
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        answer("fail %s no child: %s", name, strerror(errno));
    else if (WIFSIGNALED(status))
        answer("fail %s signal %d", name, WTERMSIG(status));
    else if (WEXITSTATUS(status))
        answer("fail %s exit status %d", name, WEXITSTATUS(status));
}

static void serve(void)
{
    char line[128], verb[16], name[64];
    while (read_line(line, sizeof(line))) {
        unsigned long long number = 0;
        name[0] = 0;
        if (sscanf(line, "%15s %63s %llu", verb, name, &number) < 1)
            continue;
        if (strcmp(verb, "list") == 0) {
            for (const struct row *const *r = __start_rows; r < __stop_rows; r++)
                answer("row %s %s %u", (*r)->name, (*r)->group, (*r)->workers);
            answer("ok");
        } else if (strcmp(verb, "poweroff") == 0) {
            return;
        } else {
            in_child(verb, name, number);
        }
    }
}

/* As a guest's init: the file systems that rows use, and the serial port as a plain wire. */
static void init_guest(void)
{
    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 0777);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("tmp", "/tmp", "tmpfs", 0, NULL);
    klogctl(8, NULL, 1); /* the kernel's messages stay off the wire */
    int fd = open("/dev/ttyS0", O_RDWR);
    struct termios t;
    if (fd < 0 || tcgetattr(fd, &t) < 0)
        return;
    cfmakeraw(&t);
    tcsetattr(fd, TCSANOW, &t);
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
}

int main(int argc, char **argv)
{
    static char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", "HOME=/", NULL};
    int guest = getpid() == 1;
    if (argc == 2 && strcmp(argv[1], "--exit") == 0)
        return 7;
    if (argc == 3) {
        row_data_folder = argv[1];
        row_temp_folder = argv[2];
    }
    environ = (char **)environment;
    if (guest)
        init_guest();
    answer("ready %s", guest ? "guest" : "host");
    serve();
    if (guest)
        reboot(RB_POWER_OFF);
    return 0;
}
