/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of the host's interfaces. */
#include "manager/interface/interface_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was accepted is accepted again as it is printed, and stays the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct interface_def d, again;
    g_autofree char *text = g_strndup((const char *)data, size);
    if (!interface_def_parse(&d, text, 0, NULL))
        return 0;
    g_autofree char *first = interface_def_format(&d);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    interface_names(d.root, true, names);
    for (unsigned i = 0; i < names->len; i++)
        if (!*(const char *)names->pdata[i] || strlen(names->pdata[i]) > INTERFACE_NAME_MAX)
            __builtin_trap();
    if (!interface_def_parse(&again, first, 0, NULL))
        __builtin_trap();
    g_autofree char *second = interface_def_format(&again);
    if (strcmp(first, second) != 0)
        __builtin_trap();
    interface_def_done(&d);
    interface_def_done(&again);
    return 0;
}
