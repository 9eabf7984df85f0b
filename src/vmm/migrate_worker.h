/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread that moves a machine's bytes, and asks the main thread for whatever is more than that.
 *
 * Owner     Embedded; migrate_worker_start() ... migrate_worker_join().
 * Thread    Start and join: main. migrate_worker_ask(): the worker's. Between them only `lock`.
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"

#include <pthread.h>

struct migrate_worker {
    struct loop *main;
    pthread_t thread;
    bool started;
    void (*run)(struct migrate_worker *w);   /* the thread */
    void (*ended)(struct migrate_worker *w); /* main, after it */
    pthread_mutex_t lock;       /* a leaf; also guards what the owner says */
    pthread_cond_t changed;
    struct loop_task task;
    bool (*question)(struct migrate_worker *w, GError **error);
    GError **question_error;
    bool answer, over, abandoned;
};

/* A question is asked and answered in the owner's terms: it runs on the main thread, which never waits for us. */
typedef bool migrate_question_fn(struct migrate_worker *w, GError **error);

bool migrate_worker_start(struct migrate_worker *w, struct loop *main, void (*run)(struct migrate_worker *w),
                          void (*ended)(struct migrate_worker *w), GError **error);
/* False with *error too when the program ends. */
bool migrate_worker_ask(struct migrate_worker *w, migrate_question_fn *fn, GError **error);
/* Nobody answers any more; the owner has made its channel fail. `ended` is not called after it. */
void migrate_worker_join(struct migrate_worker *w);
