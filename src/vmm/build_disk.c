/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks: -drive and -blockdev into images, and the devices that if=virtio makes. */
#include "vmm/build.h"

#include "image/image.h"
#include "image/node.h"

#include <string.h>

/* What -drive and -blockdev say. Strings are the option lists'. */
struct disk_options {
    const char *filename, *format, *node_name;
    bool read_only, auto_read_only, snapshot;
    bool direct, no_flush, writethrough;
    bool discard, locking, force_share;
};

void vm_drive_free(gpointer drive)
{
    struct vm_drive *d = drive;
    image_close(d->image);
    g_free(d->id);
    g_free(d->serial);
    g_free(d->werror);
    g_free(d->rerror);
    g_free(d);
}

struct vm_drive *vmm_find_drive(struct vmm *v, const char *id)
{
    for (guint i = 0; i < v->drives->len; i++) {
        struct vm_drive *d = g_ptr_array_index(v->drives, i);
        if (!strcmp(d->id, id))
            return d;
    }
    return NULL;
}

static const struct {
    const char *name;
    bool direct, no_flush, writethrough;
} cache_modes[] = {
    { "writeback", false, false, false },   { "none", true, false, false },
    { "writethrough", false, false, true }, { "directsync", true, false, true },
    { "unsafe", false, true, false },       { "off", true, false, false },
};

static bool parse_cache(struct kv_list *l, struct disk_options *o, GError **error)
{
    const char *mode = kv_get(l, "cache");
    const char *names[G_N_ELEMENTS(cache_modes) + 1] = { NULL };
    bool known = !mode, writeback = true;
    for (size_t i = 0; i < G_N_ELEMENTS(cache_modes); i++) {
        names[i] = cache_modes[i].name;
        if (!mode || strcmp(mode, cache_modes[i].name))
            continue;
        known = true;
        o->direct = cache_modes[i].direct;
        o->no_flush = cache_modes[i].no_flush;
        o->writethrough = cache_modes[i].writethrough;
    }
    if (!known)
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown cache mode '%s'%s", mode,
                           suggest_phrase(mode, names));
    if (!kv_get_bool(l, "cache.direct", &o->direct, error) ||
        !kv_get_bool(l, "cache.no-flush", &o->no_flush, error) ||
        !kv_get_bool(l, "cache.writeback", &writeback, error))
        return false;
    if (kv_has(l, "cache.writeback"))
        o->writethrough = !writeback;
    return true;
}

static bool parse_discard(struct kv_list *l, struct disk_options *o, GError **error)
{
    static const char *const words[] = { "ignore", "off", "unmap", "on", NULL };
    int word = 0;
    if (!kv_get_word(l, "discard", words, &word, error))
        return false;
    o->discard = word >= 2;
    return true;
}

/* file.locking is on, off or auto; auto takes the lock where the file system has locks, as on does
 * here. */
static bool parse_locking(struct kv_list *l, struct disk_options *o, GError **error)
{
    static const char *const words[] = { "off", "on", "auto", NULL };
    int word = 2;
    if (!kv_get_word(l, "file.locking", words, &word, error) ||
        !kv_get_word(l, "locking", words, &word, error))
        return false;
    o->locking = word > 0;
    return true;
}

static bool parse_on_error(struct kv_list *l, const char *key, char **ret, GError **error)
{
    static const char *const words[] = { "report", "ignore", "stop", "enospc", "auto", NULL };
    int word = 0;
    if (!kv_get_word(l, key, words, &word, error))
        return false;
    if (kv_get(l, key) && word != 4)
        *ret = g_strdup(words[word]);
    return true;
}

static bool check_words(struct kv_list *l, GError **error)
{
    static const char *const aios[] = { "io_uring", "native", "threads", NULL };
    static const char *const zeroes[] = { "off", "on", "unmap", NULL };
    static const char *const media[] = { "disk", "cdrom", NULL };
    int word;
    return kv_get_word(l, "aio", aios, &word, error) &&
           kv_get_word(l, "media", media, &word, error) &&
           kv_get_word(l, "file.aio", aios, &word, error) &&
           kv_get_word(l, "detect-zeroes", zeroes, &word, error);
}

static bool parse_image(struct kv_list *l, struct disk_options *o, GError **error)
{
    const char *format = kv_get(l, "format"), *media = kv_get(l, "media");
    *o = (struct disk_options){ .locking = true, .format = format };
    o->read_only = media && !strcmp(media, "cdrom");
    return check_words(l, error) && parse_cache(l, o, error) && parse_discard(l, o, error) &&
           parse_locking(l, o, error) && kv_get_bool(l, "readonly", &o->read_only, error) &&
           kv_get_bool(l, "read-only", &o->read_only, error) &&
           kv_get_bool(l, "auto-read-only", &o->auto_read_only, error) &&
           kv_get_bool(l, "snapshot", &o->snapshot, error);
}

