/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Modules. See plugin.h. */
#include "base/plugin.h"

#include <dlfcn.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

char *plugin_path(const char *installed_dir, const char *file)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = self ? g_path_get_dirname(self) : g_strdup(".");
    g_autofree char *beside = g_build_filename(folder, file, NULL);
    return access(beside, R_OK) == 0 ? g_steal_pointer(&beside) : g_build_filename(installed_dir, file, NULL);
}

bool plugin_load(const char *file, const char *package, const struct plugin_symbol *symbols, size_t count, void *ret,
                 GError **error)
{
    g_autofree void **found = g_new(void *, count);
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; handle && i < count; i++) {
        found[i] = dlsym(handle, symbols[i].name);
        if (!found[i])
            handle = NULL;
    }
    if (!handle)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "library %s (package %s): %s", file, package, dlerror());
    for (size_t i = 0; i < count; i++)
        memcpy((char *)ret + symbols[i].at, &found[i], sizeof(found[i]));
    return true;
}
