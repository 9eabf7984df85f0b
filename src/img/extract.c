/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img extract: the disks of an OVA archive as images of any format, checked against its
 * manifest.
 *
 * Trust     The archive is hostile: a disk's name in it gives the new image's name, never its
 * folder, and nothing that exists is overwritten by a name out of the archive.
 */
#include "image/ova/ova.h"
#include "img/copy.h"
#include "img/target.h"

#include <stdio.h>
#include <string.h>

struct extract_options {
    struct img_common common;
    GPtrArray *options;
    const char *target_format, *disk, *folder;
    bool list, compress, unverified;
};

struct extraction {
    struct img *img;
    const struct extract_options *o;
    const char *archive, *format;
    struct ova *ova;
    const struct ova_disk *disks;
    unsigned count;
};

/* ---- --list ---- */

static void list_json(const struct extraction *x)
{
    JsonArray *all = json_array_new();
    for (unsigned i = 0; i < x->count; i++) {
        const struct ova_disk *d = &x->disks[i];
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "name", d->name);
        json_object_set_string_member(o, "disk-id", d->disk_id);
        if (d->format)
            json_object_set_string_member(o, "format", d->format);
        json_object_set_int_member(o, "virtual-size", (int64_t)d->capacity_bytes);
        json_object_set_int_member(o, "size", (int64_t)d->size_bytes);
        json_object_set_int_member(o, "offset", (int64_t)d->offset);
        if (d->digest_name)
            json_object_set_string_member(o, d->digest_name, d->digest);
        json_array_add_object_element(all, o);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, all);
    img_print_json(node);
}

static void list_human(const struct extraction *x)
{
    printf("%-4s%-12s%-16s%-12s%s\n", "NR", "FORMAT", "VIRTUAL SIZE", "SIZE", "NAME");
    for (unsigned i = 0; i < x->count; i++) {
        const struct ova_disk *d = &x->disks[i];
        g_autofree char *capacity =
            g_strdup(d->capacity_bytes ? img_size_text(d->capacity_bytes) : "unknown");
        printf("%-4u%-12s%-16s%-12s%s\n", i, d->format ? d->format : "unknown", capacity,
               img_size_text(d->size_bytes), d->name);
    }
}

/* ---- one disk ---- */

/* "vm-disk1.vmdk" to "FOLDER/vm-disk1.qcow2". Caller frees; NULL with *error. */
static char *target_name(const struct extraction *x, const struct ova_disk *d, GError **error)
{
    g_autofree char *base = g_path_get_basename(d->name);
    char *dot = strrchr(base, '.');
    if (dot && dot != base)
        *dot = 0;
    if (*base == '.' || *base == '/' || !*base) {
        ruche_error(error, RUCHE_ERR_INVALID, "'%s': disk '%s' gives no name for an image; say one",
                    x->archive, d->name);
        return NULL;
    }
    g_autofree char *file = g_strdup_printf("%s.%s", base, x->format);
    char *path =
        x->o->folder ? g_build_filename(x->o->folder, file, NULL) : g_strdup_printf("./%s", file);
    if (!g_file_test(path, G_FILE_TEST_EXISTS) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK))
        return path;
    ruche_error(error, RUCHE_ERR_EXISTS, "'%s' exists already; say another name or folder (-d)",
                path);
    g_free(path);
    return NULL;
}

static bool verifying(uint64_t done, uint64_t total, void *opaque)
{
    progress_set(done, total);
    return true;
}

static bool verify(const struct extraction *x, int index, GError **error)
{
    struct ova_progress p = {.fn = verifying};
    if (x->o->unverified)
        return true;
    progress_begin(&x->o->common);
    bool good = ova_verify(x->ova, index, &p, error);
    progress_end(good);
    return good;
}

static bool copy_disk(const struct extraction *x, struct node *disk, struct creation *c,
                      GError **error)
{
    struct target t;
    struct copy_source s = {.node = disk, .len = align_up(node_size(disk), 512)};
    c->size_bytes = s.len;
    if (!target_new(x->img, c, "unsafe", &t, error))
        return false;
    struct copy copy = {
        .sources = &s,
        .source_count = 1,
        .target = t.node,
        .size_bytes = s.len,
        .reads_zero = t.node->zero_init,
        .compress = x->o->compress,
        .one_by_one = c->driver->flags & DRIVER_SEQUENTIAL,
        .min_sparse = 4096,
    };
    progress_begin(&x->o->common);
    bool good = copy_run(&copy, error);
    progress_end(good);
    return target_finish(&t, good, error);
}

