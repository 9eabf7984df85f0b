/* SPDX-License-Identifier: GPL-2.0-or-later */
/* -drive: a disk in one line. What belongs to the disk as the machine sees it (id, interface, cache
 * mode, limits, error policy) is taken out; the rest are options of its nodes, as -blockdev has
 * them.
 *
 * Trust     A format is probed only where the guest cannot have written what is probed: read-only
 *           disks, and those whose writes go to a temporary file; or by format=auto.
 */
#include "vmm/block.h"

#include "image/driver.h"
#include "image/graph.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const struct throttle_name throttle_names[] = {
    { "bps", "bps-total", THROTTLE_BPS_TOTAL },
    { "bps_rd", "bps-read", THROTTLE_BPS_READ },
    { "bps_wr", "bps-write", THROTTLE_BPS_WRITE },
    { "iops", "iops-total", THROTTLE_OPS_TOTAL },
    { "iops_rd", "iops-read", THROTTLE_OPS_READ },
    { "iops_wr", "iops-write", THROTTLE_OPS_WRITE },
    { NULL, NULL, 0 },
};

/* Of the disk rather than of its nodes; the rest goes to them. */
static const char *const drive_keys[] = {
    "file",
    "if",
    "format",
    "driver",
    "index",
    "bus",
    "unit",
    "media",
    "cache",
    "aio",
    "readonly",
    "snapshot",
    "id",
    "werror",
    "rerror",
    "serial",
    "addr",
    "copy-on-read",
    "locking",
    "cache.writeback",
    "read-only",
    "group",
    "iops_size",
    "throttling.group",
    "throttling.iops-size",
    NULL,
};

static const struct {
    const char *name;
    bool direct, no_flush, writethrough;
} cache_modes[] = {
    { "writeback", false, false, false },   { "none", true, false, false },
    { "writethrough", false, false, true }, { "directsync", true, false, true },
    { "unsafe", false, true, false },       { "off", true, false, false },
};

struct drive_options {
    JsonObject *node; /* for the format's node, and in "file" for the file's */
    const char *file, *format, *throttle_group;
    bool read_only, snapshot, writethrough, copy_on_read;
    bool limited;
    struct throttle_limits limits;
};

/* ---- taking options ---- */

/* "a.b.c" as nested objects; what is no object there is left as it is. */
static void set_dotted(JsonObject *o, const char *key, const char *value)
{
    const char *dot = strchr(key, '.');
    if (!dot) {
        json_object_set_string_member(o, key, value);
        return;
    }
    g_autofree char *head = g_strndup(key, dot - key);
    JsonNode *n = json_object_get_member(o, head);
    if (n && !JSON_NODE_HOLDS_OBJECT(n))
        return;
    if (!n)
        json_object_set_object_member(o, head, json_object_new());
    set_dotted(json_object_get_object_member(o, head), dot + 1, value);
}

static bool parse_cache(struct kv_list *l, struct drive_options *o, GError **error)
{
    const char *mode = kv_get(l, "cache");
    const char *names[G_N_ELEMENTS(cache_modes) + 1] = { NULL };
    bool known = !mode, writeback = true;
    for (size_t i = 0; i < G_N_ELEMENTS(cache_modes); i++) {
        names[i] = cache_modes[i].name;
        if (!mode || strcmp(mode, cache_modes[i].name))
            continue;
        known = true;
        set_dotted(o->node, "cache.direct", cache_modes[i].direct ? "on" : "off");
        set_dotted(o->node, "cache.no-flush", cache_modes[i].no_flush ? "on" : "off");
        o->writethrough = cache_modes[i].writethrough;
    }
    if (!known)
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown cache mode '%s'%s", mode,
                           suggest_phrase(mode, names));
    if (!kv_get_bool(l, "cache.writeback", &writeback, error))
        return false;
    if (kv_has(l, "cache.writeback"))
        o->writethrough = !writeback;
    return true;
}

