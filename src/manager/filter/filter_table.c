/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The filters there are: found, listed, defined, taken away, kept. See filter.h.
 *
 * Thread    The loop thread.
 */
#include "base/log.h"
#include "manager/filter/filter_priv.h"
#include "manager/named.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#define FILTERS_MAX 1024 /* libvirt's protocol lists no more */

static struct named_table filters = {
    NAMED_TABLE(struct filter, "network filter", MANAGER_ERR_NO_FILTER, filter_unref)};
static struct fiber_mutex lock;

void filter_lock(void)
{
    fiber_mutex_lock(&lock);
}

void filter_unlock(void)
{
    fiber_mutex_unlock(&lock);
}

/* ---- the table ---- */

void filter_unref(struct filter *f)
{
    if (!f || --f->refs)
        return;
    filter_def_free(f->def);
    g_free(f->name);
    g_free(f->text);
    g_free(f);
}

static struct filter *filter_new(struct filter_def *d)
{
    struct filter *f = g_new0(struct filter, 1);
    f->refs = 1;
    f->def = d;
    memcpy(f->uuid, d->uuid, sizeof(f->uuid));
    f->name = g_strdup(d->name);
    f->text = filter_def_format(d);
    return f;
}

static struct filter *known(const char *name)
{
    return named_peek(&filters, name);
}

/* In the place of the one of its name. */
static void insert(struct filter *f)
{
    struct filter *old = known(f->name);
    if (old)
        named_remove(&filters, old);
    named_insert(&filters, f);
}

const struct filter_def *filter_def_of(const char *name)
{
    struct filter *f = known(name);
    return f ? f->def : NULL;
}

struct filter *filter_find_name(const char *name, GError **error)
{
    return named_find_name(&filters, name, error);
}

struct filter *filter_find_uuid(const uint8_t *uuid, GError **error)
{
    return named_find_uuid(&filters, uuid, error);
}

GPtrArray *filter_list(const struct caller *who)
{
    if (!access_check(who, RIGHT_READ, "list filters", NULL))
        return g_ptr_array_new();
    return named_list(&filters, NULL, 0);
}

char *filter_xml(const struct caller *who, const struct filter *f, unsigned flags, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read a filter's description", error))
        return NULL;
    if (!flags)
        return g_strdup(f->text);
    ruche_error(error, MANAGER_ERR_ARGUMENT, "describe filter: flags 0x%x are not supported",
                flags);
    return NULL;
}

void filter_info(const struct filter *f, struct filter_info *ret)
{
    const struct filter_def *d = f->def;
    *ret = (struct filter_info){
        .chain = d->chain, .priority = d->priority, .includes = g_ptr_array_new()};
    for (unsigned i = 0; i < d->nodes->len; i++) {
        const struct filter_node *n = d->nodes->pdata[i];
        if (n->ref)
            g_ptr_array_add(ret->includes, n->ref);
        else
            ret->rules++;
    }
}

/* ---- files ---- */

static char *folder(void)
{
    return g_build_filename(manager.config_dir, "nwfilters", NULL);
}

static char *path_of(const char *name)
{
    return g_strdup_printf("%s/nwfilters/%s.xml", manager.config_dir, name);
}

static bool save(const struct filter *f, GError **error)
{
    g_autofree char *dir = folder(), *path = path_of(f->name);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
    return store_write(path, f->text, 0600, error);
}

static void load_file(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL), *wanted = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, FILTER_TEXT_MAX, &error);
    struct filter_def *d = text ? filter_def_parse(text, &error) : NULL;
    if (!d) {
        log_warn("filter '%s' is left out: %s", path, error->message);
        return;
    }
    wanted = g_strconcat(d->name, ".xml", NULL);
    struct filter *f = filter_new(d), *same = filter_find_uuid(f->uuid, NULL);
    if (strcmp(wanted, file) != 0 || same)
        log_warn("filter '%s' is left out: it describes '%s'%s", path, f->name,
                 same ? ", whose UUID is taken" : "");
    else
        insert(f);
    filter_unref(same);
    filter_unref(f);
}

static char *marker(void)
{
    return g_build_filename(manager.config_dir, "nwfilters", "builtin", NULL);
}

/* The marker comes last: what was cut off goes on at the next start. */
static void save_builtin(void *opaque)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *done = marker();
    bool ok = true;
    for (unsigned i = 0; filter_builtin[i] && ok; i++) {
        g_autofree char *name = g_strdup(filter_builtin[i] + strlen("<filter name='"));
        *strchr(name, '\'') = 0;
        struct filter *f = filter_find_name(name, NULL);
        ok = !f || save(f, &error);
        filter_unref(f);
    }
    if (!ok || !store_write(done, "These filters come with the program; those deleted stay away.\n",
                            0600, &error))
        log_warn("filters that come with the program are not stored: %s", error->message);
}

static bool add_builtin(GError **error)
{
    for (unsigned i = 0; filter_builtin[i]; i++) {
        struct filter_def *d = filter_def_parse(filter_builtin[i], error);
        if (!d)
            return false;
        struct filter *f = filter_new(d);
        if (!known(f->name))
            insert(f);
        filter_unref(f);
    }
    return true;
}

