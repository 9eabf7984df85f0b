/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening images as the common options say: names or option strings, cache modes, force-share,
 * objects.
 *
 * Trust     The user's words. What an opened image names in its turn is the graph's policy.
 */
#include "img/img.h"

#include <string.h>

struct cache_mode {
    const char *name;
    bool direct, no_flush, write_through;
};

static const struct cache_mode cache_modes[] = {
    {.name = "none", .direct = true},
    {.name = "off", .direct = true},
    {.name = "writeback"},
    {.name = "writethrough", .write_through = true},
    {.name = "directsync", .direct = true, .write_through = true},
    {.name = "unsafe", .no_flush = true},
};

static const struct cache_mode *find_cache(const char *name, GError **error)
{
    const char *words[ARRAY_COUNT(cache_modes) + 1] = {NULL};
    for (unsigned i = 0; i < ARRAY_COUNT(cache_modes); i++) {
        if (!strcmp(cache_modes[i].name, name))
            return &cache_modes[i];
        words[i] = cache_modes[i].name;
    }
    ruche_error(error, RUCHE_ERR_UNKNOWN,
                "cache mode '%s' is none of none, writeback, writethrough, directsync, unsafe%s",
                name, suggest_phrase(name, words));
    return NULL;
}

bool img_cache_flags(const char *cache, unsigned *ret_write_flags, GError **error)
{
    const struct cache_mode *m = find_cache(cache ? cache : "writeback", error);
    if (m)
        *ret_write_flags = m->write_through ? NODE_FUA : 0;
    return m;
}

static JsonObject *open_options(const struct cache_mode *m, bool share)
{
    JsonObject *extra = json_object_new();
    json_object_set_string_member(extra, "discard", "unmap");
    if (m->direct || m->no_flush) {
        JsonObject *cache = json_object_new();
        json_object_set_boolean_member(cache, "direct", m->direct);
        json_object_set_boolean_member(cache, "no-flush", m->no_flush);
        json_object_set_object_member(extra, "cache", cache);
    }
    if (share)
        json_object_set_boolean_member(extra, "force-share", true);
    return extra;
}

/* "driver=qcow2,file.filename=disk.qcow2" with what the cache mode adds; the user's own words win.
 */
static struct node *open_by_options(struct img *img, const char *text, JsonObject *extra,
                                    unsigned flags, GError **error)
{
    g_autoptr(JsonObject) o = option_parse_text(text, NULL, error);
    if (!o)
        return NULL;
    g_autoptr(GList) names = json_object_get_members(extra);
    for (GList *l = names; l; l = l->next) {
        if (!json_object_has_member(o, l->data))
            json_object_set_member(o, l->data,
                                   json_node_copy(json_object_get_member(extra, l->data)));
    }
    return node_open(img->graph, o, flags, error);
}

struct node *img_open_as(struct img *img, const char *name, bool image_opts, const char *format,
                         const char *cache, bool share, unsigned flags, GError **error)
{
    const struct cache_mode *m = find_cache(cache ? cache : "writeback", error);
    if (!m)
        return NULL;
    if (image_opts && format) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "--image-opts names the format itself: driver=%s in '%s', not -f %s", format,
                    name, format);
        return NULL;
    }
    g_autoptr(JsonObject) extra = open_options(m, share);
    if (share)
        flags |= NODE_NO_LOCK;
    if (!format)
        flags |= NODE_PROBE;
    if (image_opts)
        return open_by_options(img, name, extra, flags, error);
    struct node *n = node_open_name(img->graph, name, format, extra, flags, error);
    if (n && !format && (flags & NODE_RW) && n->probed && !strcmp(node_format(n), "raw"))
        img_warn("'%s' has no known format and is taken for raw; say so with -f raw", name);
    return n;
}

/* Of what an image was made with, what opens it again: the IDs of its secrets. */
static void add_secrets(JsonObject *made_with, JsonObject *extra)
{
    JsonNode *encrypt = json_object_get_member(made_with, "encrypt");
    if (json_object_has_member(made_with, "key-secret"))
        json_object_set_member(extra, "key-secret", json_object_dup_member(made_with, "key-secret"));
    if (json_object_has_member(made_with, "encrypt.key-secret"))
        json_object_set_member(extra, "encrypt.key-secret",
                               json_object_dup_member(made_with, "encrypt.key-secret"));
    if (!encrypt || !JSON_NODE_HOLDS_OBJECT(encrypt) ||
        !json_object_has_member(json_node_get_object(encrypt), "key-secret"))
        return;
    JsonObject *o = json_object_new();
    json_object_set_member(o, "key-secret",
                           json_object_dup_member(json_node_get_object(encrypt), "key-secret"));
    json_object_set_object_member(extra, "encrypt", o);
}

struct node *img_open_new(struct img *img, const char *path, const char *format,
                          JsonObject *made_with, const char *cache, GError **error)
{
    const struct cache_mode *m = find_cache(cache ? cache : "writeback", error);
    if (!m)
        return NULL;
    g_autoptr(JsonObject) extra = open_options(m, false);
    add_secrets(made_with, extra);
    return node_open_name(img->graph, path, format, extra, NODE_RW, error);
}

struct node *img_open(struct img *img, const struct img_common *c, const char *name,
                      const char *format, const char *cache, unsigned flags, GError **error)
{
    return img_open_as(img, name, c->image_opts, format, cache, c->share, flags, error);
}

const struct image_driver *img_creatable(const char *format, GError **error)
{
    const struct image_driver *d = driver_find(format, error);
    if (d && (!d->create_options || !d->create)) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format '%s' cannot be created",
                    format);
        return NULL;
    }
    return d;
}
