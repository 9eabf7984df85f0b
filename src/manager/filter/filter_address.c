/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The IPv4 addresses of an interface whose filter asks for $IP and to which nobody gave one.
 *
 * Spec      CTRL_IP_LEARNING of libvirt's filters: "any" (not given), "dhcp", "none".
 * Thread    The loop thread.
 *
 * What a network of ours has leased to the interface's MAC address comes first. Else it is what
 * frames tell: by "dhcp" what any server leases, until it ends; by "any" the first address that is
 * leased or used, which then stays. They are noted in runtime_dir/nwfilters/INTERFACE.addresses, a
 * line each, for the next manager.
 */
#include "base/log.h"
#include "manager/filter/filter_learn.h"
#include "manager/filter/filter_priv.h"
#include "manager/network/address.h"
#include "manager/network/network.h"
#include "manager/store.h"

#include <glib/gstdio.h>
#include <string.h>

enum { NETWORKS_ACTIVE = 2 }; /* of virConnectListAllNetworksFlags */
enum { ADDRESSES_MAX = 16, NOTE_MAX = 4096, TIMER_STEP_S = 3600 };

struct seen {
    uint8_t ip[4];
    gint64 until; /* seconds since 1970; 0: for ever */
};
struct filter_addresses {
    struct filter_learner *learner; /* NULL: nothing to be learned */
    struct filter_learner_of of;
    struct seen seen[ADDRESSES_MAX];
    unsigned count;
    guint timer; /* of the first that ends */
};

static gint64 now(void)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

static char *note_path(const char *ifname)
{
    return g_strdup_printf("%s/nwfilters/%s.addresses", manager.runtime_dir, ifname);
}

static char *text_of_ip(const uint8_t ip[4])
{
    return g_strdup_printf("%u.%u.%u.%u", ip[0], ip[1], ip[2], ip[3]);
}

static struct filter_addresses *addresses_of(struct filter_binding *b)
{
    if (!b->addresses)
        b->addresses = g_new0(struct filter_addresses, 1);
    return b->addresses;
}

/* ---- what is known ---- */

static void leased(GString *s, const char *mac)
{
    g_autoptr(GPtrArray) networks = network_list(&caller_self, NETWORKS_ACTIVE);
    for (unsigned i = 0; i < networks->len; i++) {
        const struct network *n = networks->pdata[i];
        g_autoptr(GPtrArray) leases = network_leases_of(n->name, mac);
        for (unsigned k = 0; k < leases->len; k++) {
            const struct network_lease *l = leases->pdata[k];
            if (!l->v6)
                g_string_append_printf(s, "%s%s", s->len ? " " : "", l->ip);
        }
    }
}

char *filter_addresses(const struct filter_binding *b)
{
    g_autoptr(GString) s = g_string_new(NULL);
    const struct filter_addresses *a = b->addresses;
    leased(s, b->mac);
    for (unsigned i = 0, other = s->len == 0; other && a && i < a->count; i++) {
        g_autofree char *ip = text_of_ip(a->seen[i].ip);
        if (!a->seen[i].until || a->seen[i].until > now())
            g_string_append_printf(s, "%s%s", s->len ? " " : "", ip);
    }
    return s->len ? g_strdup(s->str) : NULL;
}

/* ---- what comes and goes ---- */

static void set_timer(struct filter_addresses *a);

/* Or a step on the way there. */
static gboolean on_end(gpointer opaque)
{
    struct filter_addresses *a = opaque;
    a->timer = 0;
    set_timer(a);
    filter_bindings_look();
    return G_SOURCE_REMOVE;
}

/* In steps: the wall's clock, which leases go by, can be set meanwhile. */
static void set_timer(struct filter_addresses *a)
{
    gint64 first = 0;
    for (unsigned i = 0; i < a->count; i++)
        if (a->seen[i].until > now() && (!first || a->seen[i].until < first))
            first = a->seen[i].until;
    g_clear_handle_id(&a->timer, g_source_remove);
    if (first)
        a->timer = g_timeout_add_seconds((guint)MIN(first - now() + 1, TIMER_STEP_S), on_end, a);
}

static void note(const struct filter_binding *b)
{
    g_autofree char *path = note_path(b->ifname);
    g_autoptr(GString) s = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    for (unsigned i = 0; i < b->addresses->count; i++) {
        g_autofree char *ip = text_of_ip(b->addresses->seen[i].ip);
        g_string_append_printf(s, "%s %" G_GINT64_FORMAT "\n", ip, b->addresses->seen[i].until);
    }
    if (!store_write_volatile(path, s->str, 0600, &error))
        log_warn("interface '%s': its learned address is not stored: %s", b->ifname,
                 error->message);
}

