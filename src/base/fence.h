/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Store-then-load order against guest code.
 *
 * A device that stores "wake me" and then looks for work, or stores "done" and then looks whether somebody waits, needs
 * its store seen before its load; so does the guest on the other side. Where guest code keeps its own barriers, a
 * fence is enough. The software CPU of a machine with one vCPU leaves them out (a locked instruction costs twenty
 * plain ones), and then the device's side is a barrier for all threads of the process: membarrier(2). That does not
 * reach other processes: who lets one work on guest memory has the barriers kept.
 *
 * Thread    Any. restore() is called with the lock of this file held: it calls none of these functions.
 */
#pragma once

#include <stdbool.h>

/* Guest code that runs without barriers of its own. */
struct fence_relaxed {
    /* From its return on, guest code that has left to the host once runs with barriers again. */
    void (*restore)(void *opaque);
    void *opaque;
    struct fence_relaxed *next; /* ours */
    bool on;                    /* ours */
};

/* From now on, until fence_guest_unrelax(), guest code may run without barriers. False: it may not: the kernel has no
 * membarrier(), or fence_guest_keep() was called. `r` is the caller's, and stays where it is. */
bool fence_guest_relax(struct fence_relaxed *r);
/* Of one that never was relaxed, too. */
void fence_guest_unrelax(struct fence_relaxed *r);
/* Another process will work on guest memory: guest code keeps its barriers, for the rest of this process's life. */
void fence_guest_keep(void);
/* Between our store and our load. */
void fence_guest(void);