static bool get_limit(struct kv_list *l, const char *old, const char *new, uint64_t *ret,
                      GError **error)
{
    g_autofree char *key = g_strdup_printf("throttling.%s", new);
    return kv_get_u64(l, old, 0, THROTTLE_VALUE_MAX, ret, error) &&
           kv_get_u64(l, key, 0, THROTTLE_VALUE_MAX, ret, error);
}

static bool parse_limits(struct kv_list *l, struct drive_options *o, GError **error)
{
    for (const struct throttle_name *t = throttle_names; t->qmp; t++) {
        g_autofree char *max = g_strdup_printf("%s_max", t->qmp),
                        *length = g_strdup_printf("%s_max_length", t->qmp),
                        *new_max = g_strdup_printf("%s-max", t->option),
                        *new_length = g_strdup_printf("%s-max-length", t->option);
        o->limits.of[t->kind].length = 1;
        if (!get_limit(l, t->qmp, t->option, &o->limits.of[t->kind].avg, error) ||
            !get_limit(l, max, new_max, &o->limits.of[t->kind].max, error) ||
            !get_limit(l, length, new_length, &o->limits.of[t->kind].length, error))
            return false;
    }
    if (!get_limit(l, "iops_size", "iops-size", &o->limits.op_size, error))
        return false;
    o->throttle_group =
        kv_get(l, "throttling.group") ? kv_get(l, "throttling.group") : kv_get(l, "group");
    o->limited = throttle_is_limited(&o->limits) || o->throttle_group;
    return throttle_check(&o->limits, error);
}

static bool is_limit(const char *key)
{
    for (const struct throttle_name *t = throttle_names; t->qmp; t++) {
        size_t len = strlen(t->qmp);
        if (!strncmp(key, t->qmp, len) &&
            (!key[len] || !strcmp(key + len, "_max") || !strcmp(key + len, "_max_length")))
            return true;
    }
    return g_str_has_prefix(key, "throttling.");
}

static bool check_words(struct kv_list *l, GError **error)
{
    static const char *const aios[] = { "io_uring", "native", "threads", NULL };
    static const char *const media[] = { "disk", "cdrom", NULL };
    int word;
    return kv_get_word(l, "aio", aios, &word, error) &&
           kv_get_word(l, "media", media, &word, error);
}

static bool parse_drive(struct vmm *v, struct kv_list *l, struct drive_options *o, GError **error)
{
    const char *media = kv_get(l, "media"), *format = kv_get(l, "format");
    o->file = kv_get(l, "file");
    o->format = format ? format : kv_get(l, "driver");
    o->read_only = media && !strcmp(media, "cdrom");
    o->snapshot = v->options.snapshot;
    if (!check_words(l, error) || !parse_cache(l, o, error) || !parse_limits(l, o, error) ||
        !kv_get_bool(l, "readonly", &o->read_only, error) ||
        !kv_get_bool(l, "read-only", &o->read_only, error) ||
        !kv_get_bool(l, "snapshot", &o->snapshot, error) ||
        !kv_get_bool(l, "copy-on-read", &o->copy_on_read, error))
        return false;
    for (size_t i = 0; i < l->count; i++) {
        const char *key = l->pairs[i].key;
        if (!g_strv_contains(drive_keys, key) && !is_limit(key))
            set_dotted(o->node, key, l->pairs[i].value);
    }
    if (kv_has(l, "locking"))
        set_dotted(o->node, "file.locking", kv_get(l, "locking"));
    return true;
}

/* ---- nodes ---- */

/* file=NAME and the file.* beside it. */
static bool merge_file(struct drive_options *o, GError **error)
{
    if (!o->file)
        return true;
    g_autoptr(JsonObject) file = name_to_options(o->file, error);
    if (!file)
        return false;
    JsonObject *more = json_object_has_member(o->node, "file")
                           ? json_object_get_object_member(o->node, "file")
                           : NULL;
    g_autoptr(GList) names = more ? json_object_get_members(more) : NULL;
    for (GList *n = names; n; n = n->next)
        json_object_set_member(file, n->data, json_object_dup_member(more, n->data));
    json_object_set_object_member(o->node, "file", g_steal_pointer(&file));
    return true;
}

