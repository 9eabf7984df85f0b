/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on storage pools and volumes. */
#include "web/op.h"

#include "base/util.h"
#include "manager/markup.h"
#include "manager/storage/pool.h"
#include "manager/uuid.h"

#include <inttypes.h>
#include <string.h>

static void pool_auto_unref(struct pool **p)
{
    pool_unref(*p);
}
#define auto_pool __attribute__((cleanup(pool_auto_unref))) struct pool

static struct pool *request_pool(const struct web_request *r, GError **error)
{
    return pool_find_name(web_text(r, "pool"), error);
}

static void set_size(JsonObject *o, const char *name, uint64_t bytes)
{
    json_object_set_int_member(o, name, (int64_t)MIN(bytes, INT64_MAX));
}

/* ---- pools ---- */

static JsonObject *pool_object(const struct pool *p)
{
    static const char *const states[] = { "inactive", "building", "running", "degraded", "inaccessible" };
    char uuid[UUID_TEXT_BYTES];
    JsonObject *o = json_object_new();
    uuid_format(p->uuid, uuid);
    json_object_set_string_member(o, "name", p->name);
    json_object_set_string_member(o, "uuid", uuid);
    json_object_set_string_member(o, "type", pool_type(p));
    json_object_set_string_member(o, "state", states[p->state]);
    json_object_set_boolean_member(o, "persistent", p->persistent);
    json_object_set_boolean_member(o, "autostart", p->autostart);
    if (pool_target(p))
        json_object_set_string_member(o, "target", pool_target(p));
    json_object_set_int_member(o, "warn_percent", p->warn_percent);
    if (!pool_runs(p))
        return o;
    set_size(o, "capacity", p->capacity);
    set_size(o, "allocation", p->allocation);
    set_size(o, "available", p->available);
    set_size(o, "promised", pool_promised(p));
    if (p->capacity)
        json_object_set_double_member(o, "overcommit", (double)pool_promised(p) / (double)p->capacity);
    json_object_set_boolean_member(o, "over_threshold", p->warned);
    json_object_set_int_member(o, "volumes", g_hash_table_size(p->volumes));
    return o;
}

static JsonNode *do_pools(struct web_request *r, GError **error)
{
    g_autoptr(GPtrArray) pools = pool_list(r->who, 0);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < pools->len; i++)
        json_array_add_object_element(list, pool_object(pools->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "pools", list);
    return web_node(o);
}
WEB_OP(pool_list, .method = "GET", .path = "/pools", .summary = "Storage pools: state, room, over-commitment", .quick = true,
       .call = do_pools);

static JsonNode *do_pool(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "read a storage pool", error))
        return NULL;
    auto_pool *p = request_pool(r, error);
    return p ? web_node(pool_object(p)) : NULL;
}
WEB_OP(pool_get, .method = "GET", .path = "/pools/{pool}", .summary = "A storage pool", .quick = true, .call = do_pool);

static const struct web_field pool_fields[] = {
    { "xml", WEB_STRING, false, 0, 0, "libvirt's description; else what follows makes one" },
    { "name", WEB_STRING, false, 0, 0, "of the pool" },
    { "type", WEB_STRING, false, 0, 0, "dir, fs, netfs, logical, disk, iscsi, iscsi-direct, scsi, mpath, rbd, zfs; dir" },
    { "target", WEB_STRING, false, 0, 0, "the folder where its volumes are" },
    { "host", WEB_STRING, false, 0, 0, "of the server" },
    { "dir", WEB_STRING, false, 0, 0, "what the server exports" },
    { "devices", WEB_STRINGS, false, 0, 0, "block devices, or the name of a target" },
    { "source", WEB_STRING, false, 0, 0, "the source's own name: a volume group, a pool of Ceph or ZFS" },
    { "adapter", WEB_STRING, false, 0, 0, "such as scsi_host3" },
    { "initiator", WEB_STRING, false, 0, 0, "the name (iqn) that we have towards a target" },
    { "format", WEB_STRING, false, 0, 0, "of the source: ext4, nfs, cifs, gpt ..." },
    { "build", WEB_BOOL, false, 0, 0, "make it: folder, file system, volume group, partition table" },
    { "overwrite", WEB_BOOL, false, 0, 0, "build, whatever is there" },
    { "autostart", WEB_BOOL, false, 0, 0, "start it with the host" },
    { "no_start", WEB_BOOL, false, 0, 0, "only define it" },
    { 0 },
};

