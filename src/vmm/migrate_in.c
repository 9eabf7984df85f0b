/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine comes in: waiting for it, the thread that reads it, and the machine that becomes it.
 *
 * Failure   The program ends: what was read stands half in this machine's RAM.
 */
#include "base/fd.h"
#include "base/log.h"
#include "machine/state.h"
#include "vmm/migrate_internal.h"

#include <fcntl.h>
#include <sys/stat.h>

struct incoming {
    struct migrate_worker worker;
    struct vmm *vmm;
    enum migrate_status status; /* main thread */
    struct migrate_channel channel;
    struct loop_fd listen;

    struct migrate_head own, saved;
    struct migrate_reader reader;
    struct migrate_writer answers;
    struct migrate_ram ram;
    GByteArray *state;
    char *run_state;
    GError *error;
};

static struct incoming *of(struct migrate_worker *w)
{
    return container_of(w, struct incoming, worker);
}

static void set_status(struct incoming *in, enum migrate_status status)
{
    in->status = status;
    migrate_event(in->vmm, status);
}

enum migrate_status migrate_incoming_status(const struct incoming *in)
{
    return in ? in->status : MIGRATE_NONE;
}

/* ---- on the main thread ---- */

static bool load(struct migrate_worker *w, GError **error)
{
    struct incoming *in = of(w);
    return migrate_disks_activate(in->vmm, error) &&
           machine_state_load(in->vmm->machine, in->state->data, in->state->len, error);
}

/* The other side goes on with them. */
static bool give_back(struct migrate_worker *w, GError **error)
{
    return migrate_disks_give(of(w)->vmm, error);
}

static bool finish(struct migrate_worker *w, GError **error)
{
    struct incoming *in = of(w);
    return run_loaded(in->vmm, in->run_state, error);
}

static void release(struct incoming *in)
{
    loop_fd_remove(&in->listen);
    migrate_channel_done(&in->channel);
    migrate_reader_done(&in->reader);
    migrate_writer_done(&in->answers);
    migrate_head_done(&in->own);
    migrate_head_done(&in->saved);
    g_clear_pointer(&in->state, g_byte_array_unref);
    g_clear_pointer(&in->run_state, g_free);
}

static void ended(struct migrate_worker *w)
{
    struct incoming *in = of(w);
    struct vmm *v = in->vmm;
    release(in);
    set_status(in, in->error ? MIGRATE_FAILED : MIGRATE_COMPLETED);
    if (!in->error)
        return;
    log_error("-incoming: %s", in->error->message);
    v->exit_status = 1;
    run_quit(v, CAUSE_HOST_ERROR);
}

/* ---- the thread ---- */

/* Tells the other side, where it waits for that. */
static bool answer(struct incoming *in, bool ok, GError **error)
{
    if (!in->saved.answers)
        return ok;
    if (ok)
        return migrate_write_answer(&in->answers, NULL, error);
    g_autoptr(GError) why = NULL;
    if (!migrate_write_answer(&in->answers, error && *error ? (*error)->message : "it cannot", &why))
        log_info("the other side does not hear why: %s", why->message);
    return false;
}

static bool take(struct incoming *in, GError **error)
{
    struct migrate_worker *w = &in->worker;
    if (!migrate_read_head(&in->reader, &in->saved, error))
        return false;
    if (!answer(in, migrate_head_fits(&in->saved, &in->own, error), error))
        return false;
    bool ok = migrate_read_body(&in->reader, &in->ram, &in->state, &in->run_state, error) &&
              migrate_worker_ask(w, load, error);
    if (!ok)
        migrate_worker_ask(w, give_back, NULL);
    return answer(in, ok, error) && (!in->saved.answers || migrate_read_go(&in->reader, error)) &&
           migrate_worker_ask(w, finish, error);
}

static void run(struct migrate_worker *w)
{
    struct incoming *in = of(w);
    if (!take(in, &in->error))
        migrate_worker_ask(w, give_back, NULL);
}

/* ---- beginning ---- */

/* What was in RAM before is nothing: pages that the stream does not bring are zero. */
static bool empty_ram(struct machine *m, GError **error)
{
    if (!fallocate(m->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m->config.ram_bytes))
        return true;
    return ruche_error_errno(error, errno, "RAM cannot be emptied");
}

static bool begin(struct incoming *in, GError **error)
{
    struct vmm *v = in->vmm;
    migrate_describe(v, &in->own);
    migrate_ram_of(v, &in->ram);
    if (!empty_ram(v->machine, error) ||
        !migrate_worker_start(&in->worker, v->loop, run, ended, error))
        return false;
    set_status(in, MIGRATE_ACTIVE);
    return true;
}

static void peer_came(void *opaque, uint32_t events)
{
    struct incoming *in = opaque;
    int fd = sock_accept(in->channel.listen_fd);
    if (fd < 0)
        return;
    loop_fd_remove(&in->listen);
    close(in->channel.listen_fd);
    in->channel.listen_fd = -1;
    sock_path_remove(&in->channel.path);
    in->channel.fd = fd;
    in->channel.socket = true;
    if (begin(in, &in->error))
        return;
    log_error("-incoming: %s", in->error->message);
    in->vmm->exit_status = 1;
    run_quit(in->vmm, CAUSE_HOST_ERROR);
}

static struct incoming *incoming_new(struct vmm *v)
{
    struct incoming *in = g_new0(struct incoming, 1);
    in->vmm = v;
    in->channel = (struct migrate_channel){ .fd = -1, .listen_fd = -1, .cancel_fd = -1 };
    return in;
}

static void incoming_free(struct incoming *in)
{
    if (!in)
        return;
    if (in->worker.started)
        migrate_channel_cancel(&in->channel);
    migrate_worker_join(&in->worker);
    release(in);
    g_clear_error(&in->error);
    g_free(in);
}

static bool open_in(struct incoming *in, const char *uri, GError **error)
{
    struct vmm *v = in->vmm;
    if (!migrate_reader_init(&in->reader, migrate_channel_read, &in->channel) ||
        !migrate_writer_init(&in->answers, migrate_channel_write, &in->channel))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for a migration");
    if (!migrate_channel_open(&in->channel, v, uri, false, error))
        return false;
    if (in->channel.listen_fd < 0)
        return begin(in, error);
    int err = loop_fd_add(v->loop, &in->listen, in->channel.listen_fd, EPOLLIN, peer_came, in);
    return !err || ruche_error_errno(error, -err, "'%s' cannot be listened at", uri);
}

bool migrate_incoming(struct vmm *v, const char *uri, GError **error)
{
    struct migrate *all = v->migrate;
    if (v->machine->state != RUN_INMIGRATE)
        return ruche_error(error, RUCHE_ERR_STATE, "'-incoming' was not specified on the command line");
    if (all->in)
        return ruche_error(error, RUCHE_ERR_STATE, "The incoming migration has already been started");
    if (!strcmp(uri, "defer"))
        return true;
    struct incoming *in = incoming_new(v);
    migrate_event(v, MIGRATE_SETUP);
    in->status = MIGRATE_SETUP;
    if (open_in(in, uri, error)) {
        all->in = in;
        return true;
    }
    g_prefix_error(error, "-incoming: ");
    migrate_event(v, MIGRATE_FAILED);
    incoming_free(in);
    return false;
}

void migrate_incoming_done(struct vmm *v)
{
    g_clear_pointer(&v->migrate->in, incoming_free);
}
