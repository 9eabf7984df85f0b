/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rights of callers, and the audit log.
 *
 * Thread    The loop thread.
 * Note      Whoever was let in by a front door as somebody of this host's group, with a password or
 * a certificate may do everything; a read-only connection may look. The log is log_dir/audit.log;
 * at AUDIT_MAX_BYTES it becomes audit.log.1 and begins anew.
 */
#include "manager/access.h"

#include "base/log.h"
#include "manager/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define AUDIT_MAX_BYTES (16 << 20)

const struct caller caller_self = {
    .transport = "self", .name = (char *)"ruched", .authenticated = true};

static void (*on_done)(const struct caller *c);

void caller_on_done(void (*fn)(const struct caller *c))
{
    on_done = fn;
}

void caller_done(struct caller *c)
{
    if (on_done)
        on_done(c);
    g_clear_pointer(&c->name, g_free);
}

bool access_has(const struct caller *c, enum right right)
{
    return c->authenticated && (!c->read_only || right == RIGHT_READ);
}

bool access_check(const struct caller *c, enum right right, const char *what, GError **error)
{
    if (access_has(c, right))
        return true;
    if (!c->authenticated)
        return ruche_error(error, MANAGER_ERR_DENIED, "to %s, say who you are first", what);
    return ruche_error(error, MANAGER_ERR_READ_ONLY, "read only access prevents this: %s", what);
}

/* ---- audit ---- */

static int audit_fd = -1;
static uint64_t audit_bytes;

static void audit_open(void)
{
    g_autofree char *path = g_build_filename(manager.log_dir, "audit.log", NULL);
    struct stat st;
    if (audit_fd >= 0 && audit_bytes >= AUDIT_MAX_BYTES) {
        g_autofree char *old = g_strconcat(path, ".1", NULL);
        close(audit_fd);
        audit_fd = -1;
        if (rename(path, old) < 0)
            log_warn("%s: %s", path, g_strerror(errno));
    }
    if (audit_fd >= 0)
        return;
    audit_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    audit_bytes = audit_fd >= 0 && fstat(audit_fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Quoted, with what could look like another line or field escaped. */
static void put_text(GString *line, const char *key, const char *value)
{
    g_autofree char *escaped = g_strescape(value ? value : "", NULL);
    g_string_append_printf(line, " %s=\"%s\"", key, escaped);
}

void audit(const struct caller *c, const char *operation, const char *object, const GError *result)
{
    g_autoptr(GString) line = g_string_new(NULL);
    int64_t now_us = g_get_real_time();
    time_t now_s = now_us / G_USEC_PER_SEC;
    char when[32];
    struct tm utc;
    if (!manager.log_dir)
        return;
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", gmtime_r(&now_s, &utc));
    g_string_append_printf(line, "time=%s.%06uZ via=%s uid=%ld pid=%ld", when,
                           (unsigned)(now_us % G_USEC_PER_SEC), c->transport ? c->transport : "?",
                           c->uid == (uid_t)-1 ? -1L : (long)c->uid, (long)c->pid);
    put_text(line, "user", c->name);
    put_text(line, "operation", operation);
    put_text(line, "object", object);
    g_string_append(line, result ? " result=failed" : " result=done");
    if (result)
        put_text(line, "why", result->message);
    g_string_append_c(line, '\n');
    audit_open();
    if (audit_fd < 0)
        return;
    ssize_t n = write(audit_fd, line->str, line->len);
    audit_bytes += n > 0 ? (uint64_t)n : 0;
}