static void drop(struct filter_addresses *a, unsigned i)
{
    a->count--;
    memmove(&a->seen[i], &a->seen[i + 1], (a->count - i) * sizeof(a->seen[0]));
}

/* Those that have ended go; `ip` as well. */
static void forget_one(struct filter_addresses *a, const uint8_t ip[4])
{
    for (unsigned i = a->count; i-- > 0;)
        if (!memcmp(a->seen[i].ip, ip, 4) || (a->seen[i].until && a->seen[i].until <= now()))
            drop(a, i);
}

static void remember(struct filter_addresses *a, const uint8_t ip[4], gint64 until)
{
    forget_one(a, ip);
    if (a->count == ADDRESSES_MAX)
        drop(a, 0);
    memcpy(a->seen[a->count].ip, ip, 4);
    a->seen[a->count++].until = until;
}

static void on_seen(const struct filter_sighting *s, void *opaque)
{
    struct filter_binding *b = opaque;
    struct filter_addresses *a = b->addresses;
    bool first = a->of.how == FILTER_LEARN_ANY;
    if (s->kind != FILTER_SEEN_RELEASED)
        remember(a, s->ip, first || s->seconds == UINT32_MAX ? 0 : now() + s->seconds);
    else if (!first)
        forget_one(a, s->ip);
    else
        return;
    note(b);
    set_timer(a);
    filter_bindings_look();
    if (first)
        g_clear_pointer(&a->learner, filter_learner_free);
}

/* ---- beginning, end ---- */

static struct filter_learner_of read_how(const struct filter_binding *b)
{
    struct filter_learner_of of = {.how = FILTER_LEARN_ANY};
    g_autoptr(GHashTable) params = filter_params_new();
    struct net_addr server;
    filter_params_parse(params, xml_find(b->doc, "filterref"), NULL);
    const GPtrArray *how = g_hash_table_lookup(params, "CTRL_IP_LEARNING"),
                    *servers = g_hash_table_lookup(params, "DHCPSERVER");
    if (g_hash_table_contains(params, "IP") || (how && !strcmp(how->pdata[0], "none")))
        of.how = FILTER_LEARN_NONE;
    else if (how && !strcmp(how->pdata[0], "dhcp"))
        of.how = FILTER_LEARN_DHCP;
    if (servers && net_addr_parse(servers->pdata[0], &server) && !server.v6)
        memcpy(of.server, server.b, 4);
    filter_mac_parse(b->mac, of.mac);
    return of;
}

void filter_addresses_listen(struct filter_binding *b)
{
    struct filter_addresses *a = addresses_of(b);
    g_autoptr(GError) error = NULL;
    a->of = read_how(b);
    bool wanted = a->of.how == FILTER_LEARN_DHCP
                      ? b->waiting || b->learned
                      : a->of.how == FILTER_LEARN_ANY && b->waiting && !a->count;
    if (!wanted)
        g_clear_pointer(&a->learner, filter_learner_free);
    else if (!a->learner &&
             !(a->learner = filter_learner_new(b->ifname, &a->of, on_seen, b, &error)))
        log_warn("%s", error->message);
    set_timer(a);
}

void filter_addresses_load(struct filter_binding *b)
{
    struct filter_addresses *a = addresses_of(b);
    g_autofree char *path = note_path(b->ifname), *text = store_read(path, NOTE_MAX, NULL);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", ADDRESSES_MAX + 1);
    for (char **l = lines; *l; l++) {
        g_auto(GStrv) words = g_strsplit(*l, " ", 2);
        struct net_addr ip;
        gint64 until = words[0] && words[1] ? g_ascii_strtoll(words[1], NULL, 10) : -1;
        if (until >= 0 && net_addr_parse(words[0], &ip) && !ip.v6)
            remember(a, ip.b, until);
    }
}

void filter_addresses_forget(const char *ifname)
{
    g_autofree char *path = note_path(ifname);
    g_unlink(path);
}

void filter_addresses_free(struct filter_addresses *a)
{
    if (!a)
        return;
    filter_learner_free(a->learner);
    if (a->timer)
        g_source_remove(a->timer);
    g_free(a);
}
