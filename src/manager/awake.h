/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processors that stay awake while somebody on this host calls in quick succession.
 *
 * Why       A client that waits for each answer, and a manager that waits for each call, each find the other's
 *           processor asleep: to wake it (to leave a deep idle state; in a virtual machine: to come back from the
 *           hypervisor) takes ten times as long as the call itself.
 * How       The kernel is asked for wake-ups within a limit, by /dev/cpu_dma_latency (PM QoS). Processors that have
 *           nothing to do then wait in a light state; work of others runs as ever. The request ends with the
 *           descriptor, and so with the process, however that ends.
 * Bounds    It begins with AWAKE_STREAK calls in a row, each at most AWAKE_THINK_US after the answer to the one
 *           before, and ends when there was no such call for AWAKE_LINGER_US: who calls once a millisecond, or
 *           every few seconds, changes nothing. It lasts at most AWAKE_CREDIT_US at a stretch, and an eighth of the
 *           time in the long run.
 * Thread    The loop thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    AWAKE_STREAK = 32,
    AWAKE_THINK_US = 200,
    AWAKE_LINGER_US = 2000,
    AWAKE_CREDIT_US = 20000000, /* that can be saved up */
    AWAKE_LEAST_US = 1000000,   /* with less it does not begin */
    AWAKE_SHARE = 8,            /* so many us of rest earn one */
};

/* When. */
struct awake {
    int64_t quick_us;   /* the last quick call */
    int64_t counted_us; /* credit is counted up to here */
    int64_t credit_us;
    unsigned streak;
    bool on;
};

void awake_init(struct awake *a, int64_t now_us);
/* A call came `think_us` after the answer before it. Both return: stay awake. */
bool awake_call(struct awake *a, int64_t think_us, int64_t now_us);
bool awake_look(struct awake *a, int64_t now_us);

/* For the loop: takes over how the default context polls. `device` is opened when it is wanted; one that cannot be
 * (rights, a container) leaves all as it is. */
void awake_start(const char *device);
void awake_stop(void);
/* A local client's call came. */
void awake_called(int64_t think_us, int64_t now_us);

struct awake_figures {
    bool on;
    uint64_t times; /* that it began */
    uint64_t total_us;
};
/* Any time, also before the start. */
void awake_figures(struct awake_figures *ret);
