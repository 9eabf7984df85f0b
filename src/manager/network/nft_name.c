/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of tables of ours. See nft.h. Thread: any. */
#include "manager/network/nft.h"

char *nft_table_name(const char *prefix, const char *name)
{
    GString *s = g_string_new(prefix);
    for (const char *p = name; *p; p++)
        if (g_ascii_isalnum(*p))
            g_string_append_c(s, *p);
        else
            g_string_append_printf(s, "_%02x", (unsigned char)*p);
    return g_string_free(s, FALSE);
}
