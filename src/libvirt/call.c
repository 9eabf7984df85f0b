/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls: which procedure, may it be called now, its arguments, its answer or error. Thread: the
 * loop thread. */
#include "libvirt/client.h"

#include "base/fd.h"
#include "libvirt/names.h"
#include "libvirt/stream.h"

#include <string.h>

enum { E_NO_SUPPORT = 3, E_DENIED = 29, FROM_DOMAIN = 20, FROM_QEMU = 10, FAST_BYTES = 1024 };

/* A call that waits, as a task. Its arguments and result stand behind it. */
struct job {
    struct rpc_call call;
    const struct rpc_proc *proc;
    struct frame frame;
    int fds[FRAME_MAX_FDS];
    void *args, *ret;
};

/* ---- answers ---- */

void client_send_error(struct client *c, const struct frame *f, int type, const GError *e)
{
    if (c->ended)
        return;
    struct wire_error w;
    wire_error_fill(e, &w);
    struct frame answer = *f;
    answer.type = type;
    answer.status = FRAME_ERROR;
    guint begin = frame_begin(c->out, &answer);
    if (xdr_write(wire_error_xdr, &w, c->out) < 0 || !frame_end(c->out, begin)) {
        g_byte_array_set_size(c->out, begin);
        client_end(c, "an error is too long to be told");
    }
    g_free(w.message);
    server_figures()->errors++;
    client_flush(c);
}

bool client_send_rows(struct client *c, const struct frame *f, const struct xdr_row *rows,
                      const void *obj)
{
    if (c->ended)
        return true;
    guint begin = frame_begin(c->out, f);
    if (f->type == FRAME_REPLY_FDS) {
        const uint32_t one = GUINT32_TO_BE(1);
        g_byte_array_append(c->out, (const guint8 *)&one, sizeof(one));
    }
    if (rows && xdr_write(rows, obj, c->out) < 0) {
        g_byte_array_set_size(c->out, begin);
        return false;
    }
    return frame_end(c->out, begin);
}

static void answer(struct rpc_call *call, const struct rpc_proc *p, const struct frame *f, bool ok,
                   void *ret, GError *e)
{
    struct client *c = call->client;
    struct frame reply = *f;
    reply.type = ok && call->ret_fd >= 0 ? FRAME_REPLY_FDS : FRAME_REPLY;
    if (ok && !client_send_rows(c, &reply, p->ret, ret)) {
        ok = false;
        ruche_error(&e, MANAGER_ERR_OVERFLOW, "%s: the answer is over the protocol's limit",
                    p->name);
    }
    if (!ok)
        client_send_error(c, f, FRAME_REPLY, e);
    else if (call->ret_fd >= 0 && !c->ended)
        client_send_fd(c, fd_steal(&call->ret_fd));
    fd_close_keep_errno(call->ret_fd);
    if (call->stream && ok)
        stream_begin(call->stream);
    else if (call->stream)
        stream_drop(call->stream);
    if (p->ret)
        xdr_free(p->ret, ret);
    g_clear_error(&e);
    if (c->sasl_from == UINT64_MAX && !c->ended)
        client_protect(c); /* that was the answer that completes the exchange */
    client_flush(c);
}

static void make(struct rpc_call *call, const struct rpc_proc *p, const struct frame *f, void *args,
                 void *ret)
{
    GError *e = NULL;
    if (p->ret)
        memset(ret, 0, p->ret_size);
    bool ok = p->call(call, args, ret, &e);
    if (!ok && !e)
        ruche_error(&e, RUCHE_ERR_INTERNAL, "%s failed without a reason", p->name);
    answer(call, p, f, ok, ret, e);
    if (p->args)
        xdr_free(p->args, args);
}

/* ---- tasks ---- */

static void job_run(void *opaque)
{
    struct job *j = opaque;
    struct client *c = j->call.client;
    make(&j->call, j->proc, &j->frame, j->args, j->ret);
    for (unsigned i = 0; i < j->call.fd_count; i++)
        fd_close_keep_errno(j->fds[i]);
    g_free(j);
    c->calls--;
    client_resume(c);
    client_unref(c);
}

static void start_job(struct rpc_call *call, const struct rpc_proc *p, const struct frame *f,
                      void *args)
{
    size_t at_ret = sizeof(struct job) + ((p->args_size + 15) & ~(size_t)15);
    struct job *j = g_malloc(at_ret + p->ret_size);
    j->call = *call;
    j->proc = p;
    j->frame = *f;
    j->args = j + 1;
    j->ret = (char *)j + at_ret;
    memcpy(j->args, args, p->args_size);
    for (unsigned i = 0; i < call->fd_count; i++)
        j->fds[i] = fd_steal(&call->fds[i]);
    j->call.fds = j->fds;
    client_ref(call->client)->calls++;
    task_start(job_run, j);
}

