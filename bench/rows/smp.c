/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: the same work in one process and in two at a time, for guests with two vCPUs. */
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "row.h"

#define PAIR(id, title, call, ...)                                                                 \
    ROW(id##_1, title "-1", "smp", call, .workers = 1, __VA_ARGS__);                               \
    ROW(id##_2, title "-2", "smp", call, .workers = 2, __VA_ARGS__)

static uint64_t compute(void)
{
    uint64_t state = 41, sum = 0;
    for (int i = 0; i < 100000; i++)
        sum = row_mix(sum, row_random(&state));
    return sum;
}
PAIR(compute, "compute", compute);

static uint64_t stream(void)
{
    static uint64_t words[65536];
    uint64_t sum = 0;
    for (unsigned i = 0; i < 65536; i++)
        words[i] += i;
    row_clobber(words);
    for (unsigned i = 0; i < 65536; i++) {
        sum += words[i] & 1;
        words[i] = 0;
    }
    return sum;
}
PAIR(stream, "stream", stream);

/* Both add to one word: what counts is that nothing is lost, and what the cache line costs. */
static uint64_t *shared;

static const char *shared_setup(void)
{
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared == MAP_FAILED ? "no memory" : NULL;
}

static uint64_t contend(void)
{
    for (unsigned i = 0; i < 20000; i++)
        __atomic_fetch_add(shared, 1, __ATOMIC_SEQ_CST);
    return 20000;
}
PAIR(contend, "contended", contend, .setup = shared_setup);

/* Each on words of its own. */
static uint64_t uncontended(void)
{
    static uint64_t words[64];
    memset(words, 0, sizeof(words));
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t *w = &words[i & 63], old = i;
        __atomic_fetch_add(w, i, __ATOMIC_SEQ_CST);
        __atomic_compare_exchange_n(w, &old, old + 3, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    return row_mix(words[1], words[50]);
}
PAIR(uncontended, "uncontended", uncontended);

static uint64_t processes(void)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        uint8_t *p = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p != MAP_FAILED)
            memset(p, 1, 1 << 18);
        _exit(3);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid ? 1u + (unsigned)WEXITSTATUS(status) : 0;
}
PAIR(processes, "processes", processes);
