/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img: what its verbs share. One verb is one file with a row in a linker set: name, options,
 * function.
 *
 * Spec      qemu-img(1) of QEMU 7.2: verbs, options, standard output and exit codes are its own.
 * Thread    One; each verb runs in a fiber of the program's only context.
 * Errors    Sentences go to standard error, set once where they are known, printed once by
 * img_fail().
 */
#pragma once

#include "base/error.h"
#include "base/linkset.h"
#include "base/util.h"
#include "image/context.h"
#include "image/driver.h"
#include "image/node.h"

#include <inttypes.h>
#include <json-glib/json-glib.h>

struct img {
    struct context *ctx;
    struct graph *graph;
};

/* SIGINT, SIGTERM and SIGHUP call fn, on the loop, in place of ending the program. NULL: they end
 * it. */
void img_on_end(void (*fn)(void *opaque), void *opaque);

/* ---- options: one table per verb (args.c) ---- */

enum arg_kind {
    ARG_FLAG,   /* bool: true */
    ARG_TEXT,   /* const char *: the last one counts */
    ARG_LIST,   /* GPtrArray *: all of them, in order; made when needed */
    ARG_NUMBER, /* uint64_t within min ... max */
    ARG_SIZE,   /* uint64_t bytes, with K, M, G ...; within min ... max */
    ARG_WORD,   /* int: index in words */
    ARG_ACTION, /* GArray * of struct arg_action: flags and values whose order matters */
};

struct arg {
    char letter;      /* 0: none */
    const char *name; /* NULL: none */
    const char *metavar;
    const char *help;
    enum arg_kind kind;
    size_t offset; /* in the verb's struct */
    uint64_t min, max;
    const char *const *words;
};

struct arg_action {
    const struct arg *arg;
    const char *value; /* NULL: a flag */
};

/* The options that most verbs have; the first member of every verb's struct, so that rows may be
 * shared. */
struct img_common {
    GPtrArray *objects;
    const char *format, *cache, *source_cache;
    bool image_opts, share, quiet, progress;
    int output;
};
#define OUTPUT_HUMAN 0
#define OUTPUT_JSON  1
extern const char *const output_words[];
extern const char *const onoff_words[];

#define ARG_ROW(l, n, m, k, type, member, text)                                                    \
    {                                                                                              \
        .letter = l, .name = n, .metavar = m, .help = text, .kind = k,                             \
        .offset = offsetof(type, member)                                                           \
    }
#define COMMON(l, n, m, k, member, text) ARG_ROW(l, n, m, k, struct img_common, member, text)
#define ARG_OBJECT                                                                                 \
    COMMON(0, "object", "DEF", ARG_LIST, objects, "Define an object, such as a secret")
#define ARG_IMAGE_OPTS                                                                             \
    COMMON(0, "image-opts", NULL, ARG_FLAG, image_opts,                                            \
           "The image is named by options: driver=...,file.filename=...")
#define ARG_FORMAT                                                                                 \
    COMMON('f', "format", "FMT", ARG_TEXT, format, "Format of the image; probed when absent")
#define ARG_SHARE                                                                                  \
    COMMON('U', "force-share", NULL, ARG_FLAG, share,                                              \
           "Open even when another program writes to the image")
#define ARG_QUIET COMMON('q', "quiet", NULL, ARG_FLAG, quiet, "Print errors only")
#define ARG_PROGRESS                                                                               \
    COMMON('p', "progress", NULL, ARG_FLAG, progress, "Print progress to standard output")
#define ARG_CACHE                                                                                  \
    COMMON('t', NULL, "MODE", ARG_TEXT, cache,                                                     \
           "How the image is written: none, writeback, writethrough, directsync, unsafe")
#define ARG_SOURCE_CACHE                                                                           \
    COMMON('T', NULL, "MODE", ARG_TEXT, source_cache, "How the source is read; words as for -t")
#define ARG_OUTPUT                                                                                 \
    {                                                                                              \
        .name = "output", .metavar = "FORM", .help = "Form of the output: human or json",          \
        .kind = ARG_WORD, .offset = offsetof(struct img_common, output), .words = output_words     \
    }

