/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mediated devices: made on a parent, defined to be made again, taken away.
 *
 * Spec      Documentation/driver-api/vfio-mediated-device.rst; libvirt's formatnode, capability
 *           mdev.
 * Thread    The loop thread, in a task; writes to /sys, which wait for drivers, on workers.
 * Trust     XML is hostile: what becomes part of a path is checked to be one name.
 */
#include "base/log.h"
#include "base/xml.h"
#include "manager/markup.h"
#include "manager/node/device.h"
#include "manager/node/sysfs.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

enum { STORED_MAX = 65536, ATTRS_MAX = 64, VALUE_MAX = 1024, WAIT_STEPS = 500, STEP_US = 10000 };

/* ---- descriptions ---- */

struct mdev {
    char uuid[UUID_TEXT_BYTES];
    char *name, *parent, *type;
    GPtrArray *attrs; /* name, value, name, value ... */
};

static void mdev_done(struct mdev *m)
{
    g_clear_pointer(&m->name, g_free);
    g_clear_pointer(&m->parent, g_free);
    g_clear_pointer(&m->type, g_free);
    g_clear_pointer(&m->attrs, g_ptr_array_unref);
}
#define auto_mdev __attribute__((cleanup(mdev_done))) struct mdev

static void set_uuid(struct mdev *m, const uint8_t uuid[16])
{
    uuid_format(uuid, m->uuid);
    m->name = g_strconcat("mdev_", m->uuid, NULL);
    g_strdelimit(m->name, "-", '_');
}

static bool parse_attrs(struct mdev *m, const struct xml_node *capability, GError **error)
{
    for (struct xml_node *a = xml_find(capability, "attr"); a; a = xml_next(a)) {
        const char *name = xml_get_or(a, "@name", ""), *value = xml_get_or(a, "@value", "");
        if (m->attrs->len == 2 * ATTRS_MAX || strlen(value) > VALUE_MAX)
            return ruche_error(error, RUCHE_ERR_XML,
                               "node device: more than %d attributes, or one of more than %d bytes",
                               ATTRS_MAX, VALUE_MAX);
        if (!store_name_check("node device's attribute", name, error))
            return false;
        g_ptr_array_add(m->attrs, g_strdup(name));
        g_ptr_array_add(m->attrs, g_strdup(value));
    }
    return true;
}

static bool parse_tree(struct mdev *m, const struct xml_node *root, GError **error)
{
    const struct xml_node *c = xml_find(root, "capability");
    const char *uuid = c ? xml_get(c, "uuid") : NULL;
    uint8_t bytes[16];
    if (!c || !xml_is(c, "@type", "mdev"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "node device: only those with capability 'mdev' can be made");
    if (uuid && !uuid_parse(uuid, bytes))
        return ruche_error(error, RUCHE_ERR_XML, "node device: '%.64s' is not a UUID", uuid);
    if (!uuid)
        uuid_random(bytes);
    set_uuid(m, bytes);
    m->parent = g_strdup(xml_get_or(root, "parent", ""));
    m->type = g_strdup(xml_get_or(c, "type@id", ""));
    m->attrs = g_ptr_array_new_with_free_func(g_free);
    return store_name_check("node device's parent", m->parent, error) &&
           store_name_check("mediated device's type", m->type, error) && parse_attrs(m, c, error);
}

static bool parse(struct mdev *m, const char *xml, GError **error)
{
    auto_xml *doc = xml_parse(xml, strlen(xml), "device", error);
    if (doc && parse_tree(m, doc, error))
        return true;
    mdev_done(m);
    return false;
}

static char *format(const struct mdev *m)
{
    GString *b = g_string_new(NULL);
    markup_add(b,
               "<device>\n  <name>%s</name>\n  <parent>%s</parent>\n  <capability type='mdev'>\n"
               "    <type id='%s'/>\n    <uuid>%s</uuid>\n",
               m->name, m->parent, m->type, m->uuid);
    for (unsigned i = 0; i + 1 < m->attrs->len; i += 2)
        markup_add(b, "    <attr name='%s' value='%s'/>\n", (char *)m->attrs->pdata[i],
                   (char *)m->attrs->pdata[i + 1]);
    g_string_append(b, "  </capability>\n</device>\n");
    return g_string_free(b, FALSE);
}

/* ---- definitions ---- */

struct definition {
    char *text;
    bool autostart;
};
static GHashTable *definitions; /* by name */

static void definition_free(void *opaque)
{
    g_free(((struct definition *)opaque)->text);
    g_free(opaque);
}

static GHashTable *table(void)
{
    if (!definitions)
        definitions = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, definition_free);
    return definitions;
}