static void add_text(GString *b, const struct web_request *r, const char *name, const char *format)
{
    if (web_given(r, name)) {
        g_autofree char *line = g_markup_printf_escaped(format, web_text(r, name));
        g_string_append(b, line);
    }
}

static char *pool_text(const struct web_request *r)
{
    if (web_given(r, "xml"))
        return g_strdup(web_text(r, "xml"));
    GString *b = g_string_new(NULL);
    markup_add(b, "<pool type='%s'>", web_given(r, "type") ? web_text(r, "type") : "dir");
    add_text(b, r, "name", "<name>%s</name>");
    g_string_append(b, "<source>");
    add_text(b, r, "host", "<host name='%s'/>");
    JsonArray *devices = web_given(r, "devices") ? json_object_get_array_member(r->args, "devices") : NULL;
    for (unsigned i = 0; devices && i < json_array_get_length(devices); i++)
        markup_add(b, "<device path='%s'/>", json_array_get_string_element(devices, i));
    add_text(b, r, "dir", "<dir path='%s'/>");
    add_text(b, r, "adapter", "<adapter type='scsi_host' name='%s'/>");
    add_text(b, r, "source", "<name>%s</name>");
    add_text(b, r, "initiator", "<initiator><iqn name='%s'/></initiator>");
    add_text(b, r, "format", "<format type='%s'/>");
    g_string_append(b, "</source><target>");
    add_text(b, r, "target", "<path>%s</path>");
    g_string_append(b, "</target></pool>");
    return g_string_free(b, FALSE);
}

/* The whole of it, or nothing: what fails half way is undefined again. */
static bool complete_pool(struct web_request *r, struct pool *p, GError **error)
{
    enum { BUILD = 1, BUILD_OVERWRITE = 2 };
    unsigned flags = (web_bool(r, "build") ? BUILD : 0) | (web_bool(r, "overwrite") ? BUILD_OVERWRITE : 0);
    bool was_there = p->autostart || pool_runs(p);
    bool ok = (web_bool(r, "no_start") || pool_start(r->who, p, flags, error)) &&
              (!web_bool(r, "autostart") || pool_set_autostart(r->who, p, true, error));
    if (!ok && !was_there && !pool_runs(p))
        pool_undefine(r->who, p, NULL);
    return ok;
}

static JsonNode *do_pool_create(struct web_request *r, GError **error)
{
    g_autofree char *xml = pool_text(r);
    auto_pool *known = web_given(r, "name") ? pool_find_name(web_text(r, "name"), NULL) : NULL;
    if (known) {
        ruche_error(error, RUCHE_ERR_EXISTS, "storage pool '%s' exists already", known->name);
        return NULL;
    }
    auto_pool *p = pool_define(r->who, xml, 0, error);
    return p && complete_pool(r, p, error) ? web_node(pool_object(p)) : NULL;
}
WEB_OP(pool_create, .method = "POST", .path = "/pools", .summary = "Defines a storage pool and starts it", .fields = pool_fields,
       .status = 201, .call = do_pool_create);

static const struct web_field change_fields[] = {
    { "autostart", WEB_BOOL, false, 0, 0, "start it with the host" },
    { "warn_percent", WEB_INT, false, 0, 100, "tell when so much of it is allocated; 0: never" },
    { 0 },
};

static JsonNode *do_pool_change(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    if (!p || (web_given(r, "autostart") && !pool_set_autostart(r->who, p, web_bool(r, "autostart"), error)) ||
        (web_given(r, "warn_percent") && !pool_set_warning(r->who, p, (unsigned)web_int(r, "warn_percent", 0), error)))
        return NULL;
    return web_node(pool_object(p));
}
WEB_OP(pool_change, .method = "PATCH", .path = "/pools/{pool}", .summary = "Changes what a pool does by itself",
       .fields = change_fields, .call = do_pool_change);

static const struct web_field delete_fields[] = {
    { "storage", WEB_BOOL, false, 0, 0, "what it stands on, too: the empty folder, the volume group" },
    { 0 },
};

