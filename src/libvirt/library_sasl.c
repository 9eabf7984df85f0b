/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loading by the name that the library's interface has, which its package keeps. */
#include "libvirt/library_sasl.h"

struct library_sasl sasl;

static const struct plugin_symbol symbols[] = {LIBRARY_SASL(PLUGIN_ROW)};

bool library_sasl(GError **error)
{
    return sasl.setprop ||
           plugin_load("libsasl2.so.2", "libsasl2-2", symbols, G_N_ELEMENTS(symbols), &sasl, error);
}
