/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When to sleep near the client, and how. See near.h. */
#include "libvirt/near.h"

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TRY_ROUNDS = 64,
    KEEP_ROUNDS = 256, /* between two looks at what it brings, and at where the client is */
    REST_ROUNDS = 2048,
    AFRESH_WINDOWS = 256, /* then what is usual is learned again */
    GAP_US = 1000         /* who thinks so long between two calls gains nothing */
};
/* Near is kept while a call takes at most this much of what is usual; by chance we may be near
 * already. */
static const double worth = 1.1;

static void begin(struct near *n, enum near_phase phase, int64_t now_us, uint64_t calls)
{
    n->phase = phase;
    n->since_us = now_us;
    n->since_calls = calls;
    n->rounds = 0;
}

void near_rest(struct near *n)
{
    n->phase = NEAR_REST;
    n->rounds = 0;
}

/* The window is full. */
static void judge(struct near *n, int64_t now_us, uint64_t calls)
{
    static const enum near_phase next[] = {[NEAR_COUNT] = NEAR_TRY,
                                           [NEAR_TRY] = NEAR_KEEP,
                                           [NEAR_KEEP] = NEAR_KEEP,
                                           [NEAR_REST] = NEAR_COUNT};
    double each_us = (double)(now_us - n->since_us) / (double)MAX(calls - n->since_calls, 1);
    enum near_phase to = next[n->phase];
    if (n->phase == NEAR_COUNT)
        n->usual_us = each_us;
    else if (n->phase != NEAR_REST && each_us > n->usual_us * worth)
        to = n->phase == NEAR_TRY ? NEAR_REST : NEAR_COUNT; /* it may have moved */
    n->windows = to == n->phase ? n->windows + 1 : 0;
    begin(n, n->windows == AFRESH_WINDOWS ? NEAR_COUNT : to, now_us, calls);
}

bool near_round(struct near *n, const void *who, int64_t now_us, uint64_t calls, bool *ret_look)
{
    static const unsigned windows[] = {[NEAR_COUNT] = TRY_ROUNDS,
                                       [NEAR_TRY] = TRY_ROUNDS,
                                       [NEAR_KEEP] = KEEP_ROUNDS,
                                       [NEAR_REST] = REST_ROUNDS};
    bool goes_on = who == n->who && now_us - n->last_us < GAP_US;
    *ret_look = false;
    n->last_us = now_us;
    if (!goes_on) {
        n->who = who;
        begin(n, NEAR_COUNT, now_us, calls);
        return false;
    }
    if (++n->rounds == windows[n->phase]) {
        judge(n, now_us, calls);
        *ret_look = n->phase == NEAR_TRY || n->phase == NEAR_KEEP;
    }
    return n->phase == NEAR_TRY || n->phase == NEAR_KEEP;
}

/* proc(5), the 39th field of stat; the 2nd, a name in brackets, may have blanks. */
int near_cpu_of(pid_t pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t len = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[MAX(len, 0)] = 0;
    const char *at = strrchr(text, ')');
    for (unsigned field = 2; at && field < 39; field++)
        at = strchr(at + 1, ' ');
    return at ? atoi(at + 1) : -1;
}

/* ---- the loop's poll ---- */

static struct {
    struct near state;
    bool near;
    uint64_t sleeps;
    cpu_set_t all, one; /* where we may be; where the client is */
} near;

static gint near_poll(GPollFD *fds, guint count, gint timeout_ms)
{
    if (!near.near || !timeout_ms)
        return g_poll(fds, count, timeout_ms);
    near.sleeps++;
    bool bound = sched_setaffinity(0, sizeof(near.one), &near.one) == 0;
    gint ready = g_poll(fds, count, timeout_ms);
    if (bound)
        sched_setaffinity(0, sizeof(near.all), &near.all);
    return ready;
}

/* False: it is not where we may go, or there is but one place. */
static bool find(pid_t pid)
{
    int cpu = near_cpu_of(pid);
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(near.all), &near.all) < 0 ||
        !CPU_ISSET(cpu, &near.all) || CPU_COUNT(&near.all) < 2)
        return false;
    CPU_ZERO(&near.one);
    CPU_SET(cpu, &near.one);
    return true;
}

void near_served(const void *who, pid_t pid, int64_t now_us, uint64_t calls)
{
    bool look;
    near.near = near_round(&near.state, who, now_us, calls, &look);
    if (look && !find(pid)) {
        near.near = false;
        near_rest(&near.state);
    }
}

void near_start(void)
{
    memset(&near, 0, sizeof(near));
    g_main_context_set_poll_func(NULL, near_poll);
}

void near_stop(void)
{
    near.near = false;
    g_main_context_set_poll_func(NULL, NULL);
}

uint64_t near_sleeps(void)
{
    return near.sleeps;
}
