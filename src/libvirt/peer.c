/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls to a peer, and the phases of migration over there. Thread: the loop thread; calls on
 * workers. */
#include "libvirt/peer.h"

#include "libvirt/auth.h"
#include "libvirt/frame.h"
#include "libvirt/migrate.h"
#include "libvirt/peer_open.h"
#include "libvirt/peer_sasl.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define CALL_S 180

enum {
    PROC_OPEN = 1,
    PROC_LOOKUP_BY_UUID = 24,
    PROC_SUPPORTS_FEATURE = 60,
    PROC_AUTH_LIST = 66,
    PROC_AUTH_POLKIT = 70,
    PROC_PREPARE = 303,
    PROC_FINISH = 306,
};
enum { FEATURE_MIGRATION_PARAMS = 13, E_NO_DOMAIN = 42 };

struct migrate_peer {
    struct peer_link link;
    char *uri;
    uint32_t serial;
    bool broken; /* no more calls */
    int code;    /* of the last error that it answered */
};

/* ---- messages, on a worker ---- */

static bool send_message(struct migrate_peer *p, const struct frame *f, const struct xdr_row *rows,
                         const void *args, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    guint begin = frame_begin(out, f);
    if ((rows && xdr_write(rows, args, out) < 0) || !frame_end(out, begin))
        return ruche_error(error, MANAGER_ERR_OVERFLOW, "what is to be sent is over the limit");
    return peer_link_write(&p->link, out->data, out->len, error);
}

/* The next message, whole. */
static uint8_t *receive(struct migrate_peer *p, struct frame *ret, uint32_t *ret_bytes,
                        GError **error)
{
    uint8_t head[FRAME_HEADER_BYTES];
    if (!peer_link_read(&p->link, head, sizeof(head), error))
        return NULL;
    if (frame_read(head, sizeof(head), ret, ret_bytes) < 0) {
        ruche_error(error, RUCHE_ERR_IO, "it does not speak libvirt's protocol");
        return NULL;
    }
    g_autofree uint8_t *all = g_try_malloc(*ret_bytes);
    if (!all) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "its answer has %u bytes", *ret_bytes);
        return NULL;
    }
    memcpy(all, head, sizeof(head));
    return peer_link_read(&p->link, all + sizeof(head), *ret_bytes - sizeof(head), error)
               ? g_steal_pointer(&all)
               : NULL;
}

struct work {
    struct migrate_peer *p;
    uint32_t procedure;
    const struct xdr_row *args_rows, *ret_rows;
    const void *args;
    void *ret;
    size_t ret_size;
    enum migrate_answer answer;
    GError *error;
};

static void read_error(struct work *w, const uint8_t *data, size_t len)
{
    struct wire_error e;
    w->answer = MIGRATE_NO;
    if (!xdr_read(wire_error_xdr, &e, sizeof(e), data, len, NULL)) {
        w->p->code = e.code;
        ruche_error(&w->error, e.code == E_NO_DOMAIN ? MANAGER_ERR_NO_DOMAIN : MANAGER_ERR_MACHINE,
                    "'%s': %s", w->p->uri, e.message ? e.message : "it failed");
    } else {
        ruche_error(&w->error, MANAGER_ERR_MACHINE, "'%s': it failed", w->p->uri);
    }
    xdr_free(wire_error_xdr, &e);
}

static bool take_reply(struct work *w, const struct frame *f, const uint8_t *data, uint32_t bytes)
{
    data += FRAME_HEADER_BYTES;
    bytes -= FRAME_HEADER_BYTES;
    if (f->program != PROGRAM_REMOTE || f->type != FRAME_REPLY || f->serial != w->p->serial)
        return false; /* events */
    if (f->status != FRAME_OK) {
        read_error(w, data, bytes);
        return true;
    }
    w->answer = MIGRATE_YES;
    if (w->ret_rows && xdr_read(w->ret_rows, w->ret, w->ret_size, data, bytes, NULL) < 0) {
        xdr_free(w->ret_rows, w->ret);
        memset(w->ret, 0, w->ret_size);
        w->answer = MIGRATE_LOST;
        ruche_error(&w->error, RUCHE_ERR_IO, "'%s': its answer cannot be read", w->p->uri);
    }
    return true;
}

static bool answer_ping(struct migrate_peer *p, const struct frame *f, GError **error)
{
    struct frame pong = *f;
    pong.procedure = 2;
    return f->program != PROGRAM_KEEPALIVE || f->procedure != 1 ||
           send_message(p, &pong, NULL, NULL, error);
}

static void call_work(void *opaque)
{
    struct work *w = opaque;
    struct frame f = {PROGRAM_REMOTE, PROGRAM_VERSION, w->procedure,
                      FRAME_CALL,     ++w->p->serial,  FRAME_OK};
    w->answer = MIGRATE_LOST;
    if (!send_message(w->p, &f, w->args_rows, w->args, &w->error))
        return;
    for (;;) {
        uint32_t bytes;
        g_autofree uint8_t *data = receive(w->p, &f, &bytes, &w->error);
        if (!data || take_reply(w, &f, data, bytes) || !answer_ping(w->p, &f, &w->error))
            return;
    }
}

