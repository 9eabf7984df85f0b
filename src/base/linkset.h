/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linker sets: rows declared in many files, found as one array at run time.
 *
 * LINKSET_ENTRY(set, object) stores the address of a const object in section `set`; LINKSET_DECLARE
 * makes the array's ends known; LINKSET_FOREACH walks it. Order is the link order: sort before
 * printing. Folders are linked whole (meson's link_whole), so that no row is dropped.
 */
#pragma once

#define LINKSET_ENTRY(set, object)                                                                 \
    static const void *const set##_entry_##object                                                  \
        __attribute__((used, section(#set))) = &(object)

#define LINKSET_DECLARE(set)                                                                       \
    extern const void *const __start_##set[] __attribute__((weak, visibility("hidden")));          \
    extern const void *const __stop_##set[] __attribute__((weak, visibility("hidden")))

#define LINKSET_FOREACH(set, type, var)                                                            \
    for (const void *const *var##_it = __start_##set; var##_it < __stop_##set; var##_it++)         \
        for (const type *var = *var##_it; var; var = NULL)
