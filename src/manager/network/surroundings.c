/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What others' firewalls have on this host, as text for obstacles.c.
 *
 * Thread    Workers: the kernel and iptables-legacy are waited for.
 */
#include "manager/network/network_priv.h"
#include "manager/network/nft.h"

#include <string.h>

/* Of others' tables only those that packets to the host, or through it, come to: a host may have many. */
static void add_tables(GString *all, const char *chains)
{
    g_autoptr(GPtrArray) names = network_foreign_tables(chains);
    for (unsigned i = 0; i < names->len; i++) {
        g_autofree char *what = g_strconcat("table ", (char *)names->pdata[i], NULL);
        g_autofree char *text = nft_list_blocking(what, NULL);
        g_string_append(all, text ? text : "");
    }
}

/* iptables' own tables are not nft's. */
static void add_legacy(GString *all)
{
    g_autofree char *tables = NULL, *out = NULL;
    const char *argv[] = {"iptables-legacy", "-S", NULL};
    if (!g_file_get_contents("/proc/net/ip_tables_names", &tables, NULL, NULL) ||
        !strstr(tables, "filter") ||
        !g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL,
                      NULL, NULL, &out, NULL, NULL, NULL))
        return;
    g_autofree char *table = network_legacy_table(out);
    g_string_append(all, table);
}

char *network_surroundings(bool *ret_bridge_filter)
{
    g_autofree char *chains = nft_list_blocking("chains", NULL), *filter = NULL;
    GString *all = g_string_new(NULL);
    add_tables(all, chains ? chains : "");
    add_legacy(all);
    *ret_bridge_filter =
        g_file_get_contents("/proc/sys/net/bridge/bridge-nf-call-iptables", &filter, NULL, NULL) &&
        filter[0] == '1';
    return g_string_free(all, FALSE);
}