struct verb {
    const char *name, *summary;
    const char *operands;   /* for the usage line */
    const struct arg *args; /* ends with an empty row; NULL: the verb reads its words itself */
    size_t size;            /* of the struct that the options go into, zeroed */
    unsigned min_operands, max_operands;
    bool bare_last;    /* the last word is an operand even when it begins with '-' */
    const char *notes; /* more lines of help, or NULL */
    /* Before the context and its threads exist, or NULL; at least 0: the program's end with that
     * code. */
    int (*before)(void *options);
    /* In a fiber; returns the exit code. */
    int (*run)(struct img *img, void *options, char **operands, unsigned count);
};
LINKSET_DECLARE(img_verbs);
#define IMG_VERB(v) LINKSET_ENTRY(img_verbs, v)

/* Verbs in modules (modules.c): the array ends with NULLs; these have names and summaries alone. */
const struct verb *const *module_verbs(void);
const struct verb *module_verb_load(const char *name, GError **error);
extern const struct verb ruche_img_verb; /* what a module exports */

/* Fills `options` from argv[1 ...] and puts the operands at argv[1 ... *ret_count]. */
bool args_parse(const struct verb *v, int argc, char **argv, void *options, unsigned *ret_count,
                GError **error);
/* What args_parse() allocated. */
void args_clear(const struct verb *v, void *options);
void args_print_help(const struct verb *v);
/* "-o a=1 -o b=2" as "a=1,b=2"; NULL when there is none. Caller frees. */
char *args_join(GPtrArray *list);
bool args_wants_help(GPtrArray *list); /* -o help, -o ? */
/* "10G" or a sentence that names `what`. */
bool args_size(const char *what, const char *text, uint64_t *ret, GError **error);

/* The line of -o help that every format has. */
#define IMG_SIZE_HELP "  size=<size>            - Virtual disk size\n"

/* ---- opening (open.c) ---- */

/* Opens the image as the options say; `cache` NULL: writeback; format NULL: probed. */
struct node *img_open(struct img *img, const struct img_common *c, const char *name,
                      const char *format, const char *cache, unsigned flags, GError **error);
/* An image that was made with these options, for writing. */
struct node *img_open_new(struct img *img, const char *path, const char *format,
                          JsonObject *made_with, const char *cache, GError **error);
/* The same with image-opts given explicitly: for verbs where source and target differ. */
struct node *img_open_as(struct img *img, const char *name, bool image_opts, const char *format,
                         const char *cache, bool share, unsigned flags, GError **error);
/* Every --object, before any image is opened. */
bool img_add_objects(GPtrArray *objects, GError **error);
/* A cache mode's NODE_FUA flag for writes; false: unknown mode. */
bool img_cache_flags(const char *cache, unsigned *ret_write_flags, GError **error);
/* The driver of a format that can be created; sentence otherwise. */
const struct image_driver *img_creatable(const char *format, GError **error);

/* ---- printing (output.c) ---- */

/* Prints "ruche-img: sentence" and frees it; returns code. */
int img_fail(GError *error, int code);
void img_warn(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* "2.32 MiB": three digits, as qemu-img. Static per-thread buffer. */
const char *img_size_text(uint64_t bytes);
/* JSON with 4 spaces a level, to standard output, with a newline. Takes the node. */
void img_print_json(JsonNode *node);
JsonNode *img_json_object(JsonObject *o); /* takes o */
/* "compat: 1.1" lines, nested ones further in. */
void img_print_members(JsonObject *o, unsigned indent);
/* The list of internal snapshots, with its title; nothing when there are none. */
void img_print_snapshots(const struct snapshot_info *list, unsigned count);
void img_free_snapshots(struct snapshot_info *list, unsigned count);

/* ---- fibers (parallel.c) ---- */

/* Runs fn(opaque) in `count` fibers at once; returns when all have returned. */
void img_parallel(unsigned count, void (*fn)(void *opaque), void *opaque);

/* ---- progress (progress.c) ---- */

/* On when -p was given; on a terminal a line on standard error otherwise, unless quiet. */
void progress_begin(const struct img_common *c);
void progress_set(uint64_t done, uint64_t total);
void progress_end(bool finished);
/* What SIGUSR1 and SIGINFO ask for. */
void progress_report(void);
