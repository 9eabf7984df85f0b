/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which interface has which filter, and its rules in the kernel. See filter.h.
 *
 * Thread    The loop thread. What nftables does waits on a worker, with the lock held.
 */
#include "base/log.h"
#include "manager/filter/filter_priv.h"
#include "manager/markup.h"
#include "manager/network/nft.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <net/if.h>
#include <string.h>

static GHashTable *bindings; /* names of interfaces to struct filter_binding */
static struct event_listener listener;
static guint soon; /* a look at addresses */

/* ---- the table ---- */

/* One that is not in the table learns nothing. */
static void let_go(gpointer p)
{
    struct filter_binding *b = p;
    g_clear_pointer(&b->addresses, filter_addresses_free);
    filter_binding_unref(b);
}

static GHashTable *table(void)
{
    if (!bindings)
        bindings = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, let_go);
    return bindings;
}

void filter_binding_unref(struct filter_binding *b)
{
    if (!b || --b->refs)
        return;
    g_free(b->ifname);
    g_free(b->filter);
    g_free(b->mac);
    g_free(b->owner_name);
    g_free(b->learned);
    filter_addresses_free(b->addresses);
    xml_free(b->doc);
    g_free(b);
}

static struct filter_binding *ref(struct filter_binding *b)
{
    b->refs++;
    return b;
}

struct filter_binding *filter_binding_find(const char *ifname, GError **error)
{
    struct filter_binding *b = g_hash_table_lookup(table(), ifname);
    if (!b)
        ruche_error(error, MANAGER_ERR_NO_FILTER, "no filter binding for interface '%s'", ifname);
    return b ? ref(b) : NULL;
}

static gint by_ifname(gconstpointer a, gconstpointer b)
{
    return strcmp((*(struct filter_binding *const *)a)->ifname,
                  (*(struct filter_binding *const *)b)->ifname);
}

static GPtrArray *all(void)
{
    GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)filter_binding_unref);
    g_autoptr(GList) values = g_hash_table_get_values(table());
    for (GList *l = values; l; l = l->next)
        g_ptr_array_add(list, ref(l->data));
    g_ptr_array_sort(list, by_ifname);
    return list;
}

GPtrArray *filter_binding_list(const struct caller *who)
{
    return access_check(who, RIGHT_READ, "list filter bindings", NULL)
               ? all()
               : g_ptr_array_new_with_free_func((GDestroyNotify)filter_binding_unref);
}

/* ---- rules ---- */

static const struct filter_def *find(const char *name, void *opaque)
{
    const struct filter_def *instead = opaque;
    return instead && !strcmp(instead->name, name) ? instead : filter_def_of(name);
}

static char *bridge_of(const char *ifname)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s/master", ifname),
                    *target = g_file_read_link(path, NULL);
    return target ? g_path_get_basename(target) : NULL;
}

static bool compile(const struct filter_binding *b, const struct filter_def *instead,
                    struct filter_program *ret, GError **error)
{
    g_autoptr(GHashTable) params = filter_params_new();
    if (!filter_params_parse(params, xml_find(b->doc, "filterref"), error))
        return false;
    g_autofree char *learned = g_hash_table_contains(params, "IP") ? NULL : filter_addresses(b);
    g_auto(GStrv) addresses = g_strsplit(learned ? learned : "", " ", -1);
    for (char **a = addresses; *a; a++)
        filter_params_add(params, "IP", *a);
    g_autofree char *bridge = bridge_of(b->ifname);
    struct filter_target t = {.ifname = b->ifname,
                              .filter = b->filter,
                              .mac = b->mac,
                              .bridge = bridge,
                              .params = params,
                              .find = find,
                              .opaque = (void *)instead};
    if (!filter_compile(&t, ret, error))
        return false;
    ret->learned = g_steal_pointer(&learned);
    return true;
}

/* Does the kernel know such a rule on bridges? Nothing of this stays; no interface's table is called
 * so. */
static bool knows(const char *rule)
{
    g_autofree char *commands = g_strdup_printf(
        "add table bridge ruche_probe\n"
        "add chain bridge ruche_probe c { type filter hook prerouting priority 0; }\n"
        "add rule bridge ruche_probe c %s\n"
        "delete table bridge ruche_probe\n",
        rule);
    return nft_apply(commands, NULL);
}

