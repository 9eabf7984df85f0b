/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Format "qcow2": opening and closing, options, what it says of itself, and the driver's row.
 *
 * Spec      qcow2, versions 2 and 3.
 * Thread    The node's home thread.
 * Trust     See internal.h.
 */
#include "image/qcow2/internal.h"

#include "base/cursor.h"
#include "base/log.h"

#include <errno.h>

static const struct image_option open_options[] = {
    OPT_BOOL("lazy-refcounts", struct qcow2, opt.lazy_refcounts, false,
             "Postpone refcount updates (default: as the image says)"),
    OPT_BOOL("pass-discard-request", struct qcow2, opt.pass_discard_request, true,
             "Pass the guest's discards on to the file"),
    OPT_BOOL("pass-discard-snapshot", struct qcow2, opt.pass_discard_snapshot, true,
             "Discard in the file what snapshots no longer use"),
    OPT_BOOL("pass-discard-other", struct qcow2, opt.pass_discard_other, false,
             "Discard in the file whatever else becomes free"),
    OPT_JSON("overlap-check", struct qcow2, opt.overlap_check,
             "Which metadata is protected against writes: none, constant, cached (default), all"),
    OPT_SIZE("cache-size", struct qcow2, opt.cache_bytes, 0, 0, 0, "Of all metadata caches"),
    OPT_SIZE("l2-cache-size", struct qcow2, opt.l2_cache_bytes, 0, 0, 0, "Of the L2 table cache"),
    OPT_SIZE("l2-cache-entry-size", struct qcow2, opt.l2_entry_bytes, 0, 0, 0,
             "Of one piece of an L2 table"),
    OPT_SIZE("refcount-cache-size", struct qcow2, opt.refcount_cache_bytes, 0, 0, 0,
             "Of the refcount block cache"),
    OPT_U64("cache-clean-interval", struct qcow2, opt.cache_clean_sec, 600, 0, 1 << 30,
            "Seconds after which unused cache entries are freed; 0: never"),
    OPT_STRING("encrypt.format", struct qcow2, opt.encrypt_format, "Encryption: luks"),
    OPT_STRING("encrypt.key-secret", struct qcow2, opt.encrypt_key,
               "ID of the secret that unlocks the image"),
    {0},
};

/* ---- opening ---- */

static struct node_child *child_of_role(struct node *n, enum child_role role)
{
    for (unsigned i = 0; i < n->child_count; i++)
        if (n->children[i]->role == role)
            return n->children[i];
    return NULL;
}

static bool check_writable(struct qcow2 *s, GError **error)
{
    const struct node *n = &s->node;
    if (n->read_only || n->open_flags & NODE_CHECK)
        return true;
    if (s->header.incompatible & QCOW2_INCOMPAT_CORRUPT)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "'%s' is marked as corrupt and can only be opened read-only; repair it "
                           "with check -r all",
                           n->filename);
    return true;
}

static bool open_data_file(struct qcow2 *s, GError **error)
{
    struct node *n = &s->node;
    s->data_child = s->file_child;
    if (!(s->header.incompatible & QCOW2_INCOMPAT_DATA_FILE)) {
        if (json_object_has_member(n->options, "data-file"))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "'%s' keeps its data inside; data-file was given", n->filename);
        return true;
    }
    struct node *data = NULL;
    if (json_object_has_member(n->options, "data-file") || !s->ext.data_file)
        data = node_open_child(n, "data-file", CHILD_DATA, true, error);
    else
        data = node_open_named_child(n, "data-file", CHILD_DATA, s->ext.data_file, NULL, error);
    if (!data)
        return false;
    s->data_external = true;
    s->data_raw = s->header.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    s->data_child = child_of_role(n, CHILD_DATA);
    return true;
}

struct backing_call {
    struct qcow2 *s;
    GError **error;
};

static int open_backing_node(void *opaque)
{
    struct backing_call *c = opaque;
    struct node *n = &c->s->node;
    if (json_object_has_member(n->options, "backing"))
        return !node_open_child(n, "backing", CHILD_BACKING, true, c->error);
    return !node_open_named_child(n, "backing", CHILD_BACKING, n->backing_file, n->backing_format,
                                  c->error);
}