/* ---- calls ---- */

static enum migrate_answer done(struct work *w, GError **error)
{
    w->p->broken |= w->answer == MIGRATE_LOST;
    if (w->answer == MIGRATE_LOST)
        ruche_error(error, RUCHE_ERR_IO, "'%s': %s", w->p->uri, w->error->message);
    else if (w->error)
        g_propagate_error(error, g_steal_pointer(&w->error));
    g_clear_error(&w->error);
    return w->answer;
}

static enum migrate_answer call(struct work *w, GError **error)
{
    if (w->p->broken) {
        ruche_error(error, RUCHE_ERR_IO, "'%s': the connection is over", w->p->uri);
        return MIGRATE_LOST;
    }
    task_work_long(call_work, w);
    return done(w, error);
}

/* ---- opening ---- */

struct auth_types {
    struct xdr_array types;
};
static const struct xdr_row auth_types_xdr[] = {XDR_LIST(struct auth_types, types, wire_u32, 20),
                                                XDR_DONE};
struct open_args {
    char *name;
    uint32_t flags;
};
static const struct xdr_row open_args_xdr[] = {XDR_F(STRING_OPT, struct open_args, name),
                                               XDR_F(UINT, struct open_args, flags), XDR_DONE};

/* A call of the opening, on the worker that is at it. */
static bool ask(struct work *w)
{
    call_work(w);
    return w->answer == MIGRATE_YES;
}

static bool ask_sasl(void *opaque, uint32_t procedure, const struct xdr_row *args_rows,
                     const void *args, const struct xdr_row *ret_rows, void *ret, size_t ret_size,
                     GError **error)
{
    struct work w = {.p = opaque,
                     .procedure = procedure,
                     .args_rows = args_rows,
                     .args = args,
                     .ret_rows = ret_rows,
                     .ret = ret,
                     .ret_size = ret_size};
    if (ask(&w))
        return true;
    g_propagate_error(error, w.error);
    return false;
}

/* A bit for each kind of authentication that it takes. */
static bool list_auth(struct migrate_peer *p, uint32_t *ret, GError **error)
{
    struct auth_types types = {0};
    if (!ask_sasl(p, PROC_AUTH_LIST, NULL, NULL, auth_types_xdr, &types, sizeof(types), error))
        return false;
    *ret = types.types.count ? 0 : 1u << AUTH_NONE;
    for (uint32_t i = 0; i < types.types.count; i++) {
        uint32_t type = ((struct wire_u32 *)types.types.items)[i].v;
        *ret |= type < 32 ? 1u << type : 0;
    }
    xdr_free(auth_types_xdr, &types);
    return true;
}

static bool let_in(struct migrate_peer *p, GError **error)
{
    struct r_int complete = {0};
    uint32_t types = 0;
    if (!list_auth(p, &types, error))
        return false;
    if (types & 1u << AUTH_NONE)
        return true;
    if (types & 1u << AUTH_POLKIT)
        return ask_sasl(p, PROC_AUTH_POLKIT, NULL, NULL, r_int_xdr, &complete, sizeof(complete),
                        error);
    if (types & 1u << AUTH_SASL)
        return peer_sasl(&p->link, p->uri, ask_sasl, p, error);
    return ruche_error(error, MANAGER_ERR_AUTH,
                       "'%s' asks for an authentication that is not known here (0x%x)", p->uri,
                       types);
}

static bool enter(struct migrate_peer *p, GError **error)
{
    struct open_args name = {.name = p->link.open_name};
    struct a_int feature = {FEATURE_MIGRATION_PARAMS};
    struct r_int supported = {0};
    struct work enter = {.p = p, .procedure = PROC_OPEN, .args_rows = open_args_xdr, .args = &name};
    struct work can = {.p = p,
                       .procedure = PROC_SUPPORTS_FEATURE,
                       .args_rows = a_int_xdr,
                       .args = &feature,
                       .ret_rows = r_int_xdr,
                       .ret = &supported,
                       .ret_size = sizeof(supported)};
    if (!let_in(p, error))
        return false;
    if (!ask(&enter) || !ask(&can)) {
        g_propagate_error(error, enter.error ? enter.error : can.error);
        return false;
    }
    return supported.v || ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                                      "'%s' takes no machines from other hosts", p->uri);
}

struct opening {
    struct migrate_peer *p;
    bool ok;
    GError *error;
};

static void open_work(void *opaque)
{
    struct opening *o = opaque;
    o->ok = peer_link_open(o->p->uri, CALL_S, &o->p->link, &o->error) && enter(o->p, &o->error);
}

static void peer_close(struct migrate_peer *p)
{
    peer_link_close(&p->link);
    g_free(p->uri);
    g_free(p);
}

