/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes of storage pools, and streams to and from them. Thread: the loop thread. */
#include "libvirt/storage_object.h"
#include "libvirt/stream.h"

/* ---- finding and listing ---- */

static bool fill(const struct pool *p, const char *name, void *ret, GError **error)
{
    const struct volume *v = volume_find((struct pool *)p, name, error);
    if (v)
        storage_fill_volume(p, v, &((struct r_volume *)ret)->vol);
    return v != NULL;
}

struct pool_text {
    struct wire_named obj;
    char *text;
};
static const struct xdr_row pool_text_xdr[] = {XDR_SUB(struct pool_text, obj, wire_named_xdr),
                                               XDR_F(STRING, struct pool_text, text), XDR_DONE};
POOL_PROC(storage_vol_lookup_by_name, 95, OBJECT_QUERY, pool_text, fill(p, a->text, ret, error),
          RET(r_volume));

static bool by_path(struct rpc_call *c, void *args, void *ret, GError **error)
{
    struct pool *p = NULL;
    const struct volume *v = volume_find_path(((struct a_name *)args)->name, &p, error);
    if (v)
        storage_fill_volume(p, v, &((struct r_volume *)ret)->vol);
    pool_unref(p);
    return v != NULL;
}
RPC_PROC(storage_vol_lookup_by_path, .number = 97, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_volume), .call = by_path);
RPC_PROC(storage_vol_lookup_by_key, .number = 96, .flags = OBJECT_QUERY, ARGS(a_name),
         RET(r_volume), .call = by_path);

static bool running(const struct pool *p, GError **error)
{
    return pool_runs(p) ||
           ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is not active", p->name);
}

static gint by_volume_name(gconstpointer a, gconstpointer b)
{
    const struct volume *const *va = a, *const *vb = b;
    return strcmp((*va)->name, (*vb)->name);
}

/* Sorted by name; borrowed. */
static GPtrArray *volumes(const struct pool *p)
{
    GPtrArray *list = g_ptr_array_new();
    GHashTableIter it;
    gpointer v;
    if (!p->volumes)
        return list;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, &v))
        g_ptr_array_add(list, v);
    g_ptr_array_sort(list, by_volume_name);
    return list;
}

struct list_volumes {
    struct wire_named obj;
    int32_t need_results;
    uint32_t flags;
};
static const struct xdr_row list_volumes_xdr[] = {XDR_SUB(struct list_volumes, obj, wire_named_xdr),
                                                  XDR_F(INT, struct list_volumes, need_results),
                                                  XDR_F(UINT, struct list_volumes, flags),
                                                  XDR_DONE};
struct volumes {
    struct xdr_array volumes;
    uint32_t count;
};
static const struct xdr_row volumes_xdr[] = {
    XDR_LIST(struct volumes, volumes, wire_volume, LIMIT_OBJECTS),
    XDR_F(UINT, struct volumes, count), XDR_DONE};

static bool list_all(const struct pool *p, const struct list_volumes *a, struct volumes *ret,
                     GError **error)
{
    if (!object_flags(a->flags, 0, "storage_pool_list_all_volumes", error) || !running(p, error))
        return false;
    g_autoptr(GPtrArray) list = volumes(p);
    ret->count = list->len;
    if (!a->need_results)
        return true;
    ret->volumes.items = g_new0(struct wire_volume, list->len + 1);
    for (; ret->volumes.count < list->len; ret->volumes.count++)
        storage_fill_volume(p, list->pdata[ret->volumes.count],
                            (struct wire_volume *)ret->volumes.items + ret->volumes.count);
    return true;
}
POOL_PROC(storage_pool_list_all_volumes, 282, OBJECT_QUERY, list_volumes,
          list_all(p, a, ret, error), RET(volumes));
POOL_PROC(storage_pool_num_of_volumes, 91, OBJECT_QUERY, a_named,
          running(p, error) &&
              object_int(ret, p->volumes ? (int32_t)g_hash_table_size(p->volumes) : 0),
          RET(r_int));

static bool list_names(const struct pool *p, int32_t room, struct r_names *ret, GError **error)
{
    if (!object_room(room, LIMIT_OBJECTS, "storage_pool_list_volumes", error) || !running(p, error))
        return false;
    g_autoptr(GPtrArray) list = volumes(p);
    struct wire_string *s = g_new0(struct wire_string, list->len + 1);
    for (; ret->names.count < MIN(list->len, (guint)room); ret->names.count++)
        s[ret->names.count].s = g_strdup(((struct volume *)list->pdata[ret->names.count])->name);
    ret->names.items = s;
    return true;
}
POOL_PROC(storage_pool_list_volumes, 92, OBJECT_QUERY, a_named_int, list_names(p, a->v, ret, error),
          RET(r_names));

/* ---- life ---- */

static bool create(struct rpc_call *c, struct pool *p, const char *xml, const char *clone,
                   unsigned flags, void *ret, GError **error)
{
    g_autofree char *name = NULL;
    return volume_create_xml(c->who, p, xml, clone, flags, &name, error) &&
           fill(p, name, ret, error);
}

struct create {
    struct wire_named obj;
    char *xml;
    uint32_t flags;
};
static const struct xdr_row create_xdr[] = {XDR_SUB(struct create, obj, wire_named_xdr),
                                            XDR_F(STRING, struct create, xml),
                                            XDR_F(UINT, struct create, flags), XDR_DONE};
POOL_PROC(storage_vol_create_xml, 93, 0, create, create(c, p, a->xml, NULL, a->flags, ret, error),
          RET(r_volume));

