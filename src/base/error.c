/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GError domain and suggestions. Thread: any. */
#include "base/error.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>

GQuark ruche_error_quark(void)
{
    return g_quark_from_static_string("ruche-error");
}

bool ruche_error(GError **error, int code, const char *format, ...)
{
    if (error) {
        va_list ap;
        va_start(ap, format);
        *error = g_error_new_valist(RUCHE_ERROR, code, format, ap);
        va_end(ap);
    }
    return false;
}

static enum ruche_err code_of_errno(int err)
{
    switch (err) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return RUCHE_ERR_NOT_FOUND;
    case EBUSY:
    case EAGAIN:
    case EADDRINUSE:
    case ETXTBSY:
        return RUCHE_ERR_BUSY;
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
        return RUCHE_ERR_NO_SPACE;
    case EINVAL:
        return RUCHE_ERR_INVALID;
    default:
        return RUCHE_ERR_IO;
    }
}

bool ruche_error_errno(GError **error, int err, const char *format, ...)
{
    if (error) {
        va_list ap;
        va_start(ap, format);
        g_autofree char *text = g_strdup_vprintf(format, ap);
        va_end(ap);
        *error = g_error_new(RUCHE_ERROR, (int)code_of_errno(err), "%s: %s", text, g_strerror(err));
    }
    return false;
}

/* Edit distance with transpositions (optimal string alignment), rows of at most MAX_WORD. */
enum { MAX_WORD = 64 };

static unsigned edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > MAX_WORD || m > MAX_WORD)
        return UINT32_MAX;
    unsigned d[3][MAX_WORD + 1];
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *row = d[i % 3], *up = d[(i - 1) % 3], *up2 = d[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = up[j - 1] + (g_ascii_tolower(a[i - 1]) != g_ascii_tolower(b[j - 1]));
            best = MIN(best, MIN(up[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MIN(best, up2[j - 2] + 1);
            row[j] = best;
        }
    }
    return d[n % 3][m];
}

const char *suggest_word(const char *word, const char *const *words)
{
    const char *best = NULL;
    size_t len = strlen(word);
    unsigned limit = len < 3 ? 1 : len < 6 ? 2 : (unsigned)len / 3;
    unsigned best_distance = limit + 1;
    for (; words && *words; words++) {
        unsigned distance = edit_distance(word, *words);
        /* A beginning that was typed whole is near too: "virtio-net" for "virtio-net-pci". */
        if (len >= 4 && g_str_has_prefix(*words, word))
            distance = MIN(distance, 1);
        if (distance < best_distance) {
            best_distance = distance;
            best = *words;
        }
    }
    return best;
}

const char *suggest_phrase(const char *word, const char *const *words)
{
    static __thread char buf[128];
    const char *near = suggest_word(word, words);
    if (!near)
        return "";
    g_snprintf(buf, sizeof(buf), "; did you mean '%s'?", near);
    return buf;
}
