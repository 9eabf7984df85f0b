/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options of drivers and formats as tables: one row gives parsing, limits, default and help, for
 * -blockdev, -drive, blockdev-add and `ruche-img create -o` alike.
 *
 * Owner     Strings and JSON values in the target are its own; option_clear() frees them.
 * Trust     Values come from users and QMP peers: typed JSON values, or strings as on a command line.
 * Errors    A sentence with the option, the value and the limit.
 */
#pragma once

#include "base/error.h"
#include "base/util.h"

#include <json-glib/json-glib.h>

enum option_kind { OPTION_STRING, OPTION_BOOL, OPTION_U64, OPTION_SIZE, OPTION_WORD, OPTION_JSON };

struct image_option {
    const char *name; /* "cluster-size" for runtime options, "cluster_size" for create options, as QEMU says;
                       * "encrypt.format" is also found as member "format" of an object "encrypt" */
    enum option_kind kind;
    size_t offset;            /* of a char *, bool, uint64_t, uint64_t, int, JsonNode * */
    uint64_t def, min, max;   /* numbers; bool and word: def; max 0: no limit */
    const char *const *words; /* OPTION_WORD: NULL-terminated; the value is the index */
    const char *help;
};
#define OPT_STRING(n, type, member, text)                                                          \
    { .name = n, .kind = OPTION_STRING, .offset = offsetof(type, member), .help = text }
#define OPT_BOOL(n, type, member, d, text)                                                         \
    { .name = n, .kind = OPTION_BOOL, .offset = offsetof(type, member), .def = d, .help = text }
#define OPT_U64(n, type, member, d, lo, hi, text)                                                  \
    { .name = n, .kind = OPTION_U64, .offset = offsetof(type, member), .def = d, .min = lo,        \
      .max = hi, .help = text }
#define OPT_SIZE(n, type, member, d, lo, hi, text)                                                 \
    { .name = n, .kind = OPTION_SIZE, .offset = offsetof(type, member), .def = d, .min = lo,       \
      .max = hi, .help = text }
#define OPT_WORD(n, type, member, list, d, text)                                                   \
    { .name = n, .kind = OPTION_WORD, .offset = offsetof(type, member), .def = d, .words = list,   \
      .help = text }
/* A list or object, which the driver takes apart itself. */
#define OPT_JSON(n, type, member, text)                                                            \
    { .name = n, .kind = OPTION_JSON, .offset = offsetof(type, member), .help = text }

/* Sets every row's member of `target` from `from` (NULL: none given) or its default, and removes what it
 * used from `from`. `what` begins the messages: "node 'disk0'", "-o". */
bool option_parse(const struct image_option *rows, JsonObject *from, const char *what, void *target,
                  GError **error);
void option_clear(const struct image_option *rows, void *target);
/* False with "unknown option 'x'; did you mean ..." when `left` still has members; extra: names to suggest
 * besides the rows', NULL-terminated, or NULL. */
bool option_all_used(JsonObject *left, const struct image_option *rows, const char *const *extra,
                     const char *what, GError **error);
/* "a=1,b.c=2,d=x,,y" to nested objects of strings; as -blockdev and -o take it. A first value without
 * a key goes to `first_key` (NULL: refused). NULL with *error. */
JsonObject *option_parse_text(const char *text, const char *first_key, GError **error);
/* "  cluster_size=<size>  - Cluster size (default 64 KiB)" lines, sorted. Caller frees. */
char *option_help(const struct image_option *rows);
/* The same of those rows that `names` has (NULL: all), and of `more` (NULL: none), whose names get `prefix`. */
char *option_help_some(const struct image_option *rows, const char *const *names,
                       const struct image_option *more, const char *prefix);
