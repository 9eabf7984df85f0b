/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions that need no check at the start: texts that this very program has printed, known
 * again by a digest.
 *
 * Format    `descriptions` in the cache folder: digests of 8 bytes. The first is the program's
 *           (its version, size and date), the others' are of texts, sorted. Whoever edits a file
 *           makes another text of it; another program knows none. A digest is for what happens by
 *           chance: who may write the folders may write descriptions anyway.
 * Cut off   The file is not synced: one that is torn has other numbers in it, and knows nothing.
 */
#include "manager/domain/domain_priv.h"

#include "base/log.h"
#include "manager/manager.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST = 1 << 20 };

static struct {
    uint64_t *digests; /* sorted */
    size_t count;
} known;

static uint64_t digest(const char *text, size_t len)
{
    uint64_t h = 0x9ae16a3b2f90404fu ^ len, word;
    for (; len; text += MIN(len, sizeof(word)), len -= MIN(len, sizeof(word))) {
        word = 0;
        memcpy(&word, text, MIN(len, sizeof(word)));
        h = (h ^ word) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    return h;
}

static uint64_t program(void)
{
    struct stat st = {0};
    stat("/proc/self/exe", &st);
    g_autofree char *text =
        g_strdup_printf("%s %lld %lld.%09ld", RUCHE_VERSION, (long long)st.st_size,
                        (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    return digest(text, strlen(text));
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static char *known_path(void)
{
    return g_build_filename(manager.cache_dir, "descriptions", NULL);
}

static void forget(void)
{
    g_clear_pointer(&known.digests, g_free);
    known.count = 0;
}

void domain_known_load(void)
{
    g_autofree char *path = known_path(), *bytes = NULL;
    gsize len = 0;
    uint64_t whose = 0;
    forget();
    if (!g_file_get_contents(path, &bytes, &len, NULL) || len / sizeof(whose) < 2 ||
        len / sizeof(whose) > MOST)
        return; /* none in it, or too many */
    memcpy(&whose, bytes, sizeof(whose));
    if (whose != program())
        return;
    known.count = len / sizeof(whose) - 1;
    known.digests = g_new(uint64_t, known.count);
    memcpy(known.digests, bytes + sizeof(whose), known.count * sizeof(whose));
    qsort(known.digests, known.count, sizeof(whose), compare); /* whatever the file says */
}

bool domain_known(const char *text, size_t len)
{
    uint64_t one = digest(text, len);
    return known.count && bsearch(&one, known.digests, known.count, sizeof(one), compare);
}

void domain_known_save(void)
{
    const GPtrArray *all = domain_table();
    g_autofree uint64_t *digests = g_new(uint64_t, all->len + 1);
    g_autofree char *path = known_path();
    g_autoptr(GError) error = NULL;
    size_t count = 0;
    for (unsigned i = 0; i < all->len; i++) {
        const struct domain *d = all->pdata[i];
        if (d->def)
            digests[++count] = digest(d->def->text, strlen(d->def->text));
    }
    digests[0] = program();
    qsort(digests + 1, count, sizeof(*digests), compare);
    if (count == known.count && count &&
        !memcmp(digests + 1, known.digests, count * sizeof(*digests)))
        return;
    if (!g_file_set_contents_full(path, (const char *)digests,
                                  (gssize)((count + 1) * sizeof(*digests)),
                                  G_FILE_SET_CONTENTS_NONE, 0600, &error))
        log_warn("%s", error->message); /* the next start takes longer */
    forget();
}
