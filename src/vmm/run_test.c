/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The run state's table: what may follow what, and that nobody is stuck without a way out. Events:
 * what they are limited by is in them. */
#include "qmp/qmp.h"
#include "vmm/run.h"

#include <string.h>

static const struct {
    enum run_state from;
    enum run_event event;
    int to; /* -1: refused */
} rows[] = {
    { RUN_PRELAUNCH, EV_CONT, RUN_RUNNING },
    { RUN_PRELAUNCH, EV_STOP, RUN_PRELAUNCH },
    { RUN_RUNNING, EV_CONT, RUN_RUNNING },
    { RUN_RUNNING, EV_STOP, RUN_PAUSED },
    { RUN_RUNNING, EV_RESET, RUN_RUNNING },
    { RUN_RUNNING, EV_GUEST_OFF, RUN_SHUTDOWN },
    { RUN_RUNNING, EV_PANIC, RUN_GUEST_PANICKED },
    { RUN_RUNNING, EV_IO_ERROR, RUN_IO_ERROR },
    { RUN_RUNNING, EV_INTERNAL_ERROR, RUN_INTERNAL_ERROR },
    { RUN_PAUSED, EV_CONT, RUN_RUNNING },
    { RUN_PAUSED, EV_RESET, RUN_PRELAUNCH },
    { RUN_SHUTDOWN, EV_CONT, -1 },
    { RUN_SHUTDOWN, EV_RESET, RUN_PRELAUNCH },
    { RUN_INTERNAL_ERROR, EV_CONT, -1 },
    { RUN_IO_ERROR, EV_CONT, RUN_RUNNING },
    { RUN_GUEST_PANICKED, EV_CONT, RUN_RUNNING },
    { RUN_RUNNING, EV_FINISH_MIGRATE, RUN_FINISH_MIGRATE },
    { RUN_FINISH_MIGRATE, EV_CONT, -1 },
    { RUN_FINISH_MIGRATE, EV_MIGRATED, RUN_POSTMIGRATE },
    { RUN_POSTMIGRATE, EV_CONT, RUN_RUNNING },
    { RUN_INMIGRATE, EV_CONT, RUN_INMIGRATE },
    { RUN_INMIGRATE, EV_RESET, -1 },
    { RUN_INMIGRATE, EV_LOADED, RUN_PAUSED },
};

static void test_table(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        g_assert_cmpint(run_state_next(rows[i].from, rows[i].event), ==, rows[i].to);
}

static void test_ways_out(void)
{
    for (int s = 0; s < N_RUN_STATES; s++) {
        g_assert_nonnull(run_state_name(s));
        /* stop never fails, and a reset leads to where cont is possible. */
        g_assert_cmpint(run_state_next(s, EV_STOP), >=, 0);
        if (s == RUN_INMIGRATE || s == RUN_FINISH_MIGRATE)
            continue; /* these end by themselves */
        int reset = run_state_next(s, EV_RESET);
        g_assert_cmpint(reset, >=, 0);
        g_assert_cmpint(run_state_next(reset, EV_CONT), ==, RUN_RUNNING);
    }
    for (int e = 0; e < N_RUN_EVENTS; e++)
        g_assert_nonnull(run_event_name(e));
}

/* "a" or "a.b": b is a word in the help of the object a. */
static void test_event_limits(void)
{
    const struct qmp_event_type *const *list = qmp_event_list();
    g_assert_nonnull(list[0]);
    for (; *list; list++) {
        const struct qmp_event_type *t = *list;
        const char *path = t->limit_by;
        if (!path || !*path)
            continue;
        size_t len = strcspn(path, ".");
        const struct qmp_arg *a = t->data;
        while (a && a->name && (strlen(a->name) != len || strncmp(a->name, path, len)))
            a++;
        g_assert_true(a && a->name);
        g_assert_cmpint(a->kind, ==, path[len] ? QMP_OBJECT : QMP_STRING);
        g_assert_true(!path[len] || strstr(a->help, path + len + 1));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/run/table", test_table);
    g_test_add_func("/run/ways-out", test_ways_out);
    g_test_add_func("/run/event-limits", test_event_limits);
    return g_test_run();
}
