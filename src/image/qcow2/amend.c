/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changing the options of an image that exists.
 *
 * Spec      qcow2; `qemu-img amend`.
 * Fiber     A fiber of the node's context; the node is drained meanwhile.
 * Order     Everything is judged before anything is changed. Each step leaves a valid image: an
 *           upgrade comes before what needs it, a downgrade after everything else and after zero
 *           clusters became something version 2 knows. New refcount structures are complete on
 *           disk before the header points to them.
 * Errors    Sentences with option and value. When a later step fails, the earlier ones stay done.
 */
#include "image/qcow2/check.h"

#include "base/error.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct amend {
    struct qcow2 *s;
    struct qcow2_create_options o;
    JsonObject *given;   /* a copy of what was given, by name */
    JsonObject *encrypt; /* key slots to change; NULL: none */
    uint64_t size;
    unsigned version; /* wanted */
    struct image_progress *progress;
};

static bool has(const struct amend *a, const char *name)
{
    return json_object_has_member(a->given, name);
}

static bool refuse(const struct amend *a, GError **error, const char *why)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "'%s': %s", node_filename(&a->s->node), why);
}

/* ---- what is asked ---- */

const char *const qcow2_amendable[] = {
    "backing_file",   "backing_fmt",   "compat", "data_file", "data_file_raw",
    "lazy_refcounts", "refcount_bits", "size",   NULL,
};

static void add_encrypt(struct amend *a, const char *name, JsonNode *value)
{
    if (!a->encrypt)
        a->encrypt = json_object_new();
    json_object_set_member(a->encrypt, name, json_node_copy(value));
}

/* Splits "size" and the names of key slots off; the rest are create options. */
static bool split(struct amend *a, JsonObject *given, JsonObject *rest, GError **error)
{
    g_autoptr(GList) names = json_object_get_members(given);
    for (GList *i = names; i; i = i->next) {
        const char *name = i->data;
        JsonNode *value = json_object_get_member(given, name);
        json_object_set_member(a->given, name, json_node_copy(value));
        if (!strcmp(name, "encrypt") && JSON_NODE_HOLDS_OBJECT(value)) {
            JsonObject *inner = json_node_get_object(value);
            g_autoptr(GList) keys = json_object_get_members(inner);
            for (GList *k = keys; k; k = k->next)
                add_encrypt(a, k->data, json_object_get_member(inner, k->data));
        } else if (g_str_has_prefix(name, "encrypt.")) {
            add_encrypt(a, name + strlen("encrypt."), value);
        } else if (strcmp(name, "size") != 0) {
            json_object_set_member(rest, name, json_node_copy(value));
        } else if (json_node_get_value_type(value) == G_TYPE_INT64) {
            a->size = (uint64_t)json_node_get_int(value);
        } else if (!json_node_get_string(value) ||
                   !units_parse_size(json_node_get_string(value), 1, &a->size)) {
            return ruche_error(error, RUCHE_ERR_INVALID, "size: not a number of bytes");
        }
    }
    return true;
}

/* Options that an image keeps for life: the value it has is fine. */
static bool check_fixed(const struct amend *a, GError **error)
{
    const struct qcow2 *s = a->s;
    if (has(a, "cluster_size") && a->o.cluster_bytes != s->cluster_bytes)
        return refuse(a, error, "the cluster size cannot change; convert the image");
    if (has(a, "compression_type") && a->o.compression != s->header.compression)
        return refuse(a, error, "the compression type cannot change; convert the image");
    if (has(a, "extended_l2") && a->o.extended_l2 != s->extended_l2)
        return refuse(a, error, "extended_l2 cannot change; convert the image");
    if (has(a, "preallocation"))
        return refuse(a, error, "preallocation is an option of create and resize, not of amend");
    if (has(a, "encryption") && a->o.encryption != (s->header.crypt_method != QCOW2_CRYPT_NONE))
        return refuse(a, error, "encryption cannot change; convert the image");
    if (a->encrypt && !s->luks)
        return refuse(a, error, "the image is not encrypted with LUKS: it has no key slots");
    return true;
}