/* "json:{...}" and "nbd:" may say the format themselves. */
static const char *format_in_name(const struct drive_options *o)
{
    JsonObject *file = json_object_get_object_member(o->node, "file");
    const char *driver = json_object_get_string_member_with_default(file, "driver", NULL);
    const struct image_driver *d = driver ? driver_find(driver, NULL) : NULL;
    return d && d->kind != DRIVER_PROTOCOL ? driver : NULL;
}

/* What a look at the image says, for the sentence that asks for format=. */
static char *looks_like(struct vmm *v, struct drive_options *o)
{
    struct node *n = node_open_name(v->graph, o->file, NULL, NULL,
                                    NODE_PROBE | NODE_NO_BACKING | NODE_NO_IO | NODE_NO_LOCK, NULL);
    char *format = g_strdup(n ? node_format(n) : "raw");
    node_unref(n);
    return format;
}

static bool refuse_probing(struct vmm *v, struct drive_options *o, GError **error)
{
    g_autofree char *format = o->file ? looks_like(v, o) : g_strdup("raw");
    return ruche_error(
        error, RUCHE_ERR_INVALID,
        "'%s': say format=%s, as which it looks, or another format: it is not guessed for a disk "
        "that the "
        "guest can write to, who could make a raw image look like one of another format "
        "(format=auto guesses all the same)",
        o->file ? o->file : "file.driver", format);
}

static struct node *open_nodes(struct vmm *v, struct drive_options *o, GError **error)
{
    bool writes = !o->read_only && !o->snapshot, probe = !o->format || !strcmp(o->format, "auto");
    if (!merge_file(o, error))
        return NULL;
    if (!json_object_has_member(o->node, "file") ||
        !JSON_NODE_HOLDS_OBJECT(json_object_get_member(o->node, "file"))) {
        ruche_error(error, RUCHE_ERR_INVALID, "'file' is missing");
        return NULL;
    }
    const char *inner = probe ? format_in_name(o) : NULL;
    if (inner) { /* the name is the whole tree */
        JsonObject *tree = json_object_ref(json_object_get_object_member(o->node, "file"));
        json_object_remove_member(o->node, "file");
        g_autoptr(GList) names = json_object_get_members(o->node);
        for (GList *n = names; n; n = n->next)
            json_object_set_member(tree, n->data, json_object_dup_member(o->node, n->data));
        json_object_unref(o->node);
        o->node = tree;
        probe = false;
    } else if (!probe) {
        json_object_set_string_member(o->node, "driver", o->format);
    }
    if (probe && writes && !o->format && !refuse_probing(v, o, error))
        return NULL;
    unsigned flags = (writes ? NODE_RW : 0) | (probe ? NODE_PROBE : 0);
    return o->copy_on_read ? node_open(v->graph, o->node, flags, error) : block_open_node(v, o->node, flags, error);
}

/* ---- snapshot=on ---- */

struct overlay_call {
    struct graph *graph;
    const char *path;
    uint64_t size;
    GError **error;
};

static int create_overlay(void *opaque)
{
    struct overlay_call *c = opaque;
    const struct image_driver *qcow2 = driver_find("qcow2", c->error);
    return qcow2 && image_create(c->graph, qcow2, c->path, c->size, NULL, NULL, NULL, c->error)
               ? 0
               : -EIO;
}

