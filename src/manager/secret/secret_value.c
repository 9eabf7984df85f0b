/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory that holds values. Thread: any. */
#include "manager/secret/secret_priv.h"

#include "base/fd.h"
#include "base/memfile.h"

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

GBytes *secret_base64(GBytes *value)
{
    size_t len;
    const uint8_t *data = g_bytes_get_data(value, &len);
    char *text = g_base64_encode(data, len);
    GBytes *b = secret_bytes(text, strlen(text));
    secret_wipe(text);
    return b;
}

void secret_text_free(char *text)
{
    secret_wipe(text);
}

bool secret_file_open(struct secret_file *f, GBytes *value, GError **error)
{
    size_t len;
    const void *data = g_bytes_get_data(value, &len);
    f->fd = memfile_sealed("secret", data, len);
    if (f->fd < 0)
        return ruche_error_errno(error, -f->fd, "memory for a secret");
    g_snprintf(f->path, sizeof(f->path), "/proc/%d/fd/%d", (int)getpid(), f->fd);
    return true;
}

void secret_file_close(struct secret_file *f)
{
    if (f->fd >= 0)
        close(fd_steal(&f->fd));
}

char *secret_line(GBytes *value, GError **error)
{
    size_t len;
    const char *data = g_bytes_get_data(value, &len);
    if (!len || memchr(data, 0, len) || memchr(data, '\n', len)) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "a secret of %zu bytes is no line of text, as a password has to be", len);
        return NULL;
    }
    char *line = g_malloc(len + 2);
    memcpy(line, data, len);
    memcpy(line + len, "\n", 2);
    return line;
}