static char *config_path(const char *name, const char *folder)
{
    g_autofree char *uuid = g_strdup(name + strlen("mdev_"));
    g_strdelimit(uuid, "_", '-');
    return g_strdup_printf("%s/mdevs/%s%s.xml", manager.config_dir, folder, uuid);
}

/* Waits; a definition that is in the table may be gone after it. */
static bool save(const char *name, const struct definition *d, GError **error)
{
    g_autofree char *path = config_path(name, ""), *link = config_path(name, "autostart/");
    g_autofree char *dir = g_path_get_dirname(link), *text = d ? g_strdup(d->text) : NULL;
    bool autostart = d && d->autostart;
    if (!d)
        return store_remove(link, error) && store_remove(path, error);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
    return store_write(path, text, 0600, error) &&
           (autostart ? store_link(link, path, error) : store_remove(link, error));
}

static void load(const char *path)
{
    auto_mdev m = {0};
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, STORED_MAX, &error);
    if (!text || !parse(&m, text, &error)) {
        log_warn("node device '%s' is left out: %s", path, error->message);
        return;
    }
    g_autofree char *link = config_path(m.name, "autostart/");
    struct definition *d = g_new0(struct definition, 1);
    d->text = format(&m);
    d->autostart = g_file_test(link, G_FILE_TEST_IS_SYMLINK);
    g_hash_table_replace(table(), g_strdup(m.name), d);
}

static void load_all(void)
{
    g_autofree char *dir = g_strdup_printf("%s/mdevs", manager.config_dir);
    g_autoptr(GDir) files = g_dir_open(dir, 0, NULL);
    store_clean_dir(dir);
    for (const char *file; files && (file = g_dir_read_name(files));) {
        g_autofree char *path = g_build_filename(dir, file, NULL);
        if (g_str_has_suffix(file, ".xml"))
            load(path);
    }
}

static struct node_device *inactive_device(const char *name, const struct definition *d)
{
    auto_mdev m = {0};
    struct node_device *n = g_new0(struct node_device, 1);
    n->name = g_strdup(name);
    n->kind = DEVICE_MDEV;
    n->caps = 1u << DEVICE_MDEV;
    n->parent = g_strdup(parse(&m, d->text, NULL) ? m.parent : "computer");
    return n;
}

void node_device_add_defined(GPtrArray *all)
{
    GHashTableIter it;
    const char *name;
    const struct definition *d;
    g_hash_table_iter_init(&it, table());
    while (g_hash_table_iter_next(&it, (gpointer *)&name, (gpointer *)&d)) {
        struct node_device *n = NULL;
        for (unsigned i = 0; i < all->len && !n; i++)
            if (!strcmp(((struct node_device *)all->pdata[i])->name, name))
                n = all->pdata[i];
        if (!n) {
            n = inactive_device(name, d);
            g_ptr_array_add(all, n);
        }
        n->text = g_strdup(d->text);
        n->autostart = d->autostart;
    }
}

/* ---- making ---- */

struct make_work {
    const struct mdev *m;
    const char *parent; /* its path */
    GError *error;
};

/* The kernel is done when the write ends, mostly: what is not there yet is looked for after pauses,
 * which is not worth a socket of uevents. */
static bool wait_for(const char *path, bool there)
{
    for (int i = 0; i < WAIT_STEPS; i++) {
        if (sysfs_exists(path) == there)
            return true;
        g_usleep(STEP_US);
    }
    return false;
}

static bool take_away(const char *uuid, GError **error)
{
    g_autofree char *device = g_strdup_printf("/sys/bus/mdev/devices/%s", uuid),
                    *file = g_strconcat(device, "/remove", NULL);
    if (!sysfs_write(file, "1", error))
        return false;
    return wait_for(device, false) ||
           ruche_error(error, RUCHE_ERR_IO, "its parent's driver does not let go of it");
}