static bool open_backing(struct qcow2 *s, GError **error)
{
    struct node *n = &s->node;
    bool given = json_object_has_member(n->options, "backing");
    if (n->backing_file && s->data_raw)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': a backing file and raw external data contradict each other",
                           n->filename);
    if (n->open_flags & NODE_NO_BACKING)
        return true;
    n->backing_overridden = given;
    if (given ? JSON_NODE_HOLDS_NULL(json_object_get_member(n->options, "backing"))
              : !n->backing_file)
        return true;
    struct backing_call c = {.s = s, .error = error};
    if (qcow2_on_new_stack(open_backing_node, &c))
        return false;
    for (struct node *b = node_backing(n); b; b = node_backing(b))
        s->depth++;
    return true;
}

static void set_limits(struct qcow2 *s)
{
    struct node *n = &s->node;
    n->size_bytes = s->header.size_bytes;
    n->cluster_bytes = s->cluster_bytes;
    n->zero_align = s->subcluster_bytes;
    n->discard_align = s->cluster_bytes;
    n->zero_flags = NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->zero_init = true;
    n->unclean = s->header.incompatible & QCOW2_INCOMPAT_DIRTY;
}

static bool open_header(struct qcow2 *s, GError **error)
{
    struct node *n = &s->node;
    if (!qcow2_header_read(qcow2_file(s), n->filename, n->open_flags, &s->header, &s->ext,
                           &n->backing_file, error))
        return false;
    n->backing_format = g_strdup(s->ext.backing_format);
    qcow2_geometry(s);
    return check_writable(s, error);
}

static bool open_tables(struct qcow2 *s, GError **error)
{
    uint64_t end = node_size(qcow2_file(s));
    s->fresh_offset = align_up(end, s->cluster_bytes);
    return qcow2_overlap_parse(s, error) && qcow2_caches_open(s, error) &&
           qcow2_reftable_load(s, error) && qcow2_l1_load(s, error);
}

/* It was not closed: its counts are made right before anything relies on them. */
static bool repair_unclean(struct qcow2 *s, GError **error)
{
    struct node *n = &s->node;
    struct image_check found = {0};
    if (!(s->header.incompatible & QCOW2_INCOMPAT_DIRTY) || n->open_flags & NODE_CHECK)
        return true;
    if (!qcow2_check(n, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &found, error))
        return false;
    if (found.corruptions || found.check_errors)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "'%s' was not closed and has %" G_GUINT64_FORMAT
                           " errors that opening it cannot repair; see check -r all",
                           n->filename, found.corruptions + found.check_errors);
    return true;
}

/* What must be so before the first write. */
static bool prepare_writing(struct qcow2 *s, GError **error)
{
    if (s->node.read_only)
        return true;
    uint64_t autoclear = s->header.autoclear;
    s->header.autoclear &= QCOW2_AUTOCLEAR_KNOWN;
    int r = autoclear == s->header.autoclear ? 0 : qcow2_header_write_fields(s);
    if (!r)
        r = qcow2_places_rebuild(s);
    if (r)
        return ruche_error_errno(error, -r, "'%s' cannot be prepared for writing",
                                 s->node.filename);
    return repair_unclean(s, error);
}

static void clean_timer_arm(struct qcow2 *s)
{
    loop_timer_arm(&s->clean_timer, loop_now_ns() + (int64_t)s->opt.cache_clean_sec * NS_PER_SEC);
}

static void clean_caches(void *opaque)
{
    struct qcow2 *s = opaque;
    qcow2_cache_trim(&s->l2_cache);
    qcow2_cache_trim(&s->refcount_cache);
    clean_timer_arm(s);
}

static void attach(struct node *n)
{
    struct qcow2 *s = qcow2_of(n);
    if (!s->opt.cache_clean_sec)
        return;
    loop_timer_init(context_loop(n->ctx), &s->clean_timer, clean_caches, s);
    s->clean_timer_on = true;
    clean_timer_arm(s);
}

static void detach(struct node *n)
{
    struct qcow2 *s = qcow2_of(n);
    if (s->clean_timer_on)
        loop_timer_done(&s->clean_timer);
    s->clean_timer_on = false;
}