/* ---- calls ---- */

static bool known(const struct frame *f, const struct rpc_proc **ret, GError **error)
{
    *ret = NULL;
    if ((f->program != PROGRAM_REMOTE && f->program != PROGRAM_QEMU) ||
        f->version != PROGRAM_VERSION)
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
                          "there is no program 0x%08x version %u here", f->program, f->version);
    if (f->type != FRAME_CALL && f->type != FRAME_CALL_FDS)
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC, "%d is not a type of message",
                          f->type);
    if (f->status != FRAME_OK)
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC, "a call with status %d",
                          f->status);
    *ret = rpc_find(f->program, f->procedure);
    if (*ret)
        return true;
    const char *name = rpc_name(f->program, f->procedure);
    if (!name)
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC, "there is no procedure %u",
                          f->procedure);
    return wire_error(error, E_NO_SUPPORT, FROM_QEMU,
                      "this daemon does not support the procedure %s", name);
}

static bool allowed(const struct client *c, const struct rpc_proc *p, GError **error)
{
    if (!c->who.authenticated && !(p->flags & RPC_NO_AUTH))
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
                          "%s: authentication is required first", p->name);
    if (!c->opened && !(p->flags & (RPC_NO_OPEN | RPC_NO_AUTH)))
        return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
                          "%s: the connection was not opened", p->name);
    if (c->who.read_only && !(p->flags & (RPC_READONLY | RPC_NO_OPEN | RPC_NO_AUTH)))
        return wire_error(error, E_DENIED, FROM_DOMAIN,
                          "operation %s is not allowed on a read-only connection", p->name);
    return true;
}

static bool decode(const struct rpc_proc *p, void *args, const uint8_t *payload, size_t len,
                   GError **error)
{
    int r = p->args ? xdr_read(p->args, args, p->args_size, payload, len, NULL) : 0;
    if (!r)
        return true;
    xdr_free(p->args, args);
    return wire_error(error, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
                      "arguments of %s cannot be read: %s", p->name,
                      r == -EMSGSIZE ? "over the protocol's limit"
                      : r == -ENOMEM ? "they take too much memory"
                                     : "malformed");
}

static void call(struct client *c, const struct frame *f, const uint8_t *payload, size_t len,
                 int *fds, unsigned fd_count)
{
    static union {
        char bytes[FAST_BYTES];
        max_align_t align;
    } args, ret; /* of one call at a time: a fast one never waits, another's are copied */
    g_autoptr(GError) e = NULL;
    const struct rpc_proc *p;
    server_figures()->calls++;
    if (known(f, &p, &e))
        g_assert(p->args_size <= FAST_BYTES && p->ret_size <= FAST_BYTES);
    if (e || !allowed(c, p, &e) || !decode(p, &args, payload, len, &e)) {
        client_send_error(c, f, FRAME_REPLY, e);
        return;
    }
    struct rpc_call rc = {.client = c,
                          .who = &c->who,
                          .serial = f->serial,
                          .program = f->program,
                          .procedure = f->procedure,
                          .fds = fds,
                          .fd_count = fd_count,
                          .ret_fd = -1};
    if (p->flags & RPC_FAST)
        make(&rc, p, f, &args, &ret);
    else
        start_job(&rc, p, f, &args);
}

static void keepalive(struct client *c, const struct frame *f)
{
    if (f->type != FRAME_MESSAGE || f->procedure != 1)
        return; /* a pong: that something came has been noted */
    struct frame pong = *f;
    pong.procedure = 2;
    frame_end(c->out, frame_begin(c->out, &pong));
}

void client_message(struct client *c, const struct frame *f, const uint8_t *payload, size_t len,
                    int *fds, unsigned fd_count)
{
    if (f->program == PROGRAM_KEEPALIVE && f->version == 1)
        keepalive(c, f);
    else if (f->type == FRAME_STREAM || f->type == FRAME_HOLE)
        stream_message(c, f, payload, len);
    else if (f->type == FRAME_REPLY || f->type == FRAME_MESSAGE || f->type == FRAME_REPLY_FDS)
        return; /* nothing was asked: libvirt's daemon lets them pass, too */
    else
        call(c, f, payload, len, fds, fd_count);
}