bool filters_load(GError **error)
{
    g_autofree char *dir = folder(), *done = marker();
    store_clean_dir(dir);
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    for (const char *name; entries && (name = g_dir_read_name(entries));)
        if (g_str_has_suffix(name, ".xml"))
            load_file(dir, name);
    if (!manager.session && !g_file_test(done, G_FILE_TEST_EXISTS)) {
        if (!add_builtin(error))
            return false;
        task_start(save_builtin, NULL);
    }
    filter_bindings_load();
    return true;
}

void filters_autostart(void)
{
    filter_bindings_refresh();
}

void filters_stop(void)
{
    filter_bindings_stop();
    named_done(&filters);
}

/* ---- define, undefine ---- */

static bool check_identity(struct filter_def *d, GError **error)
{
    char text[UUID_TEXT_BYTES];
    struct filter *same = known(d->name);
    if (same && !d->has_uuid)
        memcpy(d->uuid, same->uuid, sizeof(d->uuid));
    uuid_format(same ? same->uuid : d->uuid, text);
    if (same && memcmp(same->uuid, d->uuid, sizeof(d->uuid)) != 0)
        return ruche_error(error, RUCHE_ERR_EXISTS, "filter '%s' is already defined with UUID %s",
                           d->name, text);
    struct filter *other = same ? NULL : filter_find_uuid(d->uuid, NULL);
    if (other) {
        ruche_error(error, RUCHE_ERR_EXISTS, "filter '%s' already has UUID %s", other->name, text);
        filter_unref(other);
        return false;
    }
    return same || named_count(&filters) < FILTERS_MAX ||
           ruche_error(error, RUCHE_ERR_NO_SPACE, "there are %d filters; there cannot be more",
                       FILTERS_MAX);
}

/* Each filter that can be reached is looked at once. */
static bool check_loops(const struct filter_def *d, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) queue = g_ptr_array_new();
    g_ptr_array_add(queue, (void *)d);
    for (unsigned i = 0; i < queue->len; i++) {
        const struct filter_def *from = queue->pdata[i];
        for (unsigned k = 0; k < from->nodes->len; k++) {
            const struct filter_node *n = from->nodes->pdata[k];
            if (n->ref && !strcmp(n->ref, d->name))
                return ruche_error(error, RUCHE_ERR_XML,
                                   "filter '%s' would include itself, by '%s'", d->name,
                                   from->name);
            const struct filter_def *to =
                n->ref && g_hash_table_add(seen, n->ref) ? filter_def_of(n->ref) : NULL;
            if (to)
                g_ptr_array_add(queue, (void *)to);
        }
    }
    return true;
}

static bool replace(struct filter *f, GError **error)
{
    struct filter *old = known(f->name);
    if (!filter_bindings_follow(f->def, error))
        return false;
    if (!save(f, error)) {
        if (old)
            filter_bindings_follow(old->def, NULL);
        return false;
    }
    insert(f);
    return true;
}

struct filter *filter_define(const struct caller *who, const char *xml, unsigned flags,
                             GError **error)
{
    if (!access_check(who, RIGHT_HOST, "define a filter", error))
        return NULL;
    if (flags & ~(unsigned)FILTER_DEFINE_VALIDATE) {
        ruche_error(error, MANAGER_ERR_ARGUMENT, "define filter: flags 0x%x are not supported",
                    flags);
        return NULL;
    }
    struct filter_def *d = filter_def_parse(xml, error);
    if (!d)
        return NULL;
    g_autoptr(GError) e = NULL;
    filter_lock();
    struct filter *f = check_identity(d, &e) && check_loops(d, &e) ? filter_new(d) : NULL;
    bool ok = f && replace(f, &e);
    filter_unlock();
    audit(who, "define filter", d->name, e);
    if (!f)
        filter_def_free(d);
    if (ok)
        return f;
    filter_unref(f);
    g_propagate_error(error, g_steal_pointer(&e));
    return NULL;
}

static bool undefine(struct filter *f, GError **error)
{
    g_autofree char *user = filter_bindings_user(f->name), *path = path_of(f->name);
    if (known(f->name) != f)
        return ruche_error(error, MANAGER_ERR_NO_FILTER, "filter '%s' is no longer there", f->name);
    if (user)
        return ruche_error(error, RUCHE_ERR_STATE, "filter '%s' is in use by interface '%s'",
                           f->name, user);
    if (!store_remove(path, error))
        return false;
    named_remove(&filters, f);
    return true;
}

bool filter_undefine(const struct caller *who, struct filter *f, GError **error)
{
    g_autoptr(GError) e = NULL;
    if (!access_check(who, RIGHT_HOST, "undefine a filter", error))
        return false;
    named_ref(&filters, f);
    filter_lock();
    bool ok = undefine(f, &e);
    filter_unlock();
    audit(who, "undefine filter", f->name, e);
    filter_unref(f);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&e));
    return ok;
}
