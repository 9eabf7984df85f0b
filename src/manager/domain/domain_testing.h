/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What tests of domains on machines that are not there (fake_vm.h) share: folders of their own,
 * what is heard, and how they run.
 *
 * Thread    Each test is a task of its own.
 */
#pragma once

#include "manager/domain/domain_priv.h"
#include "manager/domain/fake_vm.h"

#include <string.h>

extern GString *heard; /* what the test's listener wrote down */
extern char *root;     /* the folder that all others are in */
extern const struct caller *const me;

#define HEARD(text)                                                                                \
    do {                                                                                           \
        g_assert_cmpstr(heard->str, ==, text);                                                     \
        g_string_truncate(heard, 0);                                                               \
    } while (0)
#define FAILS(call, wanted_code, part)                                                             \
    do {                                                                                           \
        g_autoptr(GError) error = NULL;                                                            \
        g_assert_false(call);                                                                      \
        g_assert_error(error, RUCHE_ERROR, (int)(wanted_code));                                    \
        g_assert_nonnull(strstr(error->message, part));                                            \
    } while (0)
#define WORKS(call)                                                                                \
    do {                                                                                           \
        g_autoptr(GError) error = NULL;                                                            \
        bool works = (call);                                                                       \
        g_assert_no_error(error);                                                                  \
        g_assert_true(works);                                                                      \
    } while (0)
#define STATE(d, s, r)                                                                             \
    do {                                                                                           \
        g_assert_cmpint((d)->state, ==, s);                                                        \
        g_assert_cmpint((d)->reason, ==, r);                                                       \
    } while (0)

struct domain_test {
    const char *path;
    void (*fn)(void *opaque);
};

/* A listener that writes down names, too. */
void hear_names(void *opaque, const struct event *e);
/* A domain of this name, whose UUID ends with this number, and with more elements. */
char *numbered_xml(const char *name, unsigned number, const char *more);
struct domain *numbered(const char *name, unsigned number, const char *more); /* defined */
bool has_file(const char *folder, const char *name); /* the description of that domain */

/* Until what began beside this task has ended. */
void settle(void);
/* The daemon ends and begins: what is on disk and what runs is all that there is. */
void reborn(void);
struct domain *born_again(struct domain *d); /* the same, and this one as it is then */
/* A defined domain goes, whatever it does and has; with it what was heard. */
void drop(struct domain *d);
/* Begins the tests of a program, whose events go to `hear`; then runs them, and what was added. */
void domain_tests_init(int *argc, char ***argv, void (*hear)(void *opaque, const struct event *e));
int domain_tests_run(const struct domain_test *tests, unsigned count);
