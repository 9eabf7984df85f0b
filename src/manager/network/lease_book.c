/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A network's leases: read when dnsmasq's file has changed, found by MAC address.
 *
 * Each look costs a stat(2); who looks after each event, once for each interface, does not read
 * the file each time.
 *
 * Thread    The loop thread; never waits.
 * Trust     What guests said is checked by leases.c; the file's length is bounded.
 */
#include "base/log.h"
#include "manager/network/network_priv.h"
#include "manager/store.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define LINE_BYTES_MAX 1280 /* a name of 255 bytes, an id of 255 in hex with colons, the rest */
#define FILE_BYTES_MAX (NETWORK_LEASES_MAX * LINE_BYTES_MAX)

struct network_lease_book {
    GPtrArray *list;    /* in the file's order; some may have run out since */
    GHashTable *by_mac; /* lower case, to a GPtrArray of leases of the list */
    struct stat file;   /* as it was read; st_nlink 0: there was none */
    bool settled;       /* a later write shows in its time */
    GError *error;      /* it could not be read; the list is from before */
};

void network_lease_book_free(struct network_lease_book *b)
{
    if (!b)
        return;
    g_hash_table_unref(b->by_mac);
    g_ptr_array_unref(b->list);
    g_clear_error(&b->error);
    g_free(b);
}

static struct network_lease_book *book_of(struct network *n)
{
    if (!n->leases) {
        n->leases = g_new0(struct network_lease_book, 1);
        n->leases->list = network_leases_parse("", 0);
        n->leases->by_mac = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                                  (GDestroyNotify)g_ptr_array_unref);
    }
    return n->leases;
}

/* ---- reading ---- */

/* dnsmasq's file does not say the prefixes: they are the subnets'. */
static void set_prefixes(const struct network *n, const GPtrArray *list)
{
    auto_network_def d = {0};
    struct net_addr a;
    if (!list->len || !network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, NULL))
        return;
    for (unsigned i = 0; i < list->len; i++) {
        struct network_lease *l = list->pdata[i];
        for (unsigned k = 0; net_addr_parse(l->ip, &a) && k < d.subnet_count; k++)
            if (net_subnet_has(&d.subnets[k], &a))
                l->prefix = d.subnets[k].prefix;
    }
}

static void take_list(struct network_lease_book *b, GPtrArray *list)
{
    g_ptr_array_unref(b->list);
    b->list = list;
    g_hash_table_remove_all(b->by_mac);
    for (unsigned i = 0; i < list->len; i++) {
        struct network_lease *l = list->pdata[i];
        g_autofree char *mac = l->mac ? g_ascii_strdown(l->mac, -1) : NULL;
        GPtrArray *of = mac ? g_hash_table_lookup(b->by_mac, mac) : NULL;
        if (mac && !of)
            g_hash_table_insert(b->by_mac, g_steal_pointer(&mac), of = g_ptr_array_new());
        if (of)
            g_ptr_array_add(of, l);
    }
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_nlink == b->st_nlink && a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_size == b->st_size && !memcmp(&a->st_mtim, &b->st_mtim, sizeof(a->st_mtim)) &&
           !memcmp(&a->st_ctim, &b->st_ctim, sizeof(a->st_ctim));
}

/* Times of files are the kernel's ticks: what is written once more in one and the same looks equal. */
static bool is_before(const struct timespec *a, const struct timespec *now)
{
    return a->tv_sec < now->tv_sec || (a->tv_sec == now->tv_sec && a->tv_nsec < now->tv_nsec);
}

/* What could not be read is said once. */
static void update(struct network *n, struct network_lease_book *b)
{
    g_autofree char *path = network_run_path(n->name, "leases"), *text = NULL;
    struct timespec now;
    struct stat file;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (!n->active || stat(path, &file) < 0)
        memset(&file, 0, sizeof(file));
    if (b->settled && is_same(&file, &b->file))
        return;
    b->file = file;
    b->settled = is_before(&file.st_mtim, &now);
    g_autoptr(GError) error = NULL;
    text = file.st_nlink ? store_read(path, FILE_BYTES_MAX, &error) : g_strdup("");
    if (text) {
        GPtrArray *list = network_leases_parse(text, g_get_real_time() / G_USEC_PER_SEC);
        set_prefixes(n, list);
        take_list(b, list);
    } else if (!b->error) {
        log_warn("network '%s': its leases stay as they were: %s", n->name, error->message);
    }
    g_clear_error(&b->error);
    b->error = g_steal_pointer(&error);
}

GPtrArray *network_lease_list(struct network *n)
{
    struct network_lease_book *b = book_of(n);
    update(n, b);
    return g_ptr_array_ref(b->list);
}

/* ---- for others ---- */

static GPtrArray *leases(struct network *n, const char *mac)
{
    struct network_lease_book *b = book_of(n);
    update(n, b);
    g_autofree char *key = mac ? g_ascii_strdown(mac, -1) : NULL;
    const GPtrArray *from = mac ? g_hash_table_lookup(b->by_mac, key) : b->list;
    GPtrArray *found = g_ptr_array_new_with_free_func((GDestroyNotify)network_lease_free);
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    for (unsigned i = 0; from && i < from->len; i++) {
        const struct network_lease *l = from->pdata[i];
        if (!l->expiry || l->expiry > now)
            g_ptr_array_add(found, network_lease_copy(l));
    }
    return found;
}

GPtrArray *network_leases(const struct caller *who, struct network *n, const char *mac,
                          GError **error)
{
    if (!access_check(who, RIGHT_READ, "read a network's leases", error) ||
        !network_check_active(n, error))
        return NULL;
    g_autoptr(GPtrArray) list = leases(n, mac);
    if (!n->leases->error)
        return g_steal_pointer(&list);
    g_propagate_prefixed_error(error, g_error_copy(n->leases->error), "network '%s': ", n->name);
    return NULL;
}

GPtrArray *network_leases_of(const char *name, const char *mac)
{
    struct network *n = network_find_name(name, NULL);
    GPtrArray *list = n ? leases(n, mac) : g_ptr_array_new();
    network_unref(n);
    return list;
}