static JsonNode *do_pool_delete(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    bool keep = p && p->persistent;
    if (p && (!pool_runs(p) || pool_destroy(r->who, p, error)) && keep &&
        (!web_bool(r, "storage") || pool_delete(r->who, p, 0, error)))
        pool_undefine(r->who, p, error);
    return NULL;
}
WEB_OP(pool_delete, .method = "DELETE", .path = "/pools/{pool}", .summary = "Stops a pool and forgets it; volumes stay",
       .fields = delete_fields, .call = do_pool_delete);

static const struct web_field build_fields[] = {
    { "build", WEB_BOOL, false, 0, 0, "make it before" },
    { "overwrite", WEB_BOOL, false, 0, 0, "make it before, whatever is there" },
    { 0 },
};

static JsonNode *do_pool_start(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    unsigned flags = (web_bool(r, "build") ? 1 : 0) | (web_bool(r, "overwrite") ? 2 : 0);
    return p && pool_start(r->who, p, flags, error) ? web_node(pool_object(p)) : NULL;
}
WEB_OP(pool_start, .method = "POST", .path = "/pools/{pool}/start", .summary = "Starts a pool", .fields = build_fields,
       .call = do_pool_start);

static JsonNode *do_pool_stop(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    if (p)
        pool_destroy(r->who, p, error);
    return NULL;
}
WEB_OP(pool_stop, .method = "POST", .path = "/pools/{pool}/stop", .summary = "Stops a pool", .call = do_pool_stop);

static JsonNode *do_pool_refresh(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    return p && pool_refresh(r->who, p, 0, error) ? web_node(pool_object(p)) : NULL;
}
WEB_OP(pool_refresh, .method = "POST", .path = "/pools/{pool}/refresh", .summary = "Looks at a pool again", .call = do_pool_refresh);

static JsonNode *do_pool_xml(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    r->text_type = "application/xml";
    r->ret_text = p ? pool_xml(r->who, p, 0, error) : NULL;
    return NULL;
}
WEB_OP(pool_get_xml, .method = "GET", .path = "/pools/{pool}/xml", .summary = "A pool's description, as libvirt's XML",
       .call = do_pool_xml);

/* ---- volumes ---- */

static JsonObject *volume_object(const struct volume *v)
{
    static const char *const types[] = { "file", "block", "dir", "network", "netdir" };
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "name", v->name);
    json_object_set_string_member(o, "path", v->path);
    json_object_set_string_member(o, "type", types[v->type]);
    json_object_set_string_member(o, "format", v->format);
    set_size(o, "capacity", v->capacity);
    set_size(o, "allocation", v->allocation);
    if (v->backing)
        json_object_set_string_member(o, "backing", v->backing);
    json_object_set_boolean_member(o, "encrypted", v->encrypted);
    json_object_set_boolean_member(o, "busy", v->in_use || v->building);
    return o;
}

static JsonArray *users_of(const struct pool *p, const struct volume *v)
{
    g_autoptr(GPtrArray) users = volume_users(p, v, VOLUME_USER_ANY);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < users->len; i++)
        json_array_add_string_element(list, users->pdata[i]);
    return list;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(const struct volume *const *)a)->name, (*(const struct volume *const *)b)->name);
}

static JsonNode *do_volumes(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    if (!p || !access_check(r->who, RIGHT_READ, "list storage volumes", error))
        return NULL;
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    GHashTableIter it;
    gpointer v;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, &v))
        g_ptr_array_add(all, v);
    g_ptr_array_sort(all, by_name);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < all->len; i++)
        json_array_add_object_element(list, volume_object(all->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "volumes", list);
    return web_node(o);
}
WEB_OP(volume_list, .method = "GET", .path = "/pools/{pool}/volumes", .summary = "Volumes of a pool", .quick = true,
       .call = do_volumes);

static JsonNode *do_volume(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    if (!p || !access_check(r->who, RIGHT_READ, "read a storage volume", error))
        return NULL;
    const struct volume *v = volume_update(p, web_text(r, "volume"), error);
    if (!v)
        return NULL;
    JsonObject *o = volume_object(v);
    json_object_set_array_member(o, "users", users_of(p, v));
    return web_node(o);
}
WEB_OP(volume_get, .method = "GET", .path = "/pools/{pool}/volumes/{volume}", .summary = "A volume, and who uses it", .call = do_volume);

