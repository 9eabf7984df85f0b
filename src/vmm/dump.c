/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing the guest's memory out; see dump.h. */
#include "vmm/dump.h"

#include "base/log.h"
#include "vmm/migrate_channel.h"
#include "vmm/migrate_worker.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (64 * KIB)

struct dump {
    struct migrate_worker worker; /* its lock guards `done` */
    struct vmm *vmm;
    struct migrate_channel channel;
    GByteArray *head;
    struct dump_part parts[DUMP_PARTS];
    unsigned count;
    uint64_t done, total;
    bool resume, over, sparse, threaded;
    GError *error;
};

/* ---- the bytes ---- */

static void advance(struct dump *d, uint64_t bytes)
{
    if (d->threaded)
        pthread_mutex_lock(&d->worker.lock);
    d->done += bytes;
    if (d->threaded)
        pthread_mutex_unlock(&d->worker.lock);
}

/* Never touched: looking at it would make the page. */
static bool is_hole(int fd, uint64_t off, uint64_t len)
{
    off_t data = lseek(fd, (off_t)off, SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= off + len;
}

static bool all_zero(const uint8_t *p, size_t len)
{
    for (size_t at = 0; at < len; at += MIGRATE_PAGE)
        if (!migrate_is_zero(p + at))
            return false;
    return true;
}

/* Zeroes of a file are a hole of it. */
static bool write_zeroes(struct dump *d, size_t len, GError **error)
{
    static uint8_t zeroes[CHUNK];
    if (!d->sparse)
        return migrate_channel_write(&d->channel, zeroes, len, error);
    return lseek(d->channel.fd, (off_t)len, SEEK_CUR) >= 0 || ruche_error_errno(error, errno, "the core");
}

static bool write_part(struct dump *d, const struct dump_part *p, GError **error)
{
    const struct machine *m = d->vmm->machine;
    for (uint64_t at = 0; at < p->size_bytes; at += CHUNK) {
        size_t len = min_u64(CHUNK, p->size_bytes - at);
        uint8_t *from = m->ram + p->offset + at;
        bool empty = is_hole(m->ram_fd, p->offset + at, len) || (len % MIGRATE_PAGE == 0 && all_zero(from, len));
        if (!(empty ? write_zeroes(d, len, error) : migrate_channel_write(&d->channel, from, len, error)))
            return false;
        advance(d, len);
    }
    return true;
}

/* The last hole becomes part of the file, too. */
static bool set_length(struct dump *d, GError **error)
{
    off_t end = d->sparse ? lseek(d->channel.fd, 0, SEEK_CUR) : 0;
    return !d->sparse || (end >= 0 && !ftruncate(d->channel.fd, end)) || ruche_error_errno(error, errno, "the core");
}

static bool write_all(struct dump *d, GError **error)
{
    if (!migrate_channel_write(&d->channel, d->head->data, d->head->len, error))
        return false;
    for (unsigned i = 0; i < d->count; i++)
        if (!write_part(d, &d->parts[i], error))
            return false;
    return set_length(d, error);
}

static void run(struct migrate_worker *w)
{
    struct dump *d = container_of(w, struct dump, worker);
    write_all(d, &d->error);
}

/* ---- beginning and end ---- */

static const char *status_of(const struct dump *d)
{
    return !d ? "none" : !d->over ? "active" : d->error ? "failed" : "completed";
}

static void finish(struct dump *d)
{
    g_autoptr(GError) why = NULL;
    migrate_channel_done(&d->channel);
    g_clear_pointer(&d->head, g_byte_array_unref);
    d->over = true;
    if (d->resume && d->vmm->machine->state == RUN_PAUSED && !run_cont(d->vmm, &why))
        log_error("the machine stays stopped after its dump: %s", why->message);
}

static void ended(struct migrate_worker *w)
{
    struct dump *d = container_of(w, struct dump, worker);
    JsonObject *data = json_object_new(), *result = json_object_new();
    finish(d);
    json_object_set_int_member(result, "completed", (gint64)d->done);
    json_object_set_int_member(result, "total", (gint64)d->total);
    json_object_set_string_member(result, "status", status_of(d));
    json_object_set_object_member(data, "result", result);
    if (d->error)
        json_object_set_string_member(data, "error", d->error->message);
    qmp_event(d->vmm->qmp, "DUMP_COMPLETED", data);
}

static void dump_free(struct dump *d)
{
    if (!d)
        return;
    if (d->worker.started)
        migrate_channel_cancel(&d->channel);
    migrate_worker_join(&d->worker);
    migrate_channel_done(&d->channel);
    g_clear_pointer(&d->head, g_byte_array_unref);
    g_clear_error(&d->error);
    g_free(d);
}

void dump_done(struct vmm *v)
{
    g_clear_pointer(&v->dump, dump_free);
}

/* What lies in [begin, begin + size) of a part. */
static void add_part(struct dump *d, uint64_t gpa, uint64_t bytes, uint64_t offset, uint64_t begin, uint64_t size)
{
    uint64_t from = max_u64(gpa, begin), to = min_u64(gpa + bytes, begin + size);
    if (from >= to)
        return;
    d->parts[d->count++] = (struct dump_part){ .gpa = from, .size_bytes = to - from, .offset = offset + (from - gpa) };
    d->total += to - from;
}

static bool choose_parts(struct dump *d, uint64_t begin, uint64_t size, GError **error)
{
    const struct machine *m = d->vmm->machine;
    if (!size)
        size = UINT64_MAX - begin;
    if (begin + size < begin)
        return ruche_error(error, RUCHE_ERR_INVALID, "'begin' and 'length' pass the end of memory");
    add_part(d, 0, m->ram_below_4g, 0, begin, size);
    add_part(d, 4 * GIB, m->ram_above_4g, m->ram_below_4g, begin, size);
    return d->count || ruche_error(error, RUCHE_ERR_INVALID, "there is no memory between 'begin' and 'begin' + 'length'");
}

static bool open_target(struct dump *d, const char *protocol, GError **error)
{
    struct stat st;
    if (!g_str_has_prefix(protocol, "fd:") && !g_str_has_prefix(protocol, "file:"))
        return ruche_error(error, RUCHE_ERR_INVALID, "'protocol' must be file:PATH or fd:NAME, not '%s'", protocol);
    if (!migrate_channel_open(&d->channel, d->vmm, protocol, true, error))
        return false;
    d->sparse = fstat(d->channel.fd, &st) == 0 && S_ISREG(st.st_mode);
    return true;
}

static bool begin(struct dump *d, const char *protocol, uint64_t begin_gpa, uint64_t size, bool detach, GError **error)
{
    struct vmm *v = d->vmm;
    if (!choose_parts(d, begin_gpa, size, error) || !open_target(d, protocol, error))
        return false;
    d->resume = machine_is_running(v->machine);
    if (d->resume && !run_stop(v, error))
        return false;
    d->head = dump_head(v->machine, d->parts, d->count, error);
    d->threaded = detach;
    if (d->head && detach && migrate_worker_start(&d->worker, v->loop, run, ended, error))
        return true;
    bool ok = d->head && !detach && write_all(d, &d->error);
    finish(d);
    if (d->error)
        g_propagate_error(error, g_error_copy(d->error));
    return ok;
}

bool dump_start(struct vmm *v, const char *protocol, uint64_t begin_gpa, uint64_t size_bytes, bool detach, GError **error)
{
    if (v->dump && !v->dump->over)
        return ruche_error(error, RUCHE_ERR_BUSY, "There's a dump in process, please wait.");
    if (v->machine->state == RUN_INMIGRATE)
        return ruche_error(error, RUCHE_ERR_STATE, "Dump not allowed during incoming migration");
    dump_done(v);
    struct dump *d = g_new0(struct dump, 1);
    d->vmm = v;
    d->channel = (struct migrate_channel){ .fd = -1, .listen_fd = -1, .cancel_fd = -1 };
    bool ok = begin(d, protocol, begin_gpa, size_bytes, detach, error);
    if (!ok)
        d->over = true;
    v->dump = d;
    return ok;
}

const char *dump_progress(struct vmm *v, uint64_t *ret_done, uint64_t *ret_total)
{
    struct dump *d = v->dump;
    if (d && d->worker.main)
        pthread_mutex_lock(&d->worker.lock);
    *ret_done = d ? d->done : 0;
    *ret_total = d ? d->total : 0;
    if (d && d->worker.main)
        pthread_mutex_unlock(&d->worker.lock);
    return status_of(d);
}
