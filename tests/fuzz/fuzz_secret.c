/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of secrets: what is accepted is accepted again as it is printed, and stays the same.
 */
#include "manager/secret/secret_def.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    auto_secret_def d = {0}, again = {0};
    if (!secret_def_parse(&d, text, 0, NULL))
        return 0;
    if (!secret_def_parse(&again, d.text, SECRET_DEFINE_VALIDATE, NULL) ||
        strcmp(d.text, again.text) != 0 || strcmp(d.id, again.id) != 0 || d.usage != again.usage ||
        !again.has_uuid || memcmp(d.uuid, again.uuid, sizeof(d.uuid)) != 0)
        __builtin_trap();
    return 0;
}