static bool check_data_file(const struct amend *a, GError **error)
{
    const struct qcow2 *s = a->s;
    if (has(a, "data_file") && !s->data_external)
        return refuse(a, error, "data_file can only change where there is an external data file");
    if (has(a, "data_file_raw") && a->o.data_file_raw && !s->data_raw)
        return refuse(a, error,
                      "data_file_raw can be turned off, but not on: the data file need not "
                      "be a raw image");
    return true;
}

static bool check_downgrade(const struct amend *a, GError **error)
{
    const struct qcow2 *s = a->s;
    uint64_t bits = has(a, "refcount_bits") ? a->o.refcount_bits : 1ULL << s->refcount_order;
    if (a->version == 3)
        return true;
    const char *what = s->data_external        ? "an external data file"
                       : s->extended_l2        ? "subclusters"
                       : s->header.compression ? "zstd compression"
                       : s->ext.has_bitmaps    ? "bitmaps"
                       : s->node.bitmaps       ? "bitmaps"
                       : bits != 16            ? "refcounts of other than 16 bits"
                       : a->o.lazy_refcounts   ? "lazy refcounts"
                                               : NULL;
    if (what)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': version 2 (compat=0.10) has no %s; the image stays as it is",
                           node_filename(&s->node), what);
    return true;
}

static bool check_all(const struct amend *a, GError **error)
{
    if (has(a, "refcount_bits") && !is_power_of_2(a->o.refcount_bits))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "refcount_bits: %" PRIu64 " is not a power of two between 1 and 64",
                           a->o.refcount_bits);
    if (has(a, "backing_fmt") && !has(a, "backing_file") && !a->s->node.backing_file)
        return ruche_error(error, RUCHE_ERR_INVALID, "backing_fmt: there is no backing_file");
    if (has(a, "backing_file") && a->s->data_raw &&
        (!has(a, "data_file_raw") || a->o.data_file_raw) && *a->o.backing_file)
        return refuse(a, error, "a raw data file cannot show a backing file");
    return check_fixed(a, error) && check_data_file(a, error) && check_downgrade(a, error);
}

/* ---- refcount width ---- */

static bool amend_refcount_bits(struct amend *a, GError **error)
{
    struct qcow2 *s = a->s;
    unsigned order = (unsigned)__builtin_ctzll(a->o.refcount_bits);
    if (!has(a, "refcount_bits") || order == s->refcount_order)
        return true;
    struct image_check found = {0};
    struct check c = {.s = s, .r = &found};
    int r = qcow2_settle(s);
    bool good = r == 0 && check_begin(&c, error);
    if (good) {
        r = check_scan(&c);
        if (r == 0)
            r = check_refs(&c);
        if (r == 0 && (found.corruptions || found.check_errors))
            good = ruche_error(error, RUCHE_ERR_STATE,
                               "'%s' has %" PRIu64 " errors; repair it before its refcounts change",
                               node_filename(&s->node), found.corruptions + found.check_errors);
        else if (r == 0)
            r = check_rebuild(&c, order);
    }
    check_done(&c);
    if (good && r == -EINVAL)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': clusters have more references than refcounts of %" PRIu64
                           " bits can count",
                           node_filename(&s->node), a->o.refcount_bits);
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot make new refcounts",
                                 node_filename(&s->node));
    return good && check_reload(s, error);
}

/* ---- header ---- */

static bool write_header(struct amend *a, const struct qcow2_header *before, GError **error)
{
    int r = qcow2_header_write(a->s);
    if (r == 0)
        r = qcow2_meta_sync(a->s);
    if (r == 0)
        return true;
    a->s->header = *before;
    if (r == -ENOSPC)
        return refuse(a, error, "the header has no room for that in its first cluster");
    return ruche_error_errno(error, -r, "'%s': cannot write the header",
                             node_filename(&a->s->node));
}

