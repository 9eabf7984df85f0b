/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loads drivers from RUCHE_MODULE_DIR, or from the folder of the running program's build.
 *
 * Thread    The main thread.
 * Trust     Only names of the table are loaded, from fixed folders.
 */
#include "image/module.h"
#include "image/driver.h"

#include "base/plugin.h"

#include <dlfcn.h>
#include <string.h>

static const struct {
    const char *driver, *file, *package;
    const char *schemes[3];
} modules[] = {
    { "http", "http", "libsoup-3.0-0", { "http" } },
    { "https", "http", "libsoup-3.0-0", { "https" } },
    { "iscsi", "iscsi", "libiscsi7", { "iscsi", "iser" } },
    { "nfs", "nfs", "libnfs13", { "nfs" } },
    { "rbd", "rbd", "librbd1", { "rbd" } },
};
#define DRIVERS_MAX ARRAY_COUNT(modules)

static const struct image_driver *loaded[DRIVERS_MAX];
static unsigned loaded_count;

static int find(const char *name)
{
    for (size_t k = 0; k < ARRAY_COUNT(modules); k++) {
        if (!strcmp(modules[k].driver, name))
            return (int)k;
    }
    return -1;
}

bool module_known(const char *name)
{
    return find(name) >= 0;
}

const char *module_of_scheme(const char *scheme)
{
    for (size_t k = 0; k < ARRAY_COUNT(modules); k++) {
        for (const char *const *s = modules[k].schemes; *s; s++) {
            if (!g_ascii_strcasecmp(*s, scheme))
                return modules[k].driver;
        }
    }
    return NULL;
}

const struct image_driver *module_driver(const char *name)
{
    for (unsigned k = 0; k < loaded_count; k++) {
        if (!strcmp(loaded[k]->name, name))
            return loaded[k];
    }
    return NULL;
}

static void *open_path(void *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* Beside the program (a build folder), else where packages are installed. On a thread of its own: what libraries do when
 * they are loaded may take more stack than a fiber has (Ceph's does). */
void *module_open(const char *file)
{
    g_autofree char *name = g_strdup_printf("image-%s.so", file), *path = plugin_path(RUCHE_MODULE_DIR, name);
    void *handle = g_thread_join(g_thread_new("module", open_path, path));
    return handle ? handle : open_path(path); /* fails here, too: dlerror() is each thread's own */
}

bool module_load(const char *name, GError **error)
{
    int k = find(name);
    if (k < 0 || module_driver(name))
        return true;
    void *handle = module_open(modules[k].file);
    /* Each module exports its drivers as a NULL-ended array. */
    const struct image_driver *const *list = handle ? dlsym(handle, "ruche_image_drivers") : NULL;
    if (!list)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "driver %s is a module that cannot be loaded (package %s): %s",
                           name, modules[k].package, dlerror());
    for (; *list && loaded_count < DRIVERS_MAX; list++)
        loaded[loaded_count++] = *list;
    return true;
}