static struct migrate_peer *peer_open(const char *uri, GError **error)
{
    struct migrate_peer *p = g_new0(struct migrate_peer, 1);
    struct opening o = {.p = p};
    p->uri = g_strdup(uri);
    task_work_long(open_work, &o);
    if (o.ok)
        return p;
    g_autoptr(GError) why = o.error;
    int code = why->domain == RUCHE_ERROR ? why->code : (int)RUCHE_ERR_IO;
    if (strstr(why->message, uri))
        g_propagate_error(error, g_steal_pointer(&why));
    else
        ruche_error(error, code, "'%s' cannot be reached: %s", uri, why->message);
    peer_close(p);
    return NULL;
}

static bool peer_is_alive(const struct migrate_peer *p)
{
    struct pollfd fd = {.fd = g_socket_get_fd(p->link.socket), .events = POLLIN | POLLRDHUP};
    char byte;
    if (p->broken || poll(&fd, 1, 0) < 0)
        return false;
    if (fd.revents & (POLLHUP | POLLRDHUP | POLLERR))
        return false;
    return !(fd.revents & POLLIN) || recv(fd.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

/* ---- phases ---- */

/* The list stays the caller's. */
static struct xdr_array wire_params(const struct param_list *l)
{
    struct param_list copy = {0};
    struct xdr_array a;
    for (unsigned i = 0; i < l->count; i++)
        if (l->rows[i].type == PARAM_STRING)
            param_string(&copy, l->rows[i].name, l->rows[i].s);
        else
            param_ullong(&copy, l->rows[i].name, l->rows[i].u);
    params_to_wire(&copy, &a);
    return a;
}

static struct xdr_bytes wire_cookie(const char *text)
{
    return (struct xdr_bytes){*text ? (uint32_t)strlen(text) + 1 : 0, (uint8_t *)text};
}

static enum migrate_answer peer_prepare(struct migrate_peer *p, const struct param_list *params,
                                        const char *cookie, unsigned flags, char **ret_cookie,
                                        char **ret_uri, GError **error)
{
    struct a_migrate_prepare a = {wire_params(params), wire_cookie(cookie), flags};
    struct r_migrate_prepare r = {0};
    struct work w = {.p = p,
                     .procedure = PROC_PREPARE,
                     .args_rows = a_migrate_prepare_xdr,
                     .args = &a,
                     .ret_rows = r_migrate_prepare_xdr,
                     .ret = &r,
                     .ret_size = sizeof(r)};
    enum migrate_answer answer = call(&w, error);
    if (answer == MIGRATE_YES) {
        *ret_cookie = g_strndup((const char *)r.cookie.data, r.cookie.len);
        *ret_uri = g_steal_pointer(&r.uri);
    }
    a.cookie = (struct xdr_bytes){0}; /* the caller's */
    xdr_free(a_migrate_prepare_xdr, &a);
    xdr_free(r_migrate_prepare_xdr, &r);
    return answer;
}

static enum migrate_answer peer_finish(struct migrate_peer *p, const struct param_list *params,
                                       const char *cookie, unsigned flags, bool cancelled,
                                       GError **error)
{
    struct a_migrate_finish a = {wire_params(params), wire_cookie(cookie), flags, cancelled};
    struct r_migrate_finish r = {0};
    struct work w = {.p = p,
                     .procedure = PROC_FINISH,
                     .args_rows = a_migrate_finish_xdr,
                     .args = &a,
                     .ret_rows = r_migrate_finish_xdr,
                     .ret = &r,
                     .ret_size = sizeof(r)};
    enum migrate_answer answer = call(&w, error);
    a.cookie = (struct xdr_bytes){0};
    xdr_free(a_migrate_finish_xdr, &a);
    xdr_free(r_migrate_finish_xdr, &r);
    return answer;
}

static enum migrate_answer peer_is_active(struct migrate_peer *p, const uint8_t uuid[16],
                                          GError **error)
{
    struct a_uuid a;
    struct r_domain r = {0};
    struct work w = {.p = p,
                     .procedure = PROC_LOOKUP_BY_UUID,
                     .args_rows = a_uuid_xdr,
                     .args = &a,
                     .ret_rows = r_domain_xdr,
                     .ret = &r,
                     .ret_size = sizeof(r)};
    g_autoptr(GError) why = NULL;
    memcpy(a.uuid, uuid, sizeof(a.uuid));
    enum migrate_answer answer = call(&w, &why);
    bool active = answer == MIGRATE_YES && r.dom.id != -1;
    xdr_free(r_domain_xdr, &r);
    if (answer == MIGRATE_NO && p->code != E_NO_DOMAIN)
        answer = MIGRATE_LOST; /* that is no answer to what was asked */
    if (answer == MIGRATE_LOST && why)
        g_propagate_error(error, g_steal_pointer(&why));
    return answer == MIGRATE_LOST ? answer : active ? MIGRATE_YES : MIGRATE_NO;
}

static const struct migrate_peer_ops ops = {.open = peer_open,
                                            .close = peer_close,
                                            .is_alive = peer_is_alive,
                                            .prepare = peer_prepare,
                                            .finish = peer_finish,
                                            .is_active = peer_is_active};

void peer_register(void)
{
    domain_migrate_set_peer(&ops);
}
