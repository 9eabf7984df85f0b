/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who a client is: AUTH_LIST and the SASL exchange. Thread: the loop thread; the library's steps on
 * a worker.
 *
 * Trust     Names and data are the client's; a name counts only after the library has said OK.
 */
#include "libvirt/auth.h"
#include "libvirt/client.h"

#include "base/log.h"

#include <unistd.h>

enum { MECHANISM_MAX = 64 };

struct auth_list {
    struct xdr_array types;
};
static const struct xdr_row auth_list_xdr[] = {XDR_LIST(struct auth_list, types, wire_u32, 20),
                                               XDR_DONE};

static bool list(struct rpc_call *c, void *args, void *ret, GError **error)
{
    struct auth_list *r = ret;
    const struct client *client = c->client;
    if (!client->who.authenticated && client->auth != LIBVIRT_AUTH_SASL) {
        long uid = client->who.uid == (uid_t)-1 ? -1L : (long)client->who.uid;
        if (server_config()->own_only)
            return ruche_error(error, MANAGER_ERR_AUTH,
                               "user %ld may not use this socket: this manager is user %ld's own",
                               uid, (long)geteuid());
        return ruche_error(error, MANAGER_ERR_AUTH,
                           "user %ld may not use this socket; the group that may is '%s'", uid,
                           server_config()->group ? server_config()->group : "root");
    }
    struct wire_u32 *type = g_new0(struct wire_u32, 1);
    type->v = client->who.authenticated ? AUTH_NONE : AUTH_SASL;
    r->types = (struct xdr_array){.count = 1, .items = type};
    return true;
}
RPC_PROC(auth_list, .number = 66, .flags = RPC_FAST | RPC_NO_AUTH, RET(auth_list), .call = list);

/* ---- SASL ---- */

static bool may_ask(struct client *c, GError **error)
{
    if (c->auth != LIBVIRT_AUTH_SASL || c->who.authenticated)
        return ruche_error(error, MANAGER_ERR_AUTH,
                           "this connection is not to authenticate by SASL");
    if (c->sasl_busy)
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL: a step is under way");
    return true;
}

static bool init(struct rpc_call *c, void *args, void *ret, GError **error)
{
    struct client *client = c->client;
    if (!may_ask(client, error))
        return false;
    unsigned bits = client->io.tls ? 256 : 0;
    sasl_layer_free(client->sasl);
    client->sasl = sasl_layer_new(client->io.fd, bits, client->kind <= CLIENT_UNIX_RO, error);
    const char *mechanisms = client->sasl ? sasl_layer_mechanisms(client->sasl, error) : NULL;
    ((struct r_text *)ret)->text = g_strdup(mechanisms);
    return mechanisms != NULL;
}
RPC_PROC(auth_sasl_init, .number = 67, .flags = RPC_FAST | RPC_NO_AUTH, RET(r_text), .call = init);

const struct xdr_row sasl_start_xdr[] = {
    XDR_F(STRING, struct sasl_start, mechanism, .max = MECHANISM_MAX),
    XDR_F(INT, struct sasl_start, nil), XDR_LIST(struct sasl_start, data, wire_u32, LIMIT_SASL),
    XDR_DONE};
const struct xdr_row sasl_reply_xdr[] = {
    XDR_F(INT, struct sasl_reply, complete), XDR_F(INT, struct sasl_reply, nil),
    XDR_LIST(struct sasl_reply, data, wire_u32, LIMIT_SASL), XDR_DONE};

/* What the worker sees. */
struct step {
    struct sasl_layer *sasl;
    const char *mechanism; /* NULL: not the first */
    const char *data;
    unsigned len;
    struct sasl_answer answer;
    bool ok;
    GError *error;
};

static void step_work(void *opaque)
{
    struct step *s = opaque;
    s->ok = s->mechanism
                ? sasl_layer_start(s->sasl, s->mechanism, s->data, s->len, &s->answer, &s->error)
                : sasl_layer_step(s->sasl, s->data, s->len, &s->answer, &s->error);
}

static bool name_let_in(const char *name)
{
    const char *const *patterns = server_config()->sasl_names;
    for (; patterns && *patterns; patterns++)
        if (g_pattern_match_simple(*patterns, name))
            return true;
    return !server_config()->sasl_names;
}

static bool complete(struct client *c, GError **error)
{
    const char *name = NULL;
    bool protects = false;
    if (!sasl_layer_result(c->sasl, &name, &protects, error))
        return false;
    if (!name_let_in(name))
        return ruche_error(error, MANAGER_ERR_AUTH, "user '%s' is not among those let in", name);
    if (protects && c->in && c->in->len)
        return ruche_error(error, MANAGER_ERR_AUTH,
                           "bytes came before the security layer that was to protect them");
    g_free(c->who.name);
    c->who.name = g_strdup(name);
    c->who.authenticated = true;
    c->sasl_from =
        protects ? UINT64_MAX : 0; /* from behind this answer on: set when it is written */
    return true;
}

static bool step(struct client *c, struct step *s, struct sasl_reply *r, GError **error)
{
    if (!may_ask(c, error))
        return false;
    if (!c->sasl)
        return ruche_error(error, MANAGER_ERR_AUTH, "SASL: a step before its init");
    s->sasl = c->sasl;
    c->sasl_busy = true;
    task_work(step_work, s);
    c->sasl_busy = false;
    if (!s->ok) {
        log_warn("libvirt: %s by %s: %s", "a client", c->who.transport, s->error->message);
        g_propagate_error(error, s->error);
        return false;
    }
    if (s->answer.complete && !complete(c, error))
        return false;
    r->complete = s->answer.complete;
    r->nil = !s->answer.data;
    r->data = wire_chars(s->answer.data, s->answer.data ? s->answer.len : 0);
    return true;
}

/* No data and empty data are two things. The bytes stay in the words' place. */
static void take_data(struct step *s, int32_t nil, struct xdr_array *a)
{
    char *bytes = a->items;
    for (uint32_t i = 0; i < a->count; i++)
        bytes[i] = (char)((struct wire_u32 *)a->items)[i].v;
    s->data = nil ? NULL : bytes ? bytes : "";
    s->len = nil ? 0 : a->count;
}

static bool start(struct rpc_call *c, void *args, void *ret, GError **error)
{
    struct sasl_start *a = args;
    struct step s = {.mechanism = a->mechanism};
    take_data(&s, a->nil, &a->data);
    return step(c->client, &s, ret, error);
}
RPC_PROC(auth_sasl_start, .number = 68, .flags = RPC_NO_AUTH, ARGS(sasl_start), RET(sasl_reply),
         .call = start);

const struct xdr_row sasl_step_xdr[] = {
    XDR_F(INT, struct sasl_step, nil), XDR_LIST(struct sasl_step, data, wire_u32, LIMIT_SASL),
    XDR_DONE};

static bool next(struct rpc_call *c, void *args, void *ret, GError **error)
{
    struct sasl_step *a = args;
    struct step s = {0};
    take_data(&s, a->nil, &a->data);
    return step(c->client, &s, ret, error);
}
RPC_PROC(auth_sasl_step, .number = 69, .flags = RPC_NO_AUTH, ARGS(sasl_step), RET(sasl_reply),
         .call = next);
