/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img check: is an image consistent; -r repairs it.
 *
 * Exit code 0: consistent (or repaired), 1: the check failed, 2: corrupt, 3: leaked clusters only,
 * 63: the format has nothing to check.
 */
#include "img/img.h"

#include <stdio.h>

struct check_options {
    struct img_common common;
    int repair;
};

static const char *const repair_words[] = {"none", "leaks", "all", NULL};
#define EXIT_UNSUPPORTED 63

static void print_finding(const char *sentence, void *opaque)
{
    fflush(stdout);
    fprintf(stderr, "%s\n", sentence);
}

static void print_counts(const struct image_check *c)
{
    if (!c->corruptions && !c->leaks && !c->check_errors)
        puts("No errors were found on the image.");
    if (c->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               c->corruptions);
    if (c->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               c->leaks);
    if (c->check_errors)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", c->check_errors);
}

static void print_human(const struct image_check *c)
{
    print_counts(c);
    if (c->total_clusters && c->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64
               " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               c->allocated_clusters, c->total_clusters,
               (double)c->allocated_clusters * 100.0 / (double)c->total_clusters,
               (double)c->fragmented_clusters * 100.0 / (double)c->allocated_clusters,
               (double)c->compressed_clusters * 100.0 / (double)c->allocated_clusters);
    if (c->image_end_offset)
        printf("Image end offset: %" PRIu64 "\n", c->image_end_offset);
}

static void print_json(const struct image_check *c, const char *filename, const char *format)
{
    const struct {
        const char *name;
        uint64_t value;
        bool always;
    } rows[] = {
        {"image-end-offset", c->image_end_offset, false},
        {"total-clusters", c->total_clusters, false},
        {"corruptions", c->corruptions, false},
        {"corruptions-fixed", c->corruptions_fixed, false},
        {"check-errors", c->check_errors, true},
        {"leaks", c->leaks, false},
        {"leaks-fixed", c->leaks_fixed, false},
        {"allocated-clusters", c->allocated_clusters, false},
        {"fragmented-clusters", c->fragmented_clusters, false},
        {"compressed-clusters", c->compressed_clusters, false},
    };
    JsonObject *o = json_object_new();
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        if (rows[i].value || rows[i].always)
            json_object_set_int_member(o, rows[i].name, (int64_t)rows[i].value);
    }
    json_object_set_string_member(o, "filename", filename);
    json_object_set_string_member(o, "format", format);
    img_print_json(img_json_object(o));
}

static bool check_once(struct node *n, unsigned fix, struct image_check *ret, GError **error)
{
    *ret = (struct image_check){.report = print_finding};
    return n->driver->check(n, fix, ret, error);
}

/* What was repaired is checked again: only that result counts. */
static bool check_and_repair(struct node *n, unsigned fix, bool verbose, struct image_check *ret,
                             GError **error)
{
    if (!check_once(n, fix, ret, error))
        return false;
    uint64_t leaks = ret->leaks_fixed, corruptions = ret->corruptions_fixed;
    if (!leaks && !corruptions)
        return true;
    if (verbose)
        printf("The following inconsistencies were found and repaired:\n\n    %" PRIu64
               " leaked clusters\n"
               "    %" PRIu64 " corruptions\n\nDouble checking the fixed image now...\n",
               leaks, corruptions);
    bool good = check_once(n, 0, ret, error);
    ret->leaks_fixed = leaks;
    ret->corruptions_fixed = corruptions;
    return good;
}

static int check_node(struct node *n, const struct check_options *o, const char *filename)
{
    static const unsigned fixes[] = {0, CHECK_FIX_LEAKS, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS};
    GError *error = NULL;
    if (!n->driver->check) {
        ruche_error(&error, RUCHE_ERR_UNSUPPORTED, "images of format '%s' have nothing to check",
                    node_format(n));
        return img_fail(error, EXIT_UNSUPPORTED);
    }
    struct image_check c;
    bool json = o->common.output == OUTPUT_JSON;
    if (!check_and_repair(n, fixes[o->repair], !json && !o->common.quiet, &c, &error))
        return img_fail(error, 1);
    if (json)
        print_json(&c, filename, node_format(n));
    else if (!o->common.quiet)
        print_human(&c);
    if (c.check_errors) {
        ruche_error(&error, RUCHE_ERR_IO,
                    "'%s': the check is incomplete: %" PRIu64 " internal errors", filename,
                    c.check_errors);
        return img_fail(error, 1);
    }
    return c.corruptions ? 2 : c.leaks ? 3 : 0;
}

static int check_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct check_options *o = options;
    GError *error = NULL;
    unsigned flags = NODE_CHECK | NODE_NO_BACKING | (o->repair ? NODE_RW : 0);
    struct node *n = img_open(img, &o->common, operands[0], o->common.format,
                              o->common.source_cache, flags, &error);
    if (!n)
        return img_fail(error, 1);
    int code = check_node(n, o, operands[0]);
    node_unref(n);
    return code;
}

static const struct arg check_args[] = {
    ARG_FORMAT,
    ARG_OUTPUT,
    ARG_QUIET,
    ARG_SHARE,
    ARG_SOURCE_CACHE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {.letter = 'r',
     .name = "repair",
     .metavar = "WHAT",
     .kind = ARG_WORD,
     .words = repair_words,
     .offset = offsetof(struct check_options, repair),
     .help = "Repair what is found: leaks, or all"},
    {0},
};

static const struct verb check_verb = {
    .name = "check",
    .summary = "Check an image for consistency, and repair it",
    .operands = "FILE",
    .args = check_args,
    .size = sizeof(struct check_options),
    .min_operands = 1,
    .max_operands = 1,
    .notes = "Exit codes: 0 consistent, 1 the check failed, 2 corrupt, 3 leaked clusters only,\n"
             "63 the format has nothing to check.\n",
    .run = check_run,
};
IMG_VERB(check_verb);
