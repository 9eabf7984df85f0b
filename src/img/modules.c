/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Verbs that are loaded when used, so that the others start without their libraries.
 *
 * Trust     Only names of the table are loaded, from the folders that image/module.h knows.
 */
#include "image/module.h"
#include "img/img.h"

#include <dlfcn.h>
#include <string.h>

static const struct verb extract = {
    .name = "extract",
    .summary = "Take the disks out of an OVA archive",
};

static const struct verb *const rows[] = {&extract, NULL};

const struct verb *const *module_verbs(void)
{
    return rows;
}

const struct verb *module_verb_load(const char *name, GError **error)
{
    void *handle = module_open(name);
    const struct verb *v = handle ? dlsym(handle, "ruche_img_verb") : NULL;
    if (!v)
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "the module of '%s' cannot be loaded (package libexpat1): %s", name, dlerror());
    return v;
}