static bool qcow2_open(struct node *n, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    s->file_child = child_of_role(n, CHILD_FILE);
    if (!open_header(s, error) || !open_tables(s, error))
        return false;
    set_limits(s);
    if (!json_object_has_member(n->options, "lazy-refcounts"))
        s->opt.lazy_refcounts = s->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
    if (s->opt.lazy_refcounts && s->header.version < 3)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': lazy-refcounts needs qcow2 version 3 (compat=1.1)", n->filename);
    if (!open_data_file(s, error) || !qcow2_crypt_open(s, error) || !open_backing(s, error) ||
        !qcow2_snapshots_load(s, error) || !prepare_writing(s, error) ||
        !qcow2_bitmaps_load(s, error))
        return false;
    attach(n);
    return true;
}

/* ---- closing ---- */

int qcow2_mark_dirty(struct qcow2 *s)
{
    if (likely(!s->opt.lazy_refcounts || s->dirty_marked))
        return 0;
    fiber_mutex_lock(&s->mark_lock);
    int r = s->dirty_marked ? 0 : qcow2_header_set_incompatible(s, QCOW2_INCOMPAT_DIRTY, 0);
    if (!r)
        s->dirty_marked = true;
    fiber_mutex_unlock(&s->mark_lock);
    return r;
}

int qcow2_settle(struct qcow2 *s)
{
    s->closing = true;
    int r = 0;
    while (!r && qcow2_pending_count(s))
        r = qcow2_commit_and_free(s);
    if (!r)
        r = qcow2_commit(s, true);
    if (!r && s->dirty_marked)
        r = qcow2_header_set_incompatible(s, 0, QCOW2_INCOMPAT_DIRTY);
    if (!r)
        s->dirty_marked = false;
    s->closing = false;
    return r;
}

/* The last that is written before the image is closed, or only read. */
static int finish(struct qcow2 *s)
{
    g_autoptr(GError) error = NULL;
    if (!qcow2_bitmaps_store(s, &error))
        log_warn("image '%s': %s", s->node.filename, error->message);
    return qcow2_settle(s);
}

static void qcow2_close(struct node *n)
{
    struct qcow2 *s = qcow2_of(n);
    if (s->places && !n->read_only) {
        int r = finish(s);
        if (r)
            log_warn("image '%s': metadata could not be written: %s", n->filename, g_strerror(-r));
    }
    detach(n);
    qcow2_crypt_close(s);
    qcow2_places_free(s);
    qcow2_pending_free(s->pending);
    qcow2_unpacked_free(s);
    qcow2_cache_done(&s->l2_cache);
    qcow2_cache_done(&s->refcount_cache);
    g_free(s->l1);
    g_free(s->l1_dirty);
    g_free(s->reftable);
    qcow2_snapshots_free(s);
    qcow2_bitmaps_free(s);
    qcow2_exts_clear(&s->ext);
}

static int qcow2_flush(struct node *n)
{
    struct qcow2 *s = qcow2_of(n);
    return n->read_only ? 0 : qcow2_commit_and_free(s);
}

static bool qcow2_set_read_only(struct node *n, bool read_only, GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    if (!read_only) {
        n->read_only = false; /* what follows writes */
        bool good =
            check_writable(s, error) && prepare_writing(s, error) && qcow2_bitmaps_load(s, error);
        n->read_only = !good;
        return good;
    }
    int r = finish(s);
    return !r || ruche_error_errno(error, -r, "'%s': metadata could not be written", n->filename);
}

/* ---- information ---- */

static int qcow2_probe(const uint8_t *head, size_t len, const char *filename)
{
    struct cur c = cur_of(head, len);
    return cur_be32(&c) == QCOW2_MAGIC && cur_be32(&c) >= 2 && !c.bad ? 100 : 0;
}