struct create_from {
    struct wire_named obj;
    char *xml;
    struct wire_volume from;
    uint32_t flags;
};
static const struct xdr_row create_from_xdr[] = {XDR_SUB(struct create_from, obj, wire_named_xdr),
                                                 XDR_F(STRING, struct create_from, xml),
                                                 XDR_SUB(struct create_from, from, wire_volume_xdr),
                                                 XDR_F(UINT, struct create_from, flags), XDR_DONE};
POOL_PROC(storage_vol_create_xml_from, 125, 0, create_from,
          create(c, p, a->xml, a->from.key, a->flags, ret, error), RET(r_volume));

VOLUME_PROC(storage_vol_delete, 94, 0, a_volume_flags,
            volume_delete(c->who, p, a->vol.name, a->flags, false, error));
VOLUME_PROC(storage_vol_get_xml_desc, 99, RPC_READONLY, a_volume_flags,
            object_flags(a->flags, 0, "storage_vol_get_xml_desc", error) &&
                object_text(ret, volume_xml(c->who, p, a->vol.name, error)),
            RET(r_text));
VOLUME_PROC(storage_vol_wipe, 165, 0, a_volume_flags,
            object_flags(a->flags, 0, "storage_vol_wipe", error) &&
                volume_wipe(c->who, p, a->vol.name, 0, error));

struct wipe {
    struct wire_volume vol;
    uint32_t algorithm, flags;
};
static const struct xdr_row wipe_xdr[] = {XDR_SUB(struct wipe, vol, wire_volume_xdr),
                                          XDR_F(UINT, struct wipe, algorithm),
                                          XDR_F(UINT, struct wipe, flags), XDR_DONE};
VOLUME_PROC(storage_vol_wipe_pattern, 259, 0, wipe,
            object_flags(a->flags, 0, "storage_vol_wipe_pattern", error) &&
                volume_wipe(c->who, p, a->vol.name, a->algorithm, error));

struct resize {
    struct wire_volume vol;
    uint64_t capacity;
    uint32_t flags;
};
static const struct xdr_row resize_xdr[] = {XDR_SUB(struct resize, vol, wire_volume_xdr),
                                            XDR_F(UHYPER, struct resize, capacity),
                                            XDR_F(UINT, struct resize, flags), XDR_DONE};
VOLUME_PROC(storage_vol_resize, 260, 0, resize,
            volume_resize(c->who, p, a->vol.name, a->capacity, a->flags, false, error));

static bool path(struct pool *p, const char *name, void *ret, GError **error)
{
    const struct volume *v = volume_find(p, name, error);
    return v && object_text(ret, g_strdup(v->path));
}
VOLUME_PROC(storage_vol_get_path, 100, OBJECT_QUERY, a_volume, path(p, a->vol.name, ret, error),
            RET(r_text));

struct volume_info {
    int32_t type;
    uint64_t capacity, allocation;
};
static const struct xdr_row volume_info_xdr[] = {
    XDR_F(INT, struct volume_info, type), XDR_F(UHYPER, struct volume_info, capacity),
    XDR_F(UHYPER, struct volume_info, allocation), XDR_DONE};

static bool info(struct pool *p, const char *name, unsigned flags, struct volume_info *ret,
                 GError **error)
{
    enum { GET_PHYSICAL = 1 };
    const struct volume *v = volume_update(p, name, error);
    if (!v || !object_flags(flags, GET_PHYSICAL, "storage_vol_get_info_flags", error))
        return false;
    *ret = (struct volume_info){v->type, v->capacity,
                                flags & GET_PHYSICAL ? v->physical : v->allocation};
    return true;
}
VOLUME_PROC(storage_vol_get_info, 98, RPC_READONLY, a_volume, info(p, a->vol.name, 0, ret, error),
            RET(volume_info));
VOLUME_PROC(storage_vol_get_info_flags, 378, RPC_READONLY, a_volume_flags,
            info(p, a->vol.name, a->flags, ret, error), RET(volume_info));

/* ---- streams ---- */

struct transfer {
    struct wire_volume vol;
    uint64_t offset, length;
    uint32_t flags;
};
static const struct xdr_row transfer_xdr[] = {
    XDR_SUB(struct transfer, vol, wire_volume_xdr), XDR_F(UHYPER, struct transfer, offset),
    XDR_F(UHYPER, struct transfer, length), XDR_F(UINT, struct transfer, flags), XDR_DONE};

/* Which volume a stream holds, until it is over. */
struct held {
    struct pool *pool;
    char *name;
    bool write;
};

static void let_go(void *opaque, int fd, bool failed)
{
    struct held *h = opaque;
    volume_close(h->pool, h->name, fd, h->write);
    pool_unref(h->pool);
    g_free(h->name);
    g_free(h);
}

static bool transfer(struct rpc_call *c, struct pool *p, const struct transfer *a, bool write,
                     GError **error)
{
    enum { SPARSE = 1 };
    uint64_t length = 0;
    if (!object_flags(a->flags, SPARSE, write ? "storage_vol_upload" : "storage_vol_download",
                      error))
        return false;
    int fd = volume_open(c->who, p, a->vol.name, write ? VOLUME_WRITE : VOLUME_READ, a->offset, a->length, &length, error);
    if (fd < 0)
        return false;
    if (!length && !write)
        length = UINT64_MAX;
    struct rpc_stream *s = write ? stream_new_upload(c, fd, length)
                                 : stream_new_download(c, fd, length, a->flags & SPARSE);
    struct held *h = g_new(struct held, 1);
    *h = (struct held){pool_ref(p), g_strdup(a->vol.name), write};
    stream_on_end(s, let_go, h);
    return true;
}
VOLUME_PROC(storage_vol_upload, 208, RPC_STREAM, transfer, transfer(c, p, a, true, error));
VOLUME_PROC(storage_vol_download, 209, RPC_STREAM, transfer, transfer(c, p, a, false, error));
