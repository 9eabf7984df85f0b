/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What ruche-img does for a new volume: an image of a format, encrypted or not, or a copy of another.
 *
 * Thread    The loop thread, in a task that waits for the program.
 * Trust     Keys go by descriptors (secret_file), never by its command line.
 */
#include "manager/storage/volume_maker.h"

#include <inttypes.h>
#include <string.h>

/* A copy of an encrypted image's bytes is unlocked by the same key. */
static bool same_encryption(const struct maker *m)
{
    return m->from.encrypted == m->def.encrypted &&
           (!m->def.encrypted || (m->from.key && g_bytes_equal(m->from.key, m->def.key)));
}

bool maker_copies_bytes(const struct maker *m)
{
    bool same = m->from.is_file && !strcmp(m->from.format, m->def.format) && same_encryption(m);
    return same && (!strcmp(m->def.format, "raw") || m->flags & REFLINK);
}

/* What ruche-img calls the format: an encrypted raw image is one of LUKS. */
static const char *tool_format(const struct volume_def *d)
{
    return d->encrypted && !strcmp(d->format, "raw") ? "luks" : d->format;
}

static void add_encryption(GString *o, const struct volume_def *d)
{
    bool raw = !strcmp(d->format, "raw");
    const char *prefix = raw ? "" : "encrypt.";
    g_auto(GStrv) ciphers = g_strsplit(d->ciphers, ",", 8);
    if (!raw)
        g_string_append(o, ",encrypt.format=luks");
    g_string_append_printf(o, ",%skey-secret=key,%siter-time=%d", prefix, prefix, LUKS_MS);
    for (char **c = ciphers; *c; c++)
        g_string_append_printf(o, ",%s%s", prefix, *c);
}

/* The words that give ruche-img its keys, behind its verb; `texts` owns them. */
static unsigned add_keys(const struct maker *m, GPtrArray *texts, const char **argv, unsigned n)
{
    const struct secret_file *files[] = {&m->key, &m->from_key};
    static const char *const ids[] = {"key", "from"};
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        if (files[i]->fd < 0)
            continue;
        g_ptr_array_add(texts, secret_object(ids[i], files[i]));
        argv[n++] = "--object";
        argv[n++] = texts->pdata[texts->len - 1];
    }
    const char *const of_pools[] = {m->pool_object, m->from_pool_object};
    for (unsigned i = 0; i < G_N_ELEMENTS(of_pools); i++) {
        if (!of_pools[i])
            continue;
        argv[n++] = "--object";
        argv[n++] = of_pools[i];
    }
    return n;
}

char *maker_format_options(const struct maker *m)
{
    const struct volume_def *d = &m->def;
    GString *o = g_string_new(NULL);
    if (d->compat)
        g_string_append_printf(o, ",compat=%s", d->compat);
    if (d->lazy_refcounts)
        g_string_append(o, ",lazy_refcounts=on");
    if (d->extended_l2)
        g_string_append(o, ",extended_l2=on");
    if (d->cluster_size)
        g_string_append_printf(o, ",cluster_size=%" PRIu64, d->cluster_size);
    if (m->flags & PREALLOC_METADATA)
        g_string_append(o, d->allocation != UINT64_MAX && d->allocation >= d->capacity
                               ? ",preallocation=falloc"
                               : ",preallocation=metadata");
    if (d->encrypted)
        add_encryption(o, d);
    if (o->len)
        g_string_erase(o, 0, 1);
    return g_string_free(o, FALSE);
}

bool maker_run_create(struct maker *m, const char *options, GError **error)
{
    const struct volume_def *d = &m->def;
    g_autofree char *size = g_strdup_printf("%" PRIu64, d->capacity);
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    const char *argv[24] = {manager.img, "create", "-q", "-f", tool_format(d)};
    unsigned n = add_keys(m, texts, argv, 5);
    if (*options) {
        argv[n++] = "-o";
        argv[n++] = options;
    }
    if (d->backing) {
        argv[n++] = "-b";
        argv[n++] = d->backing;
        argv[n++] = "-F";
        argv[n++] = d->backing_format;
    }
    argv[n++] = m->path;
    if (d->has_capacity)
        argv[n++] = size;
    return task_run_program(argv, NULL, IMG_ANSWER_MAX, -1, NULL, error);
}

/* Into a new image, or into a device that is there (which is not zeroed: all is written). */
bool maker_run_convert(struct maker *m, const char *options, bool there, GError **error)
{
    const struct volume_def *d = &m->def;
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *locked =
        m->from.encrypted ? encrypted_name(m->from.path, m->from.format, "from") : NULL;
    const char *argv[28] = {manager.img, "convert", "-p", "-O", there ? "raw" : tool_format(d)};
    unsigned n = add_keys(m, texts, argv, 5);
    if (!locked && !g_str_has_prefix(m->from.path, "json:")) {
        argv[n++] = "-f";
        argv[n++] = m->from.format;
    }
    if (there)
        argv[n++] = "-n";
    if (*options) {
        argv[n++] = "-o";
        argv[n++] = options;
    }
    if (d->backing) {
        argv[n++] = "-B";
        argv[n++] = d->backing;
        argv[n++] = "-F";
        argv[n++] = d->backing_format;
    }
    argv[n++] = locked ? locked : m->from.path;
    argv[n++] = m->path;
    atomic_store(&m->job->total, 10000);
    return task_run_program_watched(&m->job->cancelled, &m->job->done, argv, IMG_ANSWER_MAX, error);
}

static bool run_grow(struct maker *m, GError **error)
{
    g_autofree char *size = g_strdup_printf("%" PRIu64, m->def.capacity);
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *locked =
        m->def.encrypted ? encrypted_name(m->path, m->def.format, "key") : NULL;
    const char *argv[16] = {manager.img, "resize", "-q"};
    unsigned n = add_keys(m, texts, argv, 3);
    if (!locked) {
        argv[n++] = "-f";
        argv[n++] = m->def.format;
    }
    argv[n++] = locked ? locked : m->path;
    argv[n++] = size;
    return task_run_program(argv, NULL, IMG_ANSWER_MAX, -1, NULL, error);
}

bool maker_run_tool(struct maker *m, GError **error)
{
    bool raw = !strcmp(m->def.format, "raw"),
         grows = m->from.pool && m->def.capacity > m->from.capacity;
    g_autofree char *options = maker_format_options(m);
    if (maker_copies_bytes(m))
        return (raw && !m->def.encrypted) || !grows || run_grow(m, error);
    if (!m->from.pool)
        return (raw && !m->def.encrypted) || maker_run_create(m, options, error);
    return maker_run_convert(m, options, false, error) && (!grows || run_grow(m, error));
}
