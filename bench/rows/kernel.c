/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: what programs ask of the kernel. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "row.h"

static uint64_t get_pid(void)
{
    long first = syscall(SYS_getpid), same = 0;
    for (int i = 0; i < 300; i++)
        same += syscall(SYS_getpid) == first;
    return (uint64_t)same;
}
ROW(get_pid, "getpid", "kernel", get_pid);

static uint64_t clock_get(void)
{
    struct timespec last = {0, 0}, now;
    uint64_t forward = 0;
    for (int i = 0; i < 300; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        forward += now.tv_sec > last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec >= last.tv_nsec);
        last = now;
    }
    return forward;
}
ROW(clock_get, "clock_gettime", "kernel", clock_get);

static uint64_t wait_for(pid_t pid)
{
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 0;
    return WIFEXITED(status) ? 1u + (unsigned)WEXITSTATUS(status) : 0;
}

static uint64_t fork_exit(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(7);
    return wait_for(pid);
}
ROW(fork_exit, "fork+exit", "kernel", fork_exit);

static uint64_t fork_exec(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "rows", "--exit", (char *)NULL);
        _exit(99);
    }
    return wait_for(pid);
}
ROW(fork_exec, "fork+exec", "kernel", fork_exec);

/* ---- pipe ping-pong: two switches a round trip ---- */

static int ping[2], pong[2];

static const char *pipe_setup(void)
{
    if (pipe(ping) < 0 || pipe(pong) < 0)
        return "no pipes";
    pid_t pid = fork();
    if (pid < 0)
        return "no child";
    if (pid == 0) {
        char c;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ping[1]);
        while (read(ping[0], &c, 1) == 1) {
            c++;
            if (write(pong[1], &c, 1) != 1)
                break;
        }
        _exit(0);
    }
    close(ping[0]);
    return NULL;
}

static uint64_t pipe_turns(void)
{
    char c = 0;
    for (int i = 0; i < 20; i++)
        if (write(ping[1], &c, 1) != 1 || read(pong[0], &c, 1) != 1)
            return 0;
    return (uint64_t)c;
}
ROW(pipe_turns, "pipe", "kernel", pipe_turns, .setup = pipe_setup);

/* ---- memory ---- */

enum { PAGE = 4096, PAGES = 64 };

static uint64_t page_faults(void)
{
    uint8_t *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;
    if (p == MAP_FAILED)
        return 0;
    for (unsigned i = 0; i < PAGES; i++) {
        sum += p[i * PAGE + 5];
        p[i * PAGE] = (uint8_t)i;
        sum += p[i * PAGE];
    }
    munmap(p, PAGES * PAGE);
    return sum;
}
ROW(page_faults, "page-faults", "kernel", page_faults);

static uint8_t *guarded;

static const char *guarded_setup(void)
{
    guarded = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return guarded == MAP_FAILED ? "no memory" : NULL;
}

static uint64_t protect(void)
{
    uint64_t done = 0;
    for (int i = 0; i < 20; i++) {
        done += mprotect(guarded, PAGE, PROT_READ) == 0;
        done += guarded[0] < 255;
        done += mprotect(guarded, PAGE, PROT_READ | PROT_WRITE) == 0;
        guarded[0] = (uint8_t)i;
        row_clobber(guarded);
    }
    return done;
}
ROW(protect, "mprotect", "kernel", protect, .setup = guarded_setup);

/* ---- files ---- */

static uint64_t files(void)
{
    char path[256];
    uint64_t done = 0;
    for (int i = 0; i < 10; i++) {
        snprintf(path, sizeof(path), "%s/file-%d", row_temp_folder, i);
        int fd = open(path, O_CREAT | O_RDWR | O_EXCL, 0600);
        done += fd >= 0 && write(fd, path, 16) == 16;
        if (fd >= 0)
            close(fd);
        done += unlink(path) == 0;
    }
    return done;
}
ROW(files, "file", "kernel", files);

/* ---- signals ---- */

static volatile sig_atomic_t signals;
static sigjmp_buf fault_return;

static void count_signal(int number)
{
    signals++;
}

static void leave_fault(int number)
{
    siglongjmp(fault_return, 1);
}

static const char *signal_setup(void)
{
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGUSR1, &action, NULL);
    return NULL;
}

static uint64_t signal_turns(void)
{
    signals = 0;
    for (int i = 0; i < 40; i++)
        raise(SIGUSR1);
    return (uint64_t)signals;
}
ROW(signal_turns, "signal", "kernel", signal_turns, .setup = signal_setup);

static const char *fault_setup(void)
{
    struct sigaction action = {.sa_handler = leave_fault, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    const char *why = guarded_setup();
    if (!why)
        mprotect(guarded, PAGE, PROT_NONE);
    return why;
}

static uint64_t fault_turns(void)
{
    volatile uint64_t caught = 0;
    for (volatile int i = 0; i < 40; i++) {
        if (sigsetjmp(fault_return, 0) == 0)
            *(volatile uint8_t *)guarded = 1;
        else
            caught++;
    }
    return caught;
}
ROW(fault_turns, "sigsegv", "kernel", fault_turns, .setup = fault_setup);