static const struct web_field volume_fields[] = {
    { "xml", WEB_STRING, false, 0, 0, "libvirt's description; else what follows makes one" },
    { "name", WEB_STRING, false, 0, 0, "of the volume" },
    { "size", WEB_SIZE, false, 0, INT64_MAX, "its capacity; that of 'from' or 'backing'" },
    { "format", WEB_STRING, false, 0, 0, "raw, qcow2, vmdk, vdi, vpc, vhdx; of files qcow2" },
    { "allocation", WEB_SIZE, false, 0, INT64_MAX, "so much of it is there at once; 0" },
    { "backing", WEB_STRING, false, 0, 0, "a volume of this pool, or a path: a thin clone of it" },
    { "from", WEB_STRING, false, 0, 0, "a volume of this pool, or the path of one: a full copy of it" },
    { "reflink", WEB_BOOL, false, 0, 0, "share blocks with 'from', or fail" },
    { "preallocate", WEB_BOOL, false, 0, 0, "qcow2: lay out its tables" },
    { "subclusters", WEB_BOOL, false, 0, 0, "qcow2: 32 subclusters in each cluster" },
    { "nocow", WEB_BOOL, false, 0, 0, "btrfs: write in place" },
    { 0 },
};

/* A volume of the pool by its name, or any by its path. NULL: not there. */
static const struct volume *named_volume(struct pool *p, const char *name, GError **error)
{
    return name[0] == '/' ? volume_find_path(name, NULL, error) : volume_find(p, name, error);
}

static void add_target(GString *b, const struct web_request *r, const char *format)
{
    markup_add(b, "<target><format type='%s'/>", format);
    if (web_bool(r, "subclusters"))
        g_string_append(b, "<compat>1.1</compat><features><extended_l2/></features>");
    if (web_bool(r, "nocow"))
        g_string_append(b, "<nocow/>");
    g_string_append(b, "</target>");
}

static char *volume_text(const struct web_request *r, struct pool *p, GError **error)
{
    const struct volume *backing = NULL, *from = NULL;
    if (web_given(r, "xml"))
        return g_strdup(web_text(r, "xml"));
    if ((web_given(r, "backing") && !(backing = named_volume(p, web_text(r, "backing"), error))) ||
        (web_given(r, "from") && !(from = named_volume(p, web_text(r, "from"), error))))
        return NULL;
    const char *usual = from && from->type == VOLUME_FILE ? from->format : pool_of_files(p) ? "qcow2" : "raw";
    GString *b = g_string_new("<volume>");
    add_text(b, r, "name", "<name>%s</name>");
    if (web_given(r, "size"))
        g_string_append_printf(b, "<capacity>%" PRIi64 "</capacity>", web_int(r, "size", 0));
    if (web_given(r, "allocation") || pool_of_files(p))
        g_string_append_printf(b, "<allocation>%" PRIi64 "</allocation>", web_int(r, "allocation", 0));
    add_target(b, r, web_given(r, "format") ? web_text(r, "format") : usual);
    if (backing)
        markup_add(b, "<backingStore><path>%s</path><format type='%s'/></backingStore>", backing->path, backing->format);
    g_string_append(b, "</volume>");
    return g_string_free(b, FALSE);
}

static JsonNode *started(struct job *j)
{
    JsonNode *node = j ? web_job_node(j) : NULL;
    job_unref(j);
    return node;
}

static JsonNode *do_volume_create(struct web_request *r, GError **error)
{
    enum { PREALLOCATE = 1, REFLINK = 2 };
    auto_pool *p = request_pool(r, error);
    g_autofree char *xml = p ? volume_text(r, p, error) : NULL;
    const struct volume *from = xml && web_given(r, "from") ? named_volume(p, web_text(r, "from"), error) : NULL;
    unsigned flags = (web_bool(r, "preallocate") ? PREALLOCATE : 0) | (web_bool(r, "reflink") ? REFLINK : 0);
    if (!xml || (web_given(r, "from") && !from))
        return NULL;
    return started(volume_create_job(r->who, p, xml, from ? from->path : NULL, flags, error));
}
WEB_OP(volume_create, .method = "POST", .path = "/pools/{pool}/volumes",
       .summary = "Makes a volume: an empty one, a thin clone, a copy; answers the job", .fields = volume_fields, .status = 202,
       .call = do_volume_create);

