/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests: files that hold what a program makes of an example. With UPDATE_GOLDEN in the
 * environment they are written instead.
 *
 * Thread    The test's.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <string.h>

/* FOLDER/NAME.SUFFIX holds `have`; NULL: there is no such file. */
static inline void golden_check(const char *folder, const char *name, const char *suffix,
                                const char *have)
{
    g_autofree char *path = g_strdup_printf("%s/%s.%s", folder, name, suffix), *want = NULL;
    if (g_getenv("UPDATE_GOLDEN") && have)
        g_assert_true(g_file_set_contents(path, have, -1, NULL));
    bool there = g_file_get_contents(path, &want, NULL, NULL);
    g_assert_cmpstr(there ? want : NULL, ==, have);
}

/* Gives each FOLDER/NAME.xml to `check`; there must be as many as that. */
static inline void golden_each(const char *folder, void (*check)(const char *name, const char *xml),
                               unsigned at_least)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    unsigned count = 0;
    g_assert_nonnull(dir);
    for (const char *file; (file = g_dir_read_name(dir));) {
        if (!g_str_has_suffix(file, ".xml"))
            continue;
        g_autofree char *path = g_build_filename(folder, file, NULL),
                        *name = g_strndup(file, strlen(file) - 4), *xml = NULL;
        g_assert_true(g_file_get_contents(path, &xml, NULL, NULL));
        check(name, xml);
        count++;
    }
    g_assert_cmpuint(count, >=, at_least);
}

/* The sentence with which something was refused must say this. */
static inline void golden_says(const char *said, const char *why)
{
    if (!said || !strstr(said, why))
        g_error("'%s' is not in '%s'", why, said ? said : "nothing");
}
