/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of pools and of their volumes share: a folder, and a pool 'p' of it. Thread: the loop thread, in tasks. */
#pragma once

#include "manager/storage/storage_priv.h"
#include "manager/task_testing.h"

extern char *img, *target; /* ruche-img, NULL: there is none; the pool's folder */
extern GString *events;    /* "NAME:ID:EVENT " of each that came */

/* Files of the folder. */
char *at(const char *name);
void put(const char *name, const char *bytes, size_t len);
bool is_there(const char *name);
/* A defined, built and started pool 'p'; the caller destroys it by end_pool(). */
struct pool *begin_pool(void);
void end_pool(struct pool *p);
void volume_tests_add(void); /* volume_test.c */

#define TEST(fn)                                                                                   \
    static void test_##fn(void)                                                                    \
    {                                                                                              \
        run_in_task(fn, NULL);                                                                             \
    }