#define FORCE_FIELD { "force", WEB_BOOL, false, 0, 0, "also where a volume that stands on it, or a machine, would miss it" }

static const struct web_field wiped_fields[] = { { "wipe", WEB_BOOL, false, 0, 0, "write zeroes over it before" }, FORCE_FIELD, { 0 } };

static JsonNode *do_volume_delete(struct web_request *r, GError **error)
{
    auto_pool *p = request_pool(r, error);
    if (p)
        volume_delete(r->who, p, web_text(r, "volume"), web_bool(r, "wipe"), !web_bool(r, "force"), error);
    return NULL;
}

#define PART_FIELDS                                                                                                               \
    { "offset", WEB_INT, false, 0, INT64_MAX, "bytes in front of it" }, { "length", WEB_INT, false, 0, INT64_MAX, "bytes of it; 0: up to the end" }
static const struct web_field part_fields[] = { PART_FIELDS, { 0 } };
static const struct web_field written_fields[] = { PART_FIELDS,
                                                   { "force", WEB_BOOL, false, 0, 0, "also where another volume stands on it" },
                                                   { 0 } };
WEB_OP(volume_download, .method = "GET", .path = "/pools/{pool}/volumes/{volume}/data",
       .summary = "What is in a volume, as bytes", .fields = part_fields, .flow = WEB_FLOW_OUT);
WEB_OP(volume_upload, .method = "PUT", .path = "/pools/{pool}/volumes/{volume}/data",
       .summary = "Writes the request's body into a volume", .fields = written_fields, .flow = WEB_FLOW_IN);
WEB_OP(volume_delete, .method = "DELETE", .path = "/pools/{pool}/volumes/{volume}", .summary = "Deletes a volume",
       .fields = wiped_fields, .call = do_volume_delete);

static const struct web_field resize_fields[] = {
    { "size", WEB_SIZE, true, 1, INT64_MAX, "the new capacity" },
    { "shrink", WEB_BOOL, false, 0, 0, "also to less: what is behind is lost" },
    { "allocate", WEB_BOOL, false, 0, 0, "all of what is new is there at once" },
    FORCE_FIELD,
    { 0 },
};

static JsonNode *do_volume_resize(struct web_request *r, GError **error)
{
    enum { ALLOCATE = 1, SHRINK = 4 };
    auto_pool *p = request_pool(r, error);
    unsigned flags = (web_bool(r, "allocate") ? ALLOCATE : 0) | (web_bool(r, "shrink") ? SHRINK : 0);
    if (p)
        volume_resize(r->who, p, web_text(r, "volume"), (uint64_t)web_int(r, "size", 0), flags, !web_bool(r, "force"), error);
    return NULL;
}
WEB_OP(volume_resize, .method = "POST", .path = "/pools/{pool}/volumes/{volume}/resize", .summary = "Changes a volume's capacity",
       .fields = resize_fields, .call = do_volume_resize);

static const struct web_field wipe_fields[] = {
    { "algorithm", WEB_STRING, false, 0, 0, "zero, nnsa, dod, bsi, gutmann, schneier, pfitzner7, pfitzner33, random, trim; zero" },
    FORCE_FIELD,
    { 0 },
};

static JsonNode *do_volume_wipe(struct web_request *r, GError **error)
{
    static const char *const words[] = { "zero",     "nnsa",      "dod",        "bsi",    "gutmann",
                                         "schneier", "pfitzner7", "pfitzner33", "random", "trim" };
    const char *word = web_given(r, "algorithm") ? web_text(r, "algorithm") : words[0];
    unsigned algorithm = 0;
    while (algorithm < ARRAY_COUNT(words) && strcmp(words[algorithm], word) != 0)
        algorithm++;
    if (algorithm == ARRAY_COUNT(words)) {
        ruche_error(error, RUCHE_ERR_INVALID, "'%s' is no way to wipe a volume", word);
        return NULL;
    }
    auto_pool *p = request_pool(r, error);
    return p ? started(volume_wipe_job(r->who, p, web_text(r, "volume"), algorithm, !web_bool(r, "force"), error)) : NULL;
}
WEB_OP(volume_wipe, .method = "POST", .path = "/pools/{pool}/volumes/{volume}/wipe", .summary = "Writes over a volume; answers the job",
       .fields = wipe_fields, .status = 202, .call = do_volume_wipe);