static bool make(const struct make_work *w, GError **error)
{
    const struct mdev *m = w->m;
    g_autofree char *create =
                        g_strdup_printf("%s/mdev_supported_types/%s/create", w->parent, m->type),
                    *device = g_strdup_printf("/sys/bus/mdev/devices/%s", m->uuid);
    if (!sysfs_write(create, m->uuid, error))
        return false;
    if (!wait_for(device, true))
        return ruche_error(error, RUCHE_ERR_IO, "its parent's driver does not make it");
    for (unsigned i = 0; i + 1 < m->attrs->len; i += 2) {
        g_autofree char *file = g_strdup_printf("%s/%s", device, (char *)m->attrs->pdata[i]);
        if (!sysfs_write(file, m->attrs->pdata[i + 1], error)) {
            take_away(m->uuid, NULL);
            return false;
        }
    }
    return true;
}

static void make_work(void *opaque)
{
    struct make_work *w = opaque;
    make(w, &w->error);
}

static void remove_work(void *opaque)
{
    struct make_work *w = opaque;
    take_away(w->m->uuid, &w->error);
}

static bool check_room(const struct mdev *m, const struct node_device *parent, GError **error)
{
    uint64_t left = 0;
    g_autofree char *type = g_strdup_printf("%s/mdev_supported_types/%s", parent->path, m->type);
    if (!(parent->caps & 1u << DEVICE_MDEV_TYPES))
        return ruche_error(error, MANAGER_ERR_CONFIG, "node device '%s' makes no mediated devices",
                           m->parent);
    if (!sysfs_exists(type))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "node device '%s' has no type '%s' of mediated devices", m->parent,
                           m->type);
    if (sysfs_read_u64(&left, "%s/available_instances", type) && !left)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "node device '%s' has no room for another mediated device of type '%s'",
                           m->parent, m->type);
    return true;
}

static bool work(void (*fn)(void *opaque), struct make_work *w, GError **error)
{
    task_work_long(fn, w);
    node_device_rescan();
    if (w->error)
        ruche_error(error, w->error->code, "node device '%s': %s", w->m->name, w->error->message);
    bool ok = !w->error;
    g_clear_error(&w->error);
    return ok;
}

static bool do_start(const struct mdev *m, GError **error)
{
    g_autofree char *device = g_strdup_printf("/sys/bus/mdev/devices/%s", m->uuid);
    if (sysfs_exists(device))
        return ruche_error(error, RUCHE_ERR_STATE, "node device '%s' is already active", m->name);
    struct node_device *parent = node_device_find(&caller_self, m->parent, error);
    struct make_work w = {.m = m, .parent = parent ? parent->path : NULL};
    bool ok = parent && check_room(m, parent, error) && work(make_work, &w, error);
    node_device_free(parent);
    return ok;
}

/* ---- operations ---- */

/* True in the end, or false with *error; both are in the audit log. */
static bool finish(const struct caller *who, const char *what, const char *name, GError *inner,
                   GError **error)
{
    bool ok = !inner;
    audit(who, what, name, inner);
    if (inner)
        g_propagate_error(error, inner);
    return ok;
}

static bool allowed(const struct caller *who, const char *what, const char *name, GError **error)
{
    g_autofree char *sentence = g_strdup_printf("%s node device '%.255s'", what, name);
    return access_check(who, RIGHT_HOST, sentence, error);
}

struct node_device *node_device_create_xml(const struct caller *who, const char *xml,
                                           GError **error)
{
    auto_mdev m = {0};
    GError *inner = NULL;
    if (!allowed(who, "create", "", error) || !parse(&m, xml, error))
        return NULL;
    do_start(&m, &inner);
    return finish(who, "create", m.name, inner, error) ? node_device_find(who, m.name, error)
                                                       : NULL;
}

static void do_define(const struct mdev *m, GError **error)
{
    struct node_device *parent = node_device_find(&caller_self, m->parent, error);
    const struct definition *old = g_hash_table_lookup(table(), m->name);
    if (!parent)
        return;
    node_device_free(parent);
    struct definition *d = g_new0(struct definition, 1);
    d->text = format(m);
    d->autostart = old && old->autostart;
    if (!save(m->name, d, error)) {
        definition_free(d);
        return;
    }
    g_hash_table_replace(table(), g_strdup(m->name), d);
    node_device_emit(m->name, 0, NODE_DEVICE_DEFINED);
}