static JsonObject *file_options(const struct disk_options *o)
{
    JsonObject *file = json_object_new();
    json_object_set_string_member(file, "driver", "file");
    json_object_set_string_member(file, "filename", o->filename);
    json_object_set_string_member(file, "locking", o->locking ? "auto" : "off");
    json_object_set_boolean_member(file, "auto-read-only", o->auto_read_only);
    return file;
}

static struct node *open_node(struct vmm *v, const struct disk_options *o, GError **error)
{
    if (!o->filename || !*o->filename) {
        ruche_error(error, RUCHE_ERR_INVALID, "an image needs a file name");
        return NULL;
    }
    g_autoptr(JsonObject) node = json_object_new();
    JsonObject *cache = json_object_new();
    json_object_set_boolean_member(cache, "direct", o->direct);
    json_object_set_boolean_member(cache, "no-flush", o->no_flush);
    json_object_set_string_member(node, "driver", o->format ? o->format : "raw");
    json_object_set_object_member(node, "file", file_options(o));
    json_object_set_object_member(node, "cache", cache);
    json_object_set_string_member(node, "discard", o->discard ? "unmap" : "ignore");
    json_object_set_boolean_member(node, "force-share", o->force_share);
    if (o->node_name)
        json_object_set_string_member(node, "node-name", o->node_name);
    return node_open(v->graph, node, o->read_only ? 0 : NODE_RW, error);
}

static bool add_drive(struct vmm *v, struct vm_drive *d, const struct disk_options *o,
                      GError **error)
{
    if (vmm_find_drive(v, d->id)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "the name '%s' is taken", d->id);
        vm_drive_free(d);
        return false;
    }
    d->write_through = o->writethrough;
    d->direct = o->direct;
    d->no_flush = o->no_flush;
    struct node *n = open_node(v, o, error);
    d->image = n ? image_new(d->id, n, error) : NULL;
    node_unref(n);
    if (!d->image) {
        vm_drive_free(d);
        return false;
    }
    g_ptr_array_add(v->drives, d);
    return true;
}

static bool open_drive(struct vmm *v, struct kv_list *l, unsigned index, GError **error)
{
    struct disk_options o;
    struct vm_drive *d = g_new0(struct vm_drive, 1);
    const char *id = kv_get(l, "id"), *bus = kv_get(l, "if"), *file = kv_get(l, "file");
    d->is_drive = true;
    d->id = id ? g_strdup(id) : g_strdup_printf("%s%u", bus ? bus : "virtio", index);
    d->serial = g_strdup(kv_get(l, "serial"));
    if (!parse_image(l, &o, error) || !parse_on_error(l, "werror", &d->werror, error) ||
        !parse_on_error(l, "rerror", &d->rerror, error)) {
        vm_drive_free(d);
        return false;
    }
    o.filename = file ? file : kv_get(l, "file.filename");
    o.node_name = kv_get(l, "node-name") ? kv_get(l, "node-name") : d->id;
    o.snapshot |= v->options.snapshot;
    return add_drive(v, d, &o, error);
}

/* ---- -blockdev ---- */

static const char *const format_keys[] = {
    "driver",
    "node-name",
    "file",
    "read-only",
    "auto-read-only",
    "cache.direct",
    "cache.no-flush",
    "discard",
    "detect-zeroes",
    "force-share",
    "file.driver",
    "file.filename",
    "file.locking",
    "file.aio",
    "file.cache.direct",
    "file.cache.no-flush",
    "file.discard",
    "file.read-only",
    "file.auto-read-only",
    "file.node-name",
    NULL,
};
static const char *const file_keys[] = {
    "driver",
    "node-name",
    "filename",
    "read-only",
    "auto-read-only",
    "cache.direct",
    "cache.no-flush",
    "discard",
    "detect-zeroes",
    "force-share",
    "locking",
    "aio",
    NULL,
};

static struct kv_list *find_node(struct vmm *v, const char *name)
{
    for (guint i = 0; i < v->options.blockdevs->len; i++) {
        struct kv_list *l = g_ptr_array_index(v->options.blockdevs, i);
        if (!strcmp(kv_get(l, "node-name"), name))
            return l;
    }
    return NULL;
}

/* Another node has it as its file= child: the file is opened once, through that one. */
static bool is_child(struct vmm *v, const char *name)
{
    for (guint i = 0; i < v->options.blockdevs->len; i++) {
        struct kv_list *l = g_ptr_array_index(v->options.blockdevs, i);
        const char *file = kv_get(l, "file");
        if (file && !strcmp(file, name))
            return true;
    }
    return false;
}

