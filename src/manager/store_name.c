/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names from outside that become names of files. */
#include "manager/error.h"
#include "manager/store.h"

#include <string.h>

#define NAME_MAX_BYTES 200

bool store_name_check(const char *kind, const char *name, GError **error)
{
    if (!*name)
        return ruche_error(error, RUCHE_ERR_XML, "the name of a %s is empty", kind);
    if (strlen(name) > NAME_MAX_BYTES)
        return ruche_error(error, RUCHE_ERR_XML, "the name of a %s has %zu bytes; %d are the most",
                           kind, strlen(name), NAME_MAX_BYTES);
    if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return ruche_error(error, RUCHE_ERR_XML,
                           "name '%s' of a %s cannot be a file's name: no '/', '.' or '..'", name,
                           kind);
    for (const char *p = name; *p; p++)
        if (g_ascii_iscntrl(*p))
            return ruche_error(error, RUCHE_ERR_XML, "the name of a %s has a control character",
                               kind);
    return true;
}
