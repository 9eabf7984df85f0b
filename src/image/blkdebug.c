/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The filter "blkdebug": lets chosen requests fail, for tests of everything above.
 *
 * Spec      QEMU's driver of that name: child "image", rules in "inject-error". Its events are
 *           those of requests (read_aio, write_aio, flush_to_disk, none); its states are not
 *           there. Ours besides: "skip" requests that match pass first, and a rule's "partial"
 *           bytes are moved before it fails.
 * Fiber     Everything but describe().
 * Trust     Rules are the user's: their number is capped.
 */
#include "image/driver.h"

#include <errno.h>

#define RULES_MAX 1000

/* What a rule may be about. */
enum io { IO_READ = 1, IO_WRITE = 2, IO_ZERO = 4, IO_DISCARD = 8, IO_FLUSH = 16, IO_MAP = 32 };
#define IO_DEFAULT (IO_READ | IO_WRITE | IO_ZERO | IO_DISCARD | IO_FLUSH)

static const char *const event_words[] = {"none", "read_aio", "write_aio", "flush_to_disk", NULL};
static const unsigned event_io[] = {IO_DEFAULT, IO_READ, IO_WRITE | IO_ZERO, IO_FLUSH};
static const char *const iotype_words[] = {"any",     "read",  "write",        "write-zeroes",
                                           "discard", "flush", "block-status", NULL};
static const unsigned iotype_io[] = {0, IO_READ, IO_WRITE, IO_ZERO, IO_DISCARD, IO_FLUSH, IO_MAP};

struct rule {
    int event, iotype; /* indexes of the words above */
    uint64_t err;      /* positive errno */
    uint64_t sector;   /* of 512 bytes, that the request must touch; UINT64_MAX: any */
    uint64_t skip, partial;
    bool once, immediately;
    bool spent;
};

static const struct image_option rule_options[] = {
    OPT_WORD("event", struct rule, event, event_words, 0, "Requests of this kind"),
    OPT_WORD("iotype", struct rule, iotype, iotype_words, 0, "Only these requests"),
    OPT_U64("errno", struct rule, err, EIO, 1, 4095, "How they fail"),
    OPT_U64("sector", struct rule, sector, UINT64_MAX, 0, 0, "Only those that touch this sector"),
    OPT_U64("skip", struct rule, skip, 0, 0, 0, "So many pass first"),
    OPT_U64("partial", struct rule, partial, 0, 0, 0, "Bytes that are moved before it fails"),
    OPT_BOOL("once", struct rule, once, false, "Only the first time"),
    OPT_BOOL("immediately", struct rule, immediately, false, "Before other requests go on"),
    {0},
};

struct blkdebug {
    struct node node;
    JsonNode *inject; /* "inject-error", as given */
    uint64_t align;
    struct rule *rules;
    unsigned rule_count;
    uint64_t requests, injected; /* so far */
};

static const struct image_option open_options[] = {
    OPT_JSON("inject-error", struct blkdebug, inject, "List of rules"),
    OPT_SIZE("align", struct blkdebug, align, 0, 0, 64 * MIB, "Alignment of requests"),
    {0},
};

static bool parse_rule(struct blkdebug *b, JsonNode *from, GError **error)
{
    static const char what[] = "blkdebug: inject-error";
    if (!JSON_NODE_HOLDS_OBJECT(from))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: a rule is an object", what);
    g_autoptr(JsonNode) copy = json_from_string("{}", NULL);
    JsonObject *left = json_node_get_object(copy), *given = json_node_get_object(from);
    g_autoptr(GList) names = json_object_get_members(given);
    for (GList *l = names; l; l = l->next)
        json_object_set_member(left, l->data,
                               json_node_copy(json_object_get_member(given, l->data)));
    struct rule *r = &b->rules[b->rule_count++];
    return option_parse(rule_options, left, what, r, error) &&
           option_all_used(left, rule_options, NULL, what, error);
}

/* A list, or, as text gives it, an object with members "0", "1", ... */
static bool parse_rules(struct blkdebug *b, GError **error)
{
    g_autoptr(GList) rules = NULL;
    if (!b->inject)
        return true;
    if (JSON_NODE_HOLDS_ARRAY(b->inject))
        rules = json_array_get_elements(json_node_get_array(b->inject));
    else if (JSON_NODE_HOLDS_OBJECT(b->inject))
        rules = json_object_get_values(json_node_get_object(b->inject));
    else
        return ruche_error(error, RUCHE_ERR_INVALID, "blkdebug: inject-error is a list of rules");
    unsigned count = g_list_length(rules);
    if (count > RULES_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "blkdebug: %u rules in inject-error, %d at most", count, RULES_MAX);
    b->rules = g_new0(struct rule, count);
    for (GList *l = rules; l; l = l->next)
        if (!parse_rule(b, l->data, error))
            return false;
    return true;
}