static bool extract_disk(const struct extraction *x, unsigned index, const char *name,
                         GError **error)
{
    struct creation c;
    g_autofree char *path = name ? g_strdup(name) : target_name(x, &x->disks[index], error);
    if (!path || !verify(x, (int)index, error) ||
        !creation_init(&c, path, x->format, x->o->options, NULL, NULL, error))
        return false;
    bool good = !x->o->compress || c.driver->flags & DRIVER_COMPRESS;
    if (!good)
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format '%s' cannot be compressed (-c)",
                    x->format);
    struct node *disk = good ? ova_open_disk(x->ova, index, x->o->common.format, error) : NULL;
    good = disk && copy_disk(x, disk, &c, error);
    node_unref(disk);
    creation_clear(&c);
    if (good && !x->o->common.quiet)
        printf("%s -> %s\n", x->disks[index].name, path);
    return good;
}

/* ---- the verb ---- */

static bool extract_all(const struct extraction *x, const char *name, GError **error)
{
    int only = x->o->disk ? ova_find_disk(x->ova, x->o->disk, error) : -1;
    if (x->o->disk && only < 0)
        return false;
    if (name && only < 0 && x->count != 1)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' has %u disks: --disk says which one becomes '%s'", x->archive,
                           x->count, name);
    if (!verify(x, -1, error))
        return false;
    for (unsigned i = 0; i < x->count; i++) {
        if ((only < 0 || (unsigned)only == i) && !extract_disk(x, i, name, error))
            return false;
    }
    return true;
}

static int extract_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct extract_options *o = options;
    GError *error = NULL;
    struct extraction x = {.img = img,
                           .o = o,
                           .archive = operands[0],
                           .format = o->target_format ? o->target_format : "qcow2"};
    if (args_wants_help(o->options))
        return creation_print_help(x.format);
    x.ova = ova_open(img->graph, operands[0], &error);
    if (!x.ova)
        return img_fail(error, 1);
    x.disks = ova_disks(x.ova, &x.count);
    bool good = true;
    if (!o->list)
        good = extract_all(&x, count > 1 ? operands[1] : NULL, &error);
    else if (o->common.output == OUTPUT_JSON)
        list_json(&x);
    else
        list_human(&x);
    ova_close(x.ova);
    return good ? 0 : img_fail(error, 1);
}

#define ROW(l, n, m, k, member, text) ARG_ROW(l, n, m, k, struct extract_options, member, text)
static const struct arg extract_args[] = {
    ROW('l', "list", NULL, ARG_FLAG, list, "Only show which disks there are"),
    ROW('n', "disk", "WHICH", ARG_TEXT, disk, "One disk: its name, its id or its number from 0"),
    ROW('d', "directory", "FOLDER", ARG_TEXT, folder, "Where the new images go (here)"),
    ROW('O', NULL, "FMT", ARG_TEXT, target_format, "Format of the new images (qcow2)"),
    ROW('o', NULL, "OPTIONS", ARG_LIST, options, "Its options; -o help lists them"),
    ROW('c', NULL, NULL, ARG_FLAG, compress, "Compress"),
    ROW(0, "no-verify", NULL, ARG_FLAG, unverified, "Do not compare with the archive's manifest"),
    COMMON('f', "format", "FMT", ARG_TEXT, format,
           "Format of the disks, if not what the archive says"),
    ARG_OUTPUT,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_OBJECT,
    {0},
};

/* In a module: its library for XML is large. */
const struct verb ruche_img_verb = {
    .name = "extract",
    .summary = "Take the disks out of an OVA archive",
    .operands = "FILE [NEW]",
    .args = extract_args,
    .size = sizeof(struct extract_options),
    .min_operands = 1,
    .max_operands = 2,
    .run = extract_run,
};