struct node_device *node_device_define(const struct caller *who, const char *xml, GError **error)
{
    auto_mdev m = {0};
    GError *inner = NULL;
    if (!allowed(who, "define", "", error) || !parse(&m, xml, error))
        return NULL;
    do_define(&m, &inner);
    return finish(who, "define", m.name, inner, error) ? node_device_find(who, m.name, error)
                                                       : NULL;
}

static struct definition *defined(const char *name, GError **error)
{
    struct definition *d = g_hash_table_lookup(table(), name);
    struct node_device *n = d ? NULL : node_device_find(&caller_self, name, error);
    if (n)
        ruche_error(error, RUCHE_ERR_STATE, "node device '%s' is not defined here", name);
    node_device_free(n);
    return d;
}

bool node_device_undefine(const struct caller *who, const char *name, GError **error)
{
    GError *inner = NULL;
    g_autofree char *own = g_strdup(name);
    if (!allowed(who, "undefine", name, error))
        return false;
    if (defined(name, &inner) && save(name, NULL, &inner)) {
        g_hash_table_remove(table(), own);
        node_device_emit(own, 0, NODE_DEVICE_UNDEFINED);
    }
    return finish(who, "undefine", own, inner, error);
}

static void start_defined(const char *name, GError **error)
{
    auto_mdev m = {0};
    const struct definition *d = defined(name, error);
    if (d && parse(&m, d->text, error))
        do_start(&m, error);
}

bool node_device_start(const struct caller *who, const char *name, GError **error)
{
    GError *inner = NULL;
    if (!allowed(who, "start", name, error))
        return false;
    start_defined(name, &inner);
    return finish(who, "start", name, inner, error);
}

static void do_destroy(const char *name, GError **error)
{
    struct node_device *d = node_device_find(&caller_self, name, error);
    auto_mdev m = {0};
    if (d && d->kind != DEVICE_MDEV)
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "node device '%s' is no mediated device, and cannot be taken away", name);
    else if (d && !d->active)
        ruche_error(error, RUCHE_ERR_STATE, "node device '%s' is not active", name);
    else if (d) {
        g_autofree char *uuid = g_path_get_basename(d->path);
        struct make_work w = {.m = &m};
        g_strlcpy(m.uuid, uuid, sizeof(m.uuid));
        m.name = g_strdup(name);
        work(remove_work, &w, error);
    }
    node_device_free(d);
}

bool node_device_destroy(const struct caller *who, const char *name, GError **error)
{
    GError *inner = NULL;
    if (!allowed(who, "destroy", name, error))
        return false;
    do_destroy(name, &inner);
    return finish(who, "destroy", name, inner, error);
}

static void do_autostart(const char *name, bool on, GError **error)
{
    struct definition *d = defined(name, error);
    if (!d || d->autostart == on)
        return;
    g_autofree char *own = g_strdup(name);
    d->autostart = on;
    if (save(own, d, error))
        return;
    d = g_hash_table_lookup(table(), own);
    if (d)
        d->autostart = !on;
}

bool node_device_set_autostart(const struct caller *who, const char *name, bool on, GError **error)
{
    GError *inner = NULL;
    if (!allowed(who, "autostart", name, error))
        return false;
    do_autostart(name, on, &inner);
    return finish(who, "autostart", name, inner, error);
}

void node_devices_autostart(void)
{
    g_autoptr(GPtrArray) all =
        node_devices(&caller_self, 1u << DEVICE_MDEV | NODE_DEVICES_INACTIVE);
    for (unsigned i = 0; i < all->len; i++) {
        const struct node_device *d = all->pdata[i];
        g_autoptr(GError) error = NULL;
        if (d->autostart && !node_device_start(&caller_self, d->name, &error))
            log_warn("node device '%s' is not started: %s", d->name, error->message);
    }
}

bool node_devices_load(GError **error)
{
    load_all();
    return node_device_watch(error);
}

void node_devices_stop(void)
{
    node_device_unwatch();
    g_clear_pointer(&definitions, g_hash_table_unref);
}