static bool amend_version_up(struct amend *a, GError **error)
{
    struct qcow2_header before = a->s->header;
    if (a->version == before.version || a->version < 3)
        return true;
    a->s->header.version = 3;
    return write_header(a, &before, error);
}

static bool amend_features(struct amend *a, GError **error)
{
    struct qcow2 *s = a->s;
    int r = has(a, "lazy_refcounts") ? qcow2_settle(s) : 0;
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot write the refcounts",
                                 node_filename(&s->node));
    struct qcow2_header before = s->header;
    if (has(a, "lazy_refcounts")) {
        s->header.compatible &= ~(uint64_t)QCOW2_COMPAT_LAZY_REFCOUNTS;
        s->header.compatible |= a->o.lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
        s->opt.lazy_refcounts = a->o.lazy_refcounts;
    }
    if (has(a, "data_file_raw") && !a->o.data_file_raw) {
        s->header.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_DATA_FILE_RAW;
        s->data_raw = false;
    }
    if (has(a, "data_file")) {
        g_free(s->ext.data_file);
        s->ext.data_file = *a->o.data_file ? g_strdup(a->o.data_file) : NULL;
    }
    if (!has(a, "lazy_refcounts") && !has(a, "data_file_raw") && !has(a, "data_file"))
        return true;
    return write_header(a, &before, error);
}

/* ---- downgrade: version 2 knows no zero clusters ---- */

/* Zero clusters of the active tree become nothing, or (above a backing file) zeroes that are
 * written. */
static bool expand_active(struct amend *a, GError **error)
{
    struct qcow2 *s = a->s;
    bool backing = s->node.backing_file;
    g_autofree uint8_t *zeroes = g_malloc0(s->cluster_bytes);
    struct iovec iov;
    int r = 0;
    for (uint64_t off = 0, len; r == 0 && off < s->header.size_bytes; off += len) {
        struct qcow2_mapping m;
        len = align_up(s->header.size_bytes, s->cluster_bytes) - off;
        r = qcow2_lookup(s, off, len, &m);
        if (r < 0)
            break;
        len = max_u64(m.len, 1);
        if (m.kind != QCOW2_ZERO_PLAIN && m.kind != QCOW2_ZERO_PLACE)
            continue;
        if (backing)
            len = s->cluster_bytes;
        r = backing
                ? qcow2_write_any(s, off, vec_flat(&iov, zeroes, s->cluster_bytes))
                : qcow2_drop_range(s, off, align_up(len, s->cluster_bytes), QCOW2_DISCARD_OTHER);
    }
    if (r == 0)
        r = qcow2_commit_and_free(s);
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot write zero clusters out",
                                       node_filename(&s->node));
}

/* Those of snapshots: only what becomes nothing. */
static int expand_table(void *opaque, const struct table_ref *ref, uint8_t *table)
{
    struct qcow2 *s = opaque;
    bool changed = false;
    for (uint64_t i = 0; i < s->cluster_bytes / 8; i++) {
        uint64_t entry = table_entry(table, i);
        if ((entry & QCOW2_COMPRESSED) || !(entry & QCOW2_ZERO))
            continue;
        if ((entry & QCOW2_OFFSET_MASK) || s->node.backing_file)
            return -ENOTSUP;
        table_set_entry(table, i, 0);
        changed = true;
    }
    return changed;
}

static bool expand_snapshots(struct amend *a, GError **error)
{
    struct qcow2 *s = a->s;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < s->header.snapshot_count; i++) {
        const struct qcow2_snapshot *e = &s->snapshots[i];
        g_autofree uint64_t *l1 = tree_read_l1(s, e->l1_offset, e->l1_count, error);
        if (!l1)
            return false;
        struct table_list tables = {0};
        r = tree_tables(s, l1, e->l1_count, &tables);
        if (r == 0)
            r = tables_walk(s, &tables, WALK_SKIP_HOLES, expand_table, s);
        table_list_done(&tables);
        if (r == -ENOTSUP)
            return ruche_error(
                error, RUCHE_ERR_UNSUPPORTED,
                "'%s': snapshot '%s' has zero clusters, which version 2 (compat=0.10) does "
                "not know; delete it first",
                node_filename(&s->node), e->name);
    }
    qcow2_cache_forget_all(&s->l2_cache);
    if (r == 0)
        r = qcow2_meta_sync(s);
    return r == 0 || ruche_error_errno(error, -r, "'%s': cannot write zero clusters out",
                                       node_filename(&s->node));
}