static struct node *open_overlay(struct vmm *v, const char *path, struct node *base, GError **error)
{
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_string_member(o, "driver", "qcow2");
    set_dotted(o, "file.driver", "file");
    set_dotted(o, "file.filename", path);
    set_dotted(o, "cache.no-flush", "on"); /* nothing of it outlives the machine */
    set_dotted(o, "discard", "unmap");
    json_object_set_string_member(o, "backing", node_name(base));
    return node_open(v->graph, o, NODE_RW, error);
}

/* Writes go to a temporary image that has no name any more. Takes the reference to base. */
static struct node *add_overlay(struct vmm *v, struct node *base, GError **error)
{
    const char *folder = g_getenv("TMPDIR") ? g_getenv("TMPDIR") : "/var/tmp";
    g_autofree char *path = g_build_filename(folder, "ruche-snapshot-XXXXXX", NULL);
    int fd = g_mkstemp(path);
    struct node *n = NULL;
    if (fd < 0) {
        ruche_error_errno(error, errno, "snapshot: no temporary file can be made in '%s'", folder);
    } else {
        close(fd);
        struct overlay_call c = {
            .graph = v->graph, .path = path, .size = node_size(base), .error = error
        };
        if (context_run(v->image_context, create_overlay, &c) >= 0)
            n = open_overlay(v, path, base, error);
        unlink(path);
    }
    node_unref(base);
    return n;
}

static struct node *add_filter(struct vmm *v, const char *driver, struct node *below,
                               GError **error)
{
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_string_member(o, "driver", driver);
    json_object_set_string_member(o, "file", node_name(below));
    struct node *n = node_open(v->graph, o, NODE_RW, error);
    node_unref(below);
    return n;
}

/* ---- the drive ---- */

static bool parse_on_error(struct kv_list *l, const char *key, enum image_on_error *ret,
                           GError **error)
{
    int word = *ret;
    if (!kv_get_word(l, key, on_error_words, &word, error))
        return false;
    if (word <= IMAGE_ERROR_ENOSPC)
        *ret = (enum image_on_error)word;
    return true;
}

static bool finish_drive(struct vm_drive *d, struct kv_list *l, const struct drive_options *o,
                         GError **error)
{
    enum image_on_error read, write;
    image_get_on_error(d->image, &read, &write);
    if (!parse_on_error(l, "rerror", &read, error) || !parse_on_error(l, "werror", &write, error))
        return false;
    image_set_on_error(d->image, read, write);
    image_set_writethrough(d->image, o->writethrough);
    if (o->limited)
        image_set_throttle(d->image, o->throttle_group ? o->throttle_group : d->id, &o->limits);
    return true;
}

static struct node *open_drive_node(struct vmm *v, struct drive_options *o, GError **error)
{
    struct node *n = open_nodes(v, o, error);
    if (n && o->snapshot && !o->read_only)
        n = add_overlay(v, n, error);
    if (n && o->copy_on_read)
        n = add_filter(v, "copy-on-read", n, error);
    return n;
}

bool drive_open(struct vmm *v, struct kv_list *l, unsigned index, GError **error)
{
    const char *id = kv_get(l, "id"), *bus = kv_get(l, "if");
    struct drive_options o = { .node = json_object_new() };
    struct vm_drive *d = g_new0(struct vm_drive, 1);
    struct node *n = NULL;
    d->is_drive = true;
    d->id = id ? g_strdup(id) : g_strdup_printf("%s%u", bus ? bus : "virtio", index);
    d->serial = g_strdup(kv_get(l, "serial"));
    bool ok = !vmm_find_drive(v, d->id) ||
              ruche_error(error, RUCHE_ERR_EXISTS, "the name '%s' is taken", d->id);
    ok = ok && parse_drive(v, l, &o, error) && (n = open_drive_node(v, &o, error));
    d->image = ok ? image_new(d->id, n, error) : NULL;
    node_unref(n);
    ok = d->image && finish_drive(d, l, &o, error);
    json_object_unref(o.node);
    if (!ok) {
        vm_drive_free(d);
        return false;
    }
    g_ptr_array_add(v->drives, d);
    return true;
}
