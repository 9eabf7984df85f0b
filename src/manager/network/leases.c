/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Leases as dnsmasq keeps them in its file.
 *
 * Spec      dnsmasq's lease file: "expiry mac address name client-id" a line, behind a line "duid
 *           ..." the same for IPv6 with the IAID in the place of the MAC address and the client's
 *           DUID at the end.
 * Trust     Guests choose names and ids: lines with anything odd are left out.
 */
#include "manager/network/network_priv.h"

#include "base/units.h"

#include <inttypes.h>
#include <string.h>

void network_lease_free(struct network_lease *l)
{
    if (!l)
        return;
    g_free(l->ip);
    g_free(l->mac);
    g_free(l->hostname);
    g_free(l->client_id);
    g_free(l->iaid);
    g_free(l);
}

struct network_lease *network_lease_copy(const struct network_lease *l)
{
    struct network_lease *c = g_new(struct network_lease, 1);
    *c = *l;
    c->ip = g_strdup(l->ip);
    c->mac = g_strdup(l->mac);
    c->hostname = g_strdup(l->hostname);
    c->client_id = g_strdup(l->client_id);
    c->iaid = g_strdup(l->iaid);
    return c;
}

static bool is_hex_with_colons(const char *s)
{
    return *s && strspn(s, "0123456789abcdefABCDEF:-") == strlen(s);
}

static bool is_name(const char *s)
{
    for (const char *p = s; *p; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || strchr("<>&'\"", *p))
            return false;
    return *s && strlen(s) < 256;
}

/* The station's address is the end of DUIDs of the kinds 1 (with a time) and 3. */
static char *mac_of_duid(const char *duid)
{
    bool timed = g_str_has_prefix(duid, "00:01:00:01:"),
         plain = g_str_has_prefix(duid, "00:03:00:01:");
    size_t len = strlen(duid), want = timed ? 3 * 14 - 1 : 3 * 10 - 1;
    return (timed || plain) && len == want ? g_strdup(duid + len - 17) : NULL;
}

static char *mac_of(const char *word)
{
    const char *dash =
        strchr(word, '-'); /* another kind of hardware stands before it: "06-52:54:..." */
    return g_strdup(dash ? dash + 1 : word);
}

static struct network_lease *parse_line(char **w, bool v6, int64_t now)
{
    struct net_addr a;
    uint64_t expiry;
    if (g_strv_length(w) < 5 || !units_parse_u64(w[0], &expiry) || expiry > INT64_MAX ||
        !net_addr_parse(w[2], &a) || a.v6 != v6 || (expiry && (int64_t)expiry <= now))
        return NULL;
    if (v6 ? strspn(w[1], "T0123456789") != strlen(w[1]) : !is_hex_with_colons(w[1]))
        return NULL;
    struct network_lease *l = g_new0(struct network_lease, 1);
    l->expiry = (int64_t)expiry;
    l->ip = g_strdup(w[2]);
    l->v6 = v6;
    l->prefix = v6 ? 64 : 24;
    if (strcmp(w[3], "*") && is_name(w[3]))
        l->hostname = g_strdup(w[3]);
    if (strcmp(w[4], "*") && is_hex_with_colons(w[4]))
        l->client_id = g_strdup(w[4]);
    l->mac = !v6 ? mac_of(w[1]) : l->client_id ? mac_of_duid(l->client_id) : NULL;
    if (v6)
        l->iaid = g_strdup(w[1] + (w[1][0] == 'T'));
    return l;
}

GPtrArray *network_leases_parse(const char *text, int64_t now)
{
    GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)network_lease_free);
    bool v6 = false;
    for (const char *at = text, *end; *at && list->len < NETWORK_LEASES_MAX;
         at = end + (*end != 0)) {
        end = strchrnul(at, '\n');
        g_autofree char *line = g_strndup(at, (gsize)(end - at));
        g_auto(GStrv) words = g_strsplit(line, " ", 8);
        if (words[0] && !strcmp(words[0], "duid")) {
            v6 = true;
            continue;
        }
        struct network_lease *l = parse_line(words, v6, now);
        if (l)
            g_ptr_array_add(list, l);
    }
    return list;
}