static bool apply(const char *commands, bool needs_ct, bool rejects, const char *filter,
                  GError **error)
{
    g_autoptr(GError) e = NULL;
    if (nft_apply(commands, &e))
        return true;
    if (needs_ct && !knows("ct state established accept"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "filter '%s' asks for the state of connections, which this kernel does "
                           "not track on bridges "
                           "(CONFIG_NF_CONNTRACK_BRIDGE); rules with statematch='false' do without",
                           filter);
    if (rejects && !knows("ether type ip reject"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "filter '%s' answers what it rejects, which this kernel cannot do on "
                           "bridges (CONFIG_NFT_BRIDGE_REJECT); action='drop' does without",
                           filter);
    g_propagate_prefixed_error(error, g_steal_pointer(&e), "filter '%s': ", filter);
    return false;
}

/* Its rules are those of `p` now. */
static void take_result(struct filter_binding *b, struct filter_program *p)
{
    g_free(b->learned);
    b->learned = g_steal_pointer(&p->learned);
    b->waiting = p->waits_for_ip;
    filter_addresses_listen(b);
}

static bool apply_one(struct filter_binding *b, GError **error)
{
    struct filter_program p = {0};
    if (!compile(b, NULL, &p, error))
        return false;
    bool ok = apply(p.text, p.needs_ct, p.rejects, b->filter, error);
    if (ok)
        take_result(b, &p);
    filter_program_done(&p);
    return ok;
}

static void free_program(gpointer p)
{
    filter_program_done(p);
    g_free(p);
}

bool filter_bindings_follow(const struct filter_def *d, GError **error)
{
    g_autoptr(GPtrArray) list = all(), users = g_ptr_array_new(),
                         programs = g_ptr_array_new_with_free_func(free_program);
    g_autoptr(GString) commands = g_string_new(NULL);
    bool needs_ct = false, rejects = false;
    for (unsigned i = 0; i < list->len; i++) {
        struct filter_binding *b = list->pdata[i];
        struct filter_program *p = g_new0(struct filter_program, 1);
        g_ptr_array_add(programs, p);
        if (!compile(b, d, p, error)) {
            g_prefix_error(error, "interface '%s': ", b->ifname);
            return false;
        }
        bool uses = g_hash_table_contains(p->used, d->name);
        g_ptr_array_add(users, uses ? b : NULL);
        g_string_append(commands, uses ? p->text : "");
        needs_ct |= uses && p->needs_ct;
        rejects |= uses && p->rejects;
    }
    if (commands->len && !apply(commands->str, needs_ct, rejects, d->name, error))
        return false;
    for (unsigned i = 0; i < users->len; i++)
        if (users->pdata[i])
            take_result(users->pdata[i], programs->pdata[i]);
    return true;
}

char *filter_bindings_user(const char *name)
{
    g_autoptr(GPtrArray) list = all();
    for (unsigned i = 0; i < list->len; i++) {
        struct filter_binding *b = list->pdata[i];
        struct filter_program p = {0};
        bool uses = !strcmp(b->filter, name) ||
                    (compile(b, NULL, &p, NULL) && g_hash_table_contains(p.used, name));
        filter_program_done(&p);
        if (uses)
            return g_strdup(b->ifname);
    }
    return NULL;
}

/* ---- bind, and let go ---- */

static void remove_rules(const char *ifname)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *name = filter_table_name(ifname);
    if (!nft_delete_table("bridge", name, &error))
        log_warn("interface '%s': rules of its filter stay: %s", ifname, error->message);
    else
        filter_binding_forget(ifname);
    filter_addresses_forget(ifname);
}

static void unplug(void *opaque)
{
    g_autofree char *ifname = opaque;
    filter_lock();
    if (!g_hash_table_contains(table(), ifname)) /* the name may be another's by now */
        remove_rules(ifname);
    filter_unlock();
}

void filter_unplug(const char *ifname)
{
    char *name = g_strdup(ifname);
    if (g_hash_table_remove(table(), ifname))
        task_start(unplug, name);
    else
        g_free(name);
}

void filter_unplug_owner(const uint8_t *owner)
{
    char text[UUID_TEXT_BYTES];
    g_autoptr(GPtrArray) list = all();
    uuid_format(owner, text);
    for (unsigned i = 0; i < list->len; i++) {
        const struct filter_binding *b = list->pdata[i];
        if (!strcmp(b->owner, text))
            filter_unplug(b->ifname);
    }
}

/* Takes the reference, if it goes well. */
static bool bind_it(struct filter_binding *b, GError **error)
{
    bool was = g_hash_table_contains(table(), b->ifname);
    if (!filter_binding_note(b, error))
        return false;
    filter_addresses_forget(b->ifname); /* of an interface that had the name before */
    if (apply_one(b, error)) {
        g_hash_table_replace(table(), b->ifname, b);
        return true;
    }
    if (!was)
        remove_rules(b->ifname);
    return false;
}

bool filter_plug(const char *ifname, const uint8_t *owner, const char *owner_name, const char *mac,
                 const struct xml_node *element, GError **error)
{
    if (!element)
        return true;
    char uuid[UUID_TEXT_BYTES];
    uuid_format(owner, uuid);
    g_autofree char *filterref = xml_format(element, 1);
    g_autoptr(GString) s = g_string_new(NULL);
    markup_add(s,
               "<filterbinding>\n  <owner>\n    <name>%s</name>\n    <uuid>%s</uuid>\n  </owner>\n "
               " <portdev name='%s'/>\n"
               "  <mac address='%s'/>\n",
               owner_name, uuid, ifname, mac ? mac : "");
    g_string_append_printf(s, "%s</filterbinding>\n", filterref);
    struct filter_binding *b = filter_binding_parse(s->str, error);
    if (!b)
        return false;
    filter_lock();
    g_hash_table_remove(table(), ifname); /* of an interface that had the name before */
    bool ok = bind_it(b, error);
    filter_unlock();
    if (!ok)
        filter_binding_unref(b);
    return ok;
}

struct filter_binding *filter_binding_create(const struct caller *who, const char *xml,
                                             unsigned flags, GError **error)
{
    if (!access_check(who, RIGHT_HOST, "create a filter binding", error))
        return NULL;
    if (flags & ~(unsigned)FILTER_DEFINE_VALIDATE) {
        ruche_error(error, MANAGER_ERR_ARGUMENT,
                    "create filter binding: flags 0x%x are not supported", flags);
        return NULL;
    }
    g_autoptr(GError) e = NULL;
    struct filter_binding *b = filter_binding_parse(xml, error);
    if (!b)
        return NULL;
    filter_lock();
    bool ok;
    if (g_hash_table_contains(table(), b->ifname))
        ok = ruche_error(&e, RUCHE_ERR_EXISTS, "interface '%s' has a filter already", b->ifname);
    else if (!if_nametoindex(b->ifname))
        ok = ruche_error(&e, MANAGER_ERR_CONFIG, "there is no interface '%s' on this host",
                         b->ifname);
    else
        ok = bind_it(b, &e);
    filter_unlock();
    audit(who, "create filter binding", b->ifname, e);
    if (ok)
        return ref(b);
    filter_binding_unref(b);
    g_propagate_error(error, g_steal_pointer(&e));
    return NULL;
}

bool filter_binding_delete(const struct caller *who, const char *ifname, GError **error)
{
    if (!access_check(who, RIGHT_HOST, "delete a filter binding", error))
        return false;
    struct filter_binding *b = filter_binding_find(ifname, error);
    if (!b)
        return false;
    filter_lock();
    if (g_hash_table_lookup(table(), b->ifname) == b && g_hash_table_remove(table(), b->ifname))
        remove_rules(b->ifname);
    filter_unlock();
    audit(who, "delete filter binding", b->ifname, NULL);
    filter_binding_unref(b);
    return true;
}

/* ---- addresses that come and go ---- */

static bool address_changed(const struct filter_binding *b)
{
    g_autoptr(GHashTable) params = filter_params_new();
    if (!filter_params_parse(params, xml_find(b->doc, "filterref"), NULL) ||
        g_hash_table_contains(params, "IP"))
        return false;
    g_autofree char *now = filter_addresses(b);
    return g_strcmp0(now, b->learned) != 0;
}

static void refresh(bool only_addresses)
{
    filter_lock();
    g_autoptr(GPtrArray) list = all();
    for (unsigned i = 0; i < list->len; i++) {
        struct filter_binding *b = list->pdata[i];
        g_autoptr(GError) error = NULL;
        if (g_hash_table_lookup(table(), b->ifname) != b || (only_addresses && !address_changed(b)))
            continue;
        if (!apply_one(b, &error))
            log_warn("interface '%s': its filter stays as it was: %s", b->ifname, error->message);
    }
    filter_unlock();
}

void filter_bindings_refresh(void)
{
    refresh(false);
}

static void look_at_addresses(void *opaque)
{
    refresh(true);
}

static gboolean begin_look(gpointer opaque)
{
    soon = 0;
    task_start(look_at_addresses, NULL);
    return G_SOURCE_REMOVE;
}

void filter_bindings_look(void)
{
    if (!soon && g_hash_table_size(table()))
        soon = g_idle_add(begin_look, NULL);
}

static void on_event(void *opaque, const struct event *e)
{
    if (e->class == EVENT_NETWORK)
        filter_bindings_look();
}

/* ---- start and stop ---- */

static void load_file(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, FILTER_TEXT_MAX, &error);
    struct filter_binding *b = text ? filter_binding_parse(text, &error) : NULL;
    if (!b) {
        log_warn("filter binding '%s' is left out: %s", path, error->message);
    } else if (if_nametoindex(b->ifname)) {
        filter_addresses_load(b);
        g_hash_table_replace(table(), b->ifname, b);
    } else {
        task_start(unplug, g_strdup(b->ifname));
        filter_binding_unref(b);
    }
}

void filter_bindings_load(void)
{
    g_autofree char *dir = filter_bindings_folder();
    store_clean_dir(dir);
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    for (const char *name; entries && (name = g_dir_read_name(entries));)
        if (g_str_has_suffix(name, ".xml"))
            load_file(dir, name);
    listener.fn = on_event;
    event_listen(&listener);
}

void filter_bindings_stop(void)
{
    event_unlisten(&listener);
    if (soon)
        g_source_remove(soon);
    soon = 0;
    g_clear_pointer(&bindings, g_hash_table_unref);
}
