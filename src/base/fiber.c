/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fibers: stacks by mmap with a guard page, a switch of seven registers, and per-thread lists.
 *
 * Spec      System V ABI for x86-64: the registers that a call preserves.
 * Thread    Each thread has its own lists; they go with the thread.
 * Note      The sanitizers are told of every switch, or they would take another stack for a broken one.
 */
#include "base/fiber.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define HAVE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAVE_TSAN 1
#endif
#endif

#ifdef HAVE_ASAN
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES (4 * FIBER_STACK_BYTES) /* its frames are larger */
#else
#define STACK_BYTES FIBER_STACK_BYTES
#endif
#ifdef HAVE_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#define GUARD_BYTES 4096

struct fiber {
    void *sp;               /* where it stopped */
    void *map;              /* guard page, stack, this struct */
    void (*fn)(void *opaque);
    void *opaque;
    struct fiber *caller;   /* who runs again when we wait; NULL: the thread */
    struct fiber *next;     /* in one list: idle, ready, a queue */
    void *fake_stack;       /* ASan's */
    void *tsan;
};

struct fiber_thread {
    struct fiber *current;
    struct fiber *idle;
    unsigned idle_count;
    struct fiber *ready, *ready_tail;
    bool draining;
    void *sp;               /* the thread's own, while a fiber runs */
    const void *stack_bottom; /* of the thread, for ASan */
    size_t stack_bytes;
    void *fake_stack, *tsan;
};

static __thread struct fiber_thread *own;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Saves the preserved registers on the present stack, whose pointer goes to *save; goes on at `to`. */
void fiber_switch(void **save, void *to);
__asm__(".text\n"
        ".globl fiber_switch\n"
        ".hidden fiber_switch\n"
        ".type fiber_switch, @function\n"
        "fiber_switch:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size fiber_switch, . - fiber_switch\n");

static void destroy(struct fiber *f)
{
#ifdef HAVE_TSAN
    __tsan_destroy_fiber(f->tsan);
#endif
    munmap(f->map, GUARD_BYTES + STACK_BYTES);
}

static void thread_ends(void *opaque)
{
    struct fiber_thread *t = opaque;
    for (struct fiber *f; (f = t->idle);) {
        t->idle = f->next;
        destroy(f);
    }
    free(t);
    own = NULL;
}

static void make_key(void)
{
    pthread_key_create(&key, thread_ends);
}

static struct fiber_thread *thread_new(void)
{
    pthread_once(&once, make_key);
    struct fiber_thread *t = calloc(1, sizeof(*t));
    if (!t)
        abort();
    pthread_setspecific(key, t);
#ifdef HAVE_TSAN
    t->tsan = __tsan_get_current_fiber();
#endif
    own = t;
    return t;
}

static inline struct fiber_thread *thread(void)
{
    return likely(own) ? own : thread_new();
}

/* ---- switching, with the sanitizers told ---- */

static void switch_to(struct fiber_thread *t, struct fiber *f)
{
    struct fiber *from = t->current;
    f->caller = from;
    t->current = f;
#ifdef HAVE_ASAN
    __sanitizer_start_switch_fiber(from ? &from->fake_stack : &t->fake_stack,
                                   (char *)f->map + GUARD_BYTES, STACK_BYTES);
#endif
#ifdef HAVE_TSAN
    __tsan_switch_to_fiber(f->tsan, 0);
#endif
    fiber_switch(from ? &from->sp : &t->sp, f->sp);
#ifdef HAVE_ASAN
    __sanitizer_finish_switch_fiber(from ? from->fake_stack : t->fake_stack, NULL, NULL);
#endif
}

static void switch_back(struct fiber_thread *t)
{
    struct fiber *f = t->current, *to = f->caller;
    t->current = to;
#ifdef HAVE_ASAN
    __sanitizer_start_switch_fiber(&f->fake_stack, to ? (char *)to->map + GUARD_BYTES : t->stack_bottom,
                                   to ? STACK_BYTES : t->stack_bytes);
#endif
#ifdef HAVE_TSAN
    __tsan_switch_to_fiber(to ? to->tsan : t->tsan, 0);
#endif
    fiber_switch(&f->sp, to ? to->sp : t->sp);
#ifdef HAVE_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(f->fake_stack, &bottom, &bytes);
    if (!f->caller) {
        t->stack_bottom = bottom;
        t->stack_bytes = bytes;
    }
#endif
}

/* The first frame of every fiber: runs one function after the other. */
static void fiber_main(void)
{
    struct fiber_thread *t = own;
    struct fiber *f = t->current;
#ifdef HAVE_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &bytes);
    if (!f->caller) {
        t->stack_bottom = bottom;
        t->stack_bytes = bytes;
    }
#endif
    for (;;) {
        f->fn(f->opaque);
        f->next = t->idle;
        t->idle = f;
        t->idle_count++;
        switch_back(t);
    }
}