/* What a `file` or `host_device` node says, over what its parent said. */
static bool merge_file(struct kv_list *l, struct disk_options *o, GError **error)
{
    if (!kv_check_known(l, file_keys, error) || !parse_locking(l, o, error) ||
        !check_words(l, error) || !kv_get_bool(l, "cache.direct", &o->direct, error) ||
        !kv_get_bool(l, "cache.no-flush", &o->no_flush, error))
        return false;
    o->filename = kv_get(l, "filename");
    if (!o->filename)
        return ruche_error(error, RUCHE_ERR_INVALID, "node '%s' lacks 'filename'",
                           kv_get(l, "node-name"));
    return true;
}

/* driver=raw: the file is nested (file.filename=) or another node (file=NAME). */
static bool merge_raw(struct vmm *v, struct kv_list *l, struct disk_options *o, GError **error)
{
    const char *node = kv_get(l, "node-name"), *file = kv_get(l, "file");
    if (!kv_check_known(l, format_keys, error) ||
        !kv_get_bool(l, "file.cache.direct", &o->direct, error) ||
        !kv_get_bool(l, "file.cache.no-flush", &o->no_flush, error))
        return false;
    if (!file) {
        o->filename = kv_get(l, "file.filename");
        return o->filename || ruche_error(error, RUCHE_ERR_INVALID, "node '%s' lacks 'file'", node);
    }
    struct kv_list *child = find_node(v, file);
    if (!child)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "node '%s': there is no node '%s'", node,
                           file);
    if (!strcmp(kv_get(child, "driver"), "raw"))
        return ruche_error(error, RUCHE_ERR_INVALID, "node '%s': '%s' is not a file node", node,
                           file);
    return merge_file(child, o, error);
}

static bool open_blockdev(struct vmm *v, struct kv_list *l, GError **error)
{
    struct disk_options o;
    const char *name = kv_get(l, "node-name");
    if (!parse_image(l, &o, error) || !kv_get_bool(l, "force-share", &o.force_share, error))
        return false;
    o.node_name = name;
    o.format = "raw";
    if (!(strcmp(kv_get(l, "driver"), "raw") ? merge_file(l, &o, error)
                                             : merge_raw(v, l, &o, error)))
        return false;
    struct vm_drive *d = g_new0(struct vm_drive, 1);
    d->id = g_strdup(name);
    return add_drive(v, d, &o, error);
}

bool build_drives(struct vmm *v, GError **error)
{
    v->image_context = context_get(v->loop);
    if (!v->image_context)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "images: an I/O context cannot be made");
    v->graph = graph_new(v->image_context);
    for (guint i = 0; i < v->options.blockdevs->len; i++) {
        struct kv_list *l = g_ptr_array_index(v->options.blockdevs, i);
        if (!is_child(v, kv_get(l, "node-name")) && !open_blockdev(v, l, error)) {
            g_prefix_error(error, "-blockdev: ");
            return false;
        }
    }
    for (guint i = 0; i < v->options.drives->len; i++)
        if (!open_drive(v, g_ptr_array_index(v->options.drives, i), i, error)) {
            g_prefix_error(error, "-drive: ");
            return false;
        }
    return true;
}

/* ---- devices ---- */

bool build_drive_devices(struct vmm *v, GError **error)
{
    for (guint i = 0, n = 0; i < v->drives->len; i++) {
        struct vm_drive *d = g_ptr_array_index(v->drives, i);
        if (!d->is_drive)
            continue;
        struct kv_list *from = g_ptr_array_index(v->options.drives, n++);
        const char *bus = kv_get(from, "if");
        if (bus && !strcmp(bus, "none"))
            continue;
        auto_kv *l = kv_parse("driver=virtio-blk-pci", NULL, error);
        if (!kv_add(l, "drive", d->id, error) || !build_device(v, l, error)) {
            g_prefix_error(error, "-drive: ");
            return false;
        }
    }
    return true;
}

static bool has_prop(const struct device *d, const char *name)
{
    for (const struct prop *p = d->type->props; p && p->name; p++)
        if (!strcmp(p->name, name))
            return true;
    return false;
}

bool build_drive_defaults(struct vmm *v, struct device *d, const struct kv_list *given,
                          GError **error)
{
    g_autofree char *id = device_get(d, "drive");
    struct vm_drive *drive = id ? vmm_find_drive(v, id) : NULL;
    if (!drive)
        return true;
    const struct {
        const char *prop, *value;
    } wishes[] = { { "serial", drive->serial },
                   { "werror", drive->werror },
                   { "rerror", drive->rerror },
                   { "write-cache", drive->write_through ? "off" : NULL } };
    for (size_t i = 0; i < G_N_ELEMENTS(wishes); i++)
        if (wishes[i].value && has_prop(d, wishes[i].prop) && !kv_has(given, wishes[i].prop) &&
            !device_set(d, wishes[i].prop, wishes[i].value, error))
            return false;
    return true;
}