static bool amend_version_down(struct amend *a, GError **error)
{
    struct qcow2 *s = a->s;
    if (a->version == s->header.version)
        return true;
    if (!expand_active(a, error) || !expand_snapshots(a, error))
        return false;
    int r = qcow2_settle(s); /* lazy refcounts must not be needed any more */
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': cannot write the refcounts",
                                 node_filename(&s->node));
    struct qcow2_header before = s->header;
    s->header.version = 2;
    s->header.incompatible = s->header.compatible = s->header.autoclear = 0;
    s->opt.lazy_refcounts = s->dirty_marked = false;
    return write_header(a, &before, error);
}

/* ---- the rest ---- */

static bool amend_backing(struct amend *a, GError **error)
{
    struct node *n = &a->s->node;
    if (!has(a, "backing_file") && !has(a, "backing_fmt"))
        return true;
    const char *file = has(a, "backing_file") ? a->o.backing_file : n->backing_file;
    const char *format = has(a, "backing_fmt") ? a->o.backing_format : n->backing_format;
    bool none = !file || !*file;
    return node_change_backing(n, none ? NULL : file, none || !format || !*format ? NULL : format,
                               error);
}

static bool amend_size(struct amend *a, GError **error)
{
    return !has(a, "size") || a->size == node_size(&a->s->node) ||
           node_resize(&a->s->node, a->size, PREALLOC_OFF, error);
}

static bool amend_keys(struct amend *a, GError **error)
{
    return !a->encrypt || luks_amend(a->s->luks, a->encrypt, false, error);
}

static bool run(struct amend *a, GError **error)
{
    /* node_resize() and node_change_backing() are quiet on their own. */
    static const struct {
        bool (*fn)(struct amend *a, GError **error);
        bool drained;
    } steps[] = {
        {amend_version_up, true},   {amend_refcount_bits, true}, {amend_features, true},
        {amend_backing, false},     {amend_size, false},         {amend_keys, false},
        {amend_version_down, true},
    };
    bool good = check_all(a, error);
    for (unsigned i = 0; good && i < ARRAY_COUNT(steps); i++) {
        if (steps[i].drained)
            node_drain_begin(&a->s->node);
        good = steps[i].fn(a, error);
        if (steps[i].drained)
            node_drain_end(&a->s->node);
        if (good && a->progress && a->progress->fn)
            a->progress->fn(i + 1, ARRAY_COUNT(steps), a->progress->opaque);
    }
    return good;
}

bool qcow2_amend(struct node *n, JsonObject *given, struct image_progress *p, GError **error)
{
    g_autoptr(JsonObject) copy = json_object_new(), rest = json_object_new();
    struct amend a = {.s = qcow2_of(n), .given = copy, .progress = p};
    if (n->read_only)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "'%s' is open read-only: its options cannot change", node_filename(n));
    bool good = split(&a, given, rest, error) &&
                option_parse(qcow2_create_options, rest, "-o", &a.o, error);
    if (good) {
        a.version = has(&a, "compat") ? (a.o.compat & 1 ? 2 : 3) : a.s->header.version;
        if (a.version == 2 && !has(&a, "lazy_refcounts"))
            a.o.lazy_refcounts = false;
        good = option_all_used(rest, qcow2_create_options, NULL, "-o", error) && run(&a, error);
        option_clear(qcow2_create_options, &a.o);
    }
    if (a.encrypt)
        json_object_unref(a.encrypt);
    return good;
}
