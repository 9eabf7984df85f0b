/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fibers: functions with a stack of their own that can wait in the middle, so that asynchronous code
 * reads like blocking code.
 *
 * Owner     A fiber frees itself when its function returns; stacks are kept per thread and reused.
 * Thread    A fiber lives and dies on the thread that started it. Everything here is thread-local but
 *           nothing locks: queues and mutexes serve the fibers of one thread.
 * Cost      Start and end about 30 ns, a switch about 5 ns; FIBER_STACK_BYTES of address space, of which
 *           the touched pages are memory. No allocation once the thread has as many stacks as it had
 *           fibers at the busiest moment; FIBER_KEEP idle stacks are kept.
 * Limits    Keep locals small: 4 KiB a call at most, big buffers from the heap.
 */
#pragma once

#include "base/util.h"

#define FIBER_STACK_BYTES (256 * KIB)
#define FIBER_KEEP 128

struct fiber;

/* Runs fn(opaque) at once, on a new stack, until it first waits or returns; then comes back.
 * Aborts when the system has no memory for a stack. May be called in a fiber. */
void fiber_start(void (*fn)(void *opaque), void *opaque);
/* The running fiber; NULL outside of any. */
struct fiber *fiber_self(void);
/* Gives control back; returns when somebody wakes this fiber. Only in a fiber. */
void fiber_wait(void);
/* Lets a waiting fiber go on: at once, when called outside of fibers; when called in a fiber, as soon
 * as control has returned from fibers to the thread's loop. Once per fiber_wait(). */
void fiber_wake(struct fiber *f);

/* Fibers that wait for an event, in order. All zeroes is an empty queue. */
struct fiber_queue {
    struct fiber *head, *tail;
};
void fiber_queue_wait(struct fiber_queue *q);
bool fiber_queue_wake_one(struct fiber_queue *q); /* false: nobody waited */
void fiber_queue_wake_all(struct fiber_queue *q);

/* A lock that waits by fiber_wait(), fair, not recursive. All zeroes is unlocked. */
struct fiber_mutex {
    bool locked;
    struct fiber_queue queue;
};
void fiber_mutex_lock(struct fiber_mutex *m);
void fiber_mutex_unlock(struct fiber_mutex *m);

/* Many readers or one writer, in order of arrival. All zeroes is unlocked. */
struct fiber_rwlock {
    unsigned readers;
    bool writer;
    unsigned writers_waiting;
    struct fiber_queue readers_queue, writers_queue;
};
void fiber_rwlock_read(struct fiber_rwlock *l);
void fiber_rwlock_write(struct fiber_rwlock *l);
void fiber_rwlock_unlock(struct fiber_rwlock *l);