JsonObject *qcow2_describe(struct node *n)
{
    struct qcow2 *s = qcow2_of(n);
    bool v3 = s->header.version >= 3;
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "compat", v3 ? "1.1" : "0.10");
    if (s->data_external) {
        if (s->ext.data_file)
            json_object_set_string_member(o, "data-file", s->ext.data_file);
        json_object_set_boolean_member(o, "data-file-raw", s->data_raw);
    }
    JsonObject *encrypt = qcow2_crypt_describe(s);
    if (encrypt)
        json_object_set_object_member(o, "encrypt", encrypt);
    json_object_set_string_member(
        o, "compression-type", s->header.compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib");
    if (v3) {
        json_object_set_boolean_member(o, "lazy-refcounts",
                                       s->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
        json_object_set_boolean_member(o, "corrupt",
                                       s->header.incompatible & QCOW2_INCOMPAT_CORRUPT);
        json_object_set_boolean_member(o, "extended-l2", s->extended_l2);
    }
    json_object_set_int_member(o, "refcount-bits", 1 << s->refcount_order);
    JsonArray *bitmaps = qcow2_bitmaps_describe(s);
    if (bitmaps)
        json_object_set_array_member(o, "bitmaps", bitmaps);
    return o;
}

static int64_t qcow2_allocated_bytes(struct node *n)
{
    struct qcow2 *s = qcow2_of(n);
    int64_t file = node_allocated_bytes(qcow2_file(s));
    int64_t data = s->data_external && file >= 0 ? node_allocated_bytes(qcow2_data(s)) : 0;
    return data < 0 ? data : file + data;
}

static bool qcow2_change_backing(struct node *n, const char *file, const char *format,
                                 GError **error)
{
    struct qcow2 *s = qcow2_of(n);
    if (file && strlen(file) > QCOW2_BACKING_NAME_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the backing file name has %zu bytes; qcow2 takes %d at most",
                           strlen(file), QCOW2_BACKING_NAME_MAX);
    if (file && s->data_raw)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' has raw external data, which takes no backing file", n->filename);
    char *old_file = n->backing_file, *old_format = s->ext.backing_format;
    n->backing_file = g_strdup(file);
    s->ext.backing_format = file ? g_strdup(format) : NULL;
    int r = qcow2_header_write(s);
    if (!r)
        r = qcow2_meta_sync(s);
    if (r) {
        g_free(n->backing_file);
        g_free(s->ext.backing_format);
        n->backing_file = old_file;
        s->ext.backing_format = old_format;
        return ruche_error_errno(error, -r, "'%s': the backing file name cannot be written",
                                 n->filename);
    }
    g_free(old_file);
    g_free(old_format);
    g_free(n->backing_format);
    n->backing_format = g_strdup(s->ext.backing_format);
    return true;
}

static const struct image_driver qcow2_driver = {
    .name = "qcow2",
    .summary = "QEMU's copy-on-write format, versions 2 and 3",
    .spec = "docs/interop/qcow2.txt of QEMU",
    .kind = DRIVER_FORMAT,
    .flags = DRIVER_COMPRESS | DRIVER_BACKING | DRIVER_SWAP_FILE,
    .size = sizeof(struct qcow2),
    .open_options = open_options,
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .read = qcow2_read,
    .write = qcow2_write,
    .zero = qcow2_zero,
    .discard = qcow2_discard,
    .flush = qcow2_flush,
    .map = qcow2_map,
    .resize = qcow2_resize,
    .allocated_bytes = qcow2_allocated_bytes,
    .change_backing = qcow2_change_backing,
    .make_empty = qcow2_make_empty,
    .create_options = qcow2_create_options,
    .create_size = sizeof(struct qcow2_create_options),
    .create = qcow2_create,
    .measure = qcow2_measure,
    .check = qcow2_check,
    .amend = qcow2_amend,
    .amendable = qcow2_amendable,
    .amend_options = luks_amend_options,
    .amend_prefix = "encrypt.",
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_apply = qcow2_snapshot_apply,
    .snapshot_delete = qcow2_snapshot_delete,
    .snapshot_show = qcow2_snapshot_show,
    .vmstate_read = qcow2_vmstate_read,
    .vmstate_write = qcow2_vmstate_write,
    .bitmap_can_store = qcow2_bitmap_can_store,
    .bitmap_forget = qcow2_bitmap_forget,
    .describe = qcow2_describe,
    .set_read_only = qcow2_set_read_only,
    .detach = detach,
    .attach = attach,
};
IMAGE_DRIVER(qcow2_driver);
