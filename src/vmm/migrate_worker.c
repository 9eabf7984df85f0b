/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads of migrations; see migrate_worker.h. */
#include "vmm/migrate_worker.h"

#include <signal.h>

static void on_main(void *opaque)
{
    struct migrate_worker *w = opaque;
    pthread_mutex_lock(&w->lock);
    migrate_question_fn *question = w->question;
    bool over = w->over;
    pthread_mutex_unlock(&w->lock);
    if (question) {
        bool answer = question(w, w->question_error);
        pthread_mutex_lock(&w->lock);
        w->answer = answer;
        w->question = NULL;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
    } else if (over && w->started) {
        pthread_join(w->thread, NULL);
        w->started = false;
        w->ended(w); /* may free the owner */
    }
}

static void *worker_main(void *opaque)
{
    struct migrate_worker *w = opaque;
    pthread_setname_np(pthread_self(), "migration");
    w->run(w);
    pthread_mutex_lock(&w->lock);
    w->over = true;
    pthread_mutex_unlock(&w->lock);
    loop_post(w->main, &w->task);
    return NULL;
}

bool migrate_worker_start(struct migrate_worker *w, struct loop *main, void (*run)(struct migrate_worker *w),
                          void (*ended)(struct migrate_worker *w), GError **error)
{
    sigset_t all, old;
    w->main = main;
    w->run = run;
    w->ended = ended;
    w->task = (struct loop_task){ .fn = on_main, .opaque = w };
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int err = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    w->started = !err;
    return !err || ruche_error_errno(error, err, "no thread for the migration");
}

bool migrate_worker_ask(struct migrate_worker *w, migrate_question_fn *fn, GError **error)
{
    pthread_mutex_lock(&w->lock);
    w->question = fn;
    w->question_error = error;
    bool posted = !w->abandoned;
    if (posted)
        loop_post(w->main, &w->task);
    while (w->question && !w->abandoned)
        pthread_cond_wait(&w->changed, &w->lock);
    bool answered = posted && !w->question, answer = w->answer;
    w->question = NULL;
    pthread_mutex_unlock(&w->lock);
    return answered ? answer : ruche_error(error, RUCHE_ERR_STATE, "the program ends");
}

void migrate_worker_join(struct migrate_worker *w)
{
    if (!w->main)
        return;
    pthread_mutex_lock(&w->lock);
    w->abandoned = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    w->started = false;
    loop_unpost(w->main, &w->task);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    w->main = NULL;
}