static bool blkdebug_open(struct node *n, GError **error)
{
    struct blkdebug *b = (struct blkdebug *)n;
    struct node *image = node_open_child(n, "image", CHILD_FILE, true, error);
    if (!image || !parse_rules(b, error))
        return false;
    if (b->align & (b->align - 1))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "blkdebug: align=%" G_GUINT64_FORMAT " is not a power of two", b->align);
    g_free(n->filename);
    n->filename = g_strdup(node_filename(image));
    n->size_bytes = node_size(image);
    n->grows = image->grows;
    n->request_align = (uint32_t)max_u64(b->align, 1);
    n->write_flags = NODE_FUA;
    n->zero_flags = NODE_FUA | NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->zero_init = image->zero_init;
    n->cluster_bytes = image->cluster_bytes;
    n->block_bytes = image->block_bytes;
    return true;
}

static void blkdebug_close(struct node *n)
{
    g_free(((struct blkdebug *)n)->rules);
}

static bool matches(const struct rule *r, enum io io, uint64_t off, uint64_t len)
{
    unsigned kinds =
        r->iotype ? iotype_io[r->iotype] & (event_io[r->event] | IO_MAP) : event_io[r->event];
    if (r->spent || !(kinds & io))
        return false;
    return r->sector == UINT64_MAX || (off / 512 <= r->sector && r->sector * 512 < off + len);
}

/* The rule that this request fails by, or NULL. */
static const struct rule *inject(struct node *n, enum io io, uint64_t off, uint64_t len)
{
    struct blkdebug *b = (struct blkdebug *)n;
    b->requests++;
    for (unsigned i = 0; i < b->rule_count; i++) {
        struct rule *r = &b->rules[i];
        if (!matches(r, io, off, len))
            continue;
        if (r->skip) {
            r->skip--;
            continue;
        }
        r->spent = r->once;
        b->injected++;
        if (!r->immediately)
            context_sleep_ns(n->ctx, 0);
        return r;
    }
    return NULL;
}

static int blkdebug_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    const struct rule *r = inject(n, IO_READ, off, v.len);
    if (r && r->partial)
        node_read(node_file(n), off, vec_slice(v, 0, min_u64(r->partial, v.len)), flags);
    return r ? -(int)r->err : node_read(node_file(n), off, v, flags);
}

static int blkdebug_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    const struct rule *r = inject(n, IO_WRITE, off, v.len);
    if (r && r->partial)
        node_write(node_file(n), off, vec_slice(v, 0, min_u64(r->partial, v.len)), flags);
    return r ? -(int)r->err : node_write(node_file(n), off, v, flags);
}

static int blkdebug_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    const struct rule *r = inject(n, IO_ZERO, off, len);
    return r ? -(int)r->err : node_zero(node_file(n), off, len, flags);
}

static int blkdebug_discard(struct node *n, uint64_t off, uint64_t len)
{
    const struct rule *r = inject(n, IO_DISCARD, off, len);
    return r ? -(int)r->err : node_discard(node_file(n), off, len);
}

static int blkdebug_flush(struct node *n)
{
    const struct rule *r = inject(n, IO_FLUSH, 0, 0);
    return r ? -(int)r->err : node_flush(node_file(n));
}

static int blkdebug_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    const struct rule *r = inject(n, IO_MAP, off, len);
    if (r)
        return -(int)r->err;
    *ret = (struct image_extent){
        .len = len, .flags = EXTENT_DATA | EXTENT_OFFSET, .host = node_file(n), .host_offset = off};
    return 0;
}

static bool blkdebug_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    const struct rule *r = inject(n, IO_WRITE, size, 0);
    if (r)
        return ruche_error_errno(error, (int)r->err, "blkdebug: '%s' cannot be resized",
                                 n->filename);
    if (!node_resize(node_file(n), size, p, error))
        return false;
    n->size_bytes = node_size(node_file(n));
    return true;
}

static JsonObject *blkdebug_describe(struct node *n)
{
    const struct blkdebug *b = (const struct blkdebug *)n;
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "requests", (gint64)b->requests);
    json_object_set_int_member(o, "injected", (gint64)b->injected);
    return o;
}

static const struct image_driver blkdebug_driver = {
    .name = "blkdebug",
    .summary = "Lets chosen requests fail, for tests",
    .kind = DRIVER_FILTER,
    .flags = DRIVER_NO_FILE, /* its child is called "image" */
    .size = sizeof(struct blkdebug),
    .open_options = open_options,
    .open = blkdebug_open,
    .close = blkdebug_close,
    .read = blkdebug_read,
    .write = blkdebug_write,
    .zero = blkdebug_zero,
    .discard = blkdebug_discard,
    .flush = blkdebug_flush,
    .map = blkdebug_map,
    .resize = blkdebug_resize,
    .describe = blkdebug_describe,
};
IMAGE_DRIVER(blkdebug_driver);
