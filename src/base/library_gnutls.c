/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loading GnuTLS by the name that its interface has, which its package keeps. */
#include "base/library_gnutls.h"

struct library_gnutls gnutls;

static const struct plugin_symbol symbols[] = {LIBRARY_GNUTLS(PLUGIN_ROW)};

bool library_gnutls(GError **error)
{
    return gnutls.init ||
           plugin_load("libgnutls.so.30", "libgnutls30", symbols, G_N_ELEMENTS(symbols), &gnutls, error);
}
