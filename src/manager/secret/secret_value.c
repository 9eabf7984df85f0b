/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory that holds values. Thread: any. */
#include "manager/secret/secret_priv.h"

#include <string.h>

struct wiped {
    size_t len;
    uint8_t data[];
};

static void wiped_free(void *opaque)
{
    struct wiped *w = opaque;
    explicit_bzero(w->data, w->len);
    g_free(w);
}

GBytes *secret_bytes(const void *data, size_t len)
{
    struct wiped *w = g_malloc(sizeof(*w) + len + 1);
    w->len = len;
    if (len)
        memcpy(w->data, data, len);
    return g_bytes_new_with_free_func(w->data, len, wiped_free, w);
}

void secret_wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    g_free(text);
}
