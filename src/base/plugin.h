/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a program finds its modules; libraries that are loaded when somebody needs them. Thread: any. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* The file beside the program (a build folder), else in the folder that modules are installed in. For g_free(). */
char *plugin_path(const char *installed_dir, const char *file);

/* A symbol of a library and the member that takes its address. */
struct plugin_symbol {
    const char *name;
    size_t at;
};
/* Loads a library by the name that its interface has (never closed) and fills in *ret: all or nothing. The error names
 * the library and `package`, which brings it. Once for each library, or from one thread. */
bool plugin_load(const char *file, const char *package, const struct plugin_symbol *symbols, size_t count, void *ret,
                 GError **error);
/* Of a list F(library, name): the member "name" with the type of library_name, and its row. */
#define PLUGIN_MEMBER(library, name) __typeof__(library##_##name) *name;
#define PLUGIN_ROW(library, name) {#library "_" #name, offsetof(struct library_##library, name)},
