/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What stays of secrets. See secret.h, Stored.
 *
 * Order     Of an undefined secret the description goes first: a value without one is removed at
 *           the next start.
 * Thread    The loop thread; values are written by a worker.
 */
#include "base/log.h"
#include "manager/secret/secret_priv.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX_BYTES   (1u << 20)
#define VALUE_SUFFIX     ".base64"
#define VALUE_TEXT_BYTES (SECRET_VALUE_MAX / 3 * 4 + 16)

static char *folder(void)
{
    return g_build_filename(manager.config_dir, "secrets", NULL);
}

static char *path_of(const struct secret *s, const char *suffix)
{
    g_autofree char *name = secret_name(s);
    return g_strdup_printf("%s/secrets/%s%s", manager.config_dir, name, suffix);
}

static bool make_folder(GError **error)
{
    g_autofree char *dir = folder();
    return g_mkdir_with_parents(dir, 0700) == 0 ||
           ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
}

bool secret_save(const struct secret *s, GError **error)
{
    g_autofree char *path = path_of(s, ".xml");
    if (s->ephemeral || s->removed)
        return store_remove(path, error);
    return make_folder(error) && store_write(path, s->text, 0600, error);
}

/* ---- values ---- */

struct value_work {
    const char *path, *folder, *text; /* text NULL: take it away */
    GError *error;
};

static void value_worker(void *opaque)
{
    struct value_work *w = opaque;
    if (w->text) {
        store_write_blocking(w->path, w->text, 0600, &w->error);
        return;
    }
    if (unlink(w->path) < 0 && errno != ENOENT)
        ruche_error_errno(&w->error, errno, "%s: remove", w->path);
    int fd = open(w->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        if (fsync(fd) < 0)
            ruche_error_errno(w->error ? NULL : &w->error, errno, "%s: sync", w->folder);
        close(fd);
    }
}

bool secret_save_value(const struct secret *s, GBytes *value, GError **error)
{
    g_autofree char *path = path_of(s, VALUE_SUFFIX), *dir = folder();
    struct value_work w = {.path = path, .folder = dir};
    gsize len = 0;
    const guchar *data = value ? g_bytes_get_data(value, &len) : NULL;
    if (value && !make_folder(error))
        return false;
    char *text = value ? len ? g_base64_encode(data, len) : g_strdup("") : NULL;
    w.text = text;
    task_work(value_worker, &w);
    secret_wipe(text);
    if (w.error)
        g_propagate_error(error, w.error);
    return !w.error;
}

static void load_value(struct secret *s)
{
    g_autofree char *path = path_of(s, VALUE_SUFFIX);
    g_autoptr(GError) error = NULL;
    gsize len = 0;
    if (g_access(path, F_OK) < 0)
        return;
    char *text = store_read(path, VALUE_TEXT_BYTES, &error);
    guchar *data = text ? g_base64_decode(text, &len) : NULL;
    g_autofree char *again = data && len ? g_base64_encode(data, len) : g_strdup("");
    if (!text)
        log_warn("the value of a secret cannot be read: %s", error->message);
    else if (len > SECRET_VALUE_MAX || strcmp(again, text) != 0)
        log_warn("the value of a secret is left out: '%s' is not what was written", path);
    else
        s->value = secret_bytes(data, len);
    if (data)
        explicit_bzero(data, len);
    g_free(data);
    explicit_bzero(again, strlen(again));
    secret_wipe(text);
}

/* ---- loading ---- */

static void load_file(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, TEXT_MAX_BYTES, &error);
    auto_secret_def d = {0};
    if (!text || !secret_def_parse(&d, text, 0, &error)) {
        log_warn("secret '%s' is left out: %s", path, error->message);
        return;
    }
    struct secret *s = secret_new(&d), *other = secret_find_usage((int)d.usage, d.id, NULL);
    g_autofree char *uuid = secret_name(s), *wanted = g_strconcat(uuid, ".xml", NULL);
    if (strcmp(wanted, name) != 0) {
        log_warn("secret '%s' is left out: it describes '%s'", path, uuid);
    } else if (other) {
        log_warn("secret '%s' is left out: another one is for '%s', too", path, d.id);
    } else {
        load_value(s);
        secret_insert(s);
    }
    secret_unref(other);
    secret_unref(s);
}

/* A value whose secret was undefined when the manager was killed. */
static void drop_orphan(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *base = g_strndup(path, strlen(path) - strlen(VALUE_SUFFIX));
    g_autofree char *description = g_strconcat(base, ".xml", NULL);
    if (g_access(description, F_OK) < 0 && errno == ENOENT && g_unlink(path) < 0)
        log_warn("%s: left over, and could not be removed: %s", path, g_strerror(errno));
}

bool secrets_load(GError **error)
{
    g_autofree char *dir = folder();
    store_clean_dir(dir);
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    for (const char *name; entries && (name = g_dir_read_name(entries));) {
        if (g_str_has_suffix(name, ".xml"))
            load_file(dir, name);
        else if (g_str_has_suffix(name, VALUE_SUFFIX))
            drop_orphan(dir, name);
    }
    return true;
}

void secrets_stop(void)
{
    secret_table_done();
}