static struct fiber *create(void)
{
    uint8_t *map = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (map == MAP_FAILED || mprotect(map, GUARD_BYTES, PROT_NONE) < 0) {
        perror("fiber: no memory for a stack");
        abort();
    }
    struct fiber *f = (struct fiber *)(map + GUARD_BYTES + STACK_BYTES - align_up(sizeof(*f), 64));
    f->map = map;
    void **top = (void **)f;
    *--top = NULL;               /* fiber_main's return address: never used; keeps its stack aligned */
    *--top = (void *)fiber_main;
    f->sp = top - 6;             /* zeroes for the registers that the first switch takes off */
#ifdef HAVE_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    return f;
}

/* The thread has control again: runs what fibers woke, and lets surplus stacks go. */
static void back_at_thread(struct fiber_thread *t)
{
    if (t->draining)
        return;
    t->draining = true;
    for (struct fiber *f; (f = t->ready);) {
        t->ready = f->next;
        switch_to(t, f);
    }
    t->draining = false;
    while (t->idle_count > FIBER_KEEP) {
        struct fiber *f = t->idle;
        t->idle = f->next;
        t->idle_count--;
        destroy(f);
    }
}

void fiber_start(void (*fn)(void *opaque), void *opaque)
{
    struct fiber_thread *t = thread();
    struct fiber *f = t->idle;
    if (f) {
        t->idle = f->next;
        t->idle_count--;
    } else {
        f = create();
    }
    f->fn = fn;
    f->opaque = opaque;
    switch_to(t, f);
    if (!t->current)
        back_at_thread(t);
}

struct fiber *fiber_self(void)
{
    return own ? own->current : NULL;
}

void fiber_wait(void)
{
    switch_back(own);
}

void fiber_wake(struct fiber *f)
{
    struct fiber_thread *t = thread();
    if (!t->current && !t->draining) {
        switch_to(t, f);
        back_at_thread(t);
        return;
    }
    f->next = NULL;
    if (t->ready)
        t->ready_tail->next = f;
    else
        t->ready = f;
    t->ready_tail = f;
}

/* ---- queues and locks ---- */

void fiber_queue_wait(struct fiber_queue *q)
{
    struct fiber *f = own->current;
    f->next = NULL;
    if (q->head)
        q->tail->next = f;
    else
        q->head = f;
    q->tail = f;
    fiber_wait();
}

bool fiber_queue_wake_one(struct fiber_queue *q)
{
    struct fiber *f = q->head;
    if (!f)
        return false;
    q->head = f->next;
    fiber_wake(f);
    return true;
}

void fiber_queue_wake_all(struct fiber_queue *q)
{
    struct fiber_queue all = *q; /* who waits again meanwhile waits for the next event */
    q->head = q->tail = NULL;
    while (fiber_queue_wake_one(&all))
        ;
}

void fiber_mutex_lock(struct fiber_mutex *m)
{
    if (!m->locked)
        m->locked = true;
    else
        fiber_queue_wait(&m->queue); /* who unlocks hands it over, locked */
}

void fiber_mutex_unlock(struct fiber_mutex *m)
{
    if (!m->queue.head)
        m->locked = false;
    else
        fiber_queue_wake_one(&m->queue);
}

void fiber_rwlock_read(struct fiber_rwlock *l)
{
    if (l->writer || l->writers_waiting)
        fiber_queue_wait(&l->readers_queue); /* counted by who lets us in */
    else
        l->readers++;
}

void fiber_rwlock_write(struct fiber_rwlock *l)
{
    if (!l->writer && !l->readers) {
        l->writer = true;
        return;
    }
    l->writers_waiting++;
    fiber_queue_wait(&l->writers_queue);
}

static void let_readers_in(struct fiber_rwlock *l)
{
    struct fiber_queue all = l->readers_queue;
    l->readers_queue = (struct fiber_queue){ 0 };
    for (const struct fiber *f = all.head; f; f = f->next)
        l->readers++;
    while (fiber_queue_wake_one(&all))
        ;
}

static void let_writer_in(struct fiber_rwlock *l)
{
    l->writers_waiting--;
    l->writer = true;
    fiber_queue_wake_one(&l->writers_queue);
}

/* Writers and readers take turns, so that neither waits for ever. */
void fiber_rwlock_unlock(struct fiber_rwlock *l)
{
    if (l->writer) {
        l->writer = false;
        if (l->readers_queue.head)
            let_readers_in(l);
        else if (l->writers_waiting)
            let_writer_in(l);
    } else if (--l->readers == 0 && l->writers_waiting) {
        let_writer_in(l);
    }
}
