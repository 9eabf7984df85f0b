/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loading by the name that a library's interface has, which its package keeps. */
#include "libvirt/library.h"

#include <dlfcn.h>
#include <string.h>

struct library_gnutls gnutls;
struct library_sasl sasl;

struct row {
    const char *name;
    size_t at; /* of the member */
};
#define ROW(library, name) {#library "_" #name, offsetof(struct library_##library, name)},

static const struct row gnutls_rows[] = {LIBRARY_GNUTLS(ROW)};
static const struct row sasl_rows[] = {LIBRARY_SASL(ROW)};

/* All or nothing. */
static bool load(const char *file, const char *package, const struct row *rows, size_t count,
                 void *ret, GError **error)
{
    g_autofree void **found = g_new(void *, count);
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL); /* never closed */
    for (size_t i = 0; handle && i < count; i++) {
        found[i] = dlsym(handle, rows[i].name);
        if (!found[i])
            handle = NULL;
    }
    if (!handle)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "library %s (package %s): %s", file,
                           package, dlerror());
    for (size_t i = 0; i < count; i++)
        memcpy((char *)ret + rows[i].at, &found[i], sizeof(found[i]));
    return true;
}

bool library_gnutls(GError **error)
{
    return gnutls.init || load("libgnutls.so.30", "libgnutls30", gnutls_rows,
                               G_N_ELEMENTS(gnutls_rows), &gnutls, error);
}

bool library_sasl(GError **error)
{
    return sasl.setprop ||
           load("libsasl2.so.2", "libsasl2-2", sasl_rows, G_N_ELEMENTS(sasl_rows), &sasl, error);
}
