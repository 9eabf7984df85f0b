/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loading by the name that a library's interface has, which its package keeps. */
#include "libvirt/library.h"

#include "base/plugin.h"

struct library_gnutls gnutls;
struct library_sasl sasl;

#define ROW(library, name) {#library "_" #name, offsetof(struct library_##library, name)},

static const struct plugin_symbol gnutls_rows[] = {LIBRARY_GNUTLS(ROW)};
static const struct plugin_symbol sasl_rows[] = {LIBRARY_SASL(ROW)};

bool library_gnutls(GError **error)
{
    return gnutls.init || plugin_load("libgnutls.so.30", "libgnutls30", gnutls_rows,
                                      G_N_ELEMENTS(gnutls_rows), &gnutls, error);
}

bool library_sasl(GError **error)
{
    return sasl.setprop || plugin_load("libsasl2.so.2", "libsasl2-2", sasl_rows,
                                       G_N_ELEMENTS(sasl_rows), &sasl, error);
}
