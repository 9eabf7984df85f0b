/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests of what runs in tasks. Thread: the loop thread. */
#pragma once

#include "base/error.h"
#include "manager/task.h"

#include <glib.h>
#include <string.h>

/* Until it, and all that it began, has ended. */
static inline void run_in_task(void (*fn)(void *opaque), void *opaque)
{
    task_start(fn, opaque);
    while (task_count())
        g_main_context_iteration(NULL, true);
}

/* The call, which takes &error, fails with a sentence that has the word. */
#define assert_refused(call, word)                                                                 \
    do {                                                                                           \
        g_autoptr(GError) error = NULL;                                                            \
        g_assert_true(!(call));                                                                    \
        g_assert_nonnull(error);                                                                   \
        if (!strstr(error->message, word))                                                         \
            g_error("'%s' is not in: %s", word, error->message);                                   \
    } while (0)
