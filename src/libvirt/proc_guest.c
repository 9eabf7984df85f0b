/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's vCPUs, the keys that it lets in, its sleep. Thread: in a task.
 *
 * Trust     What comes back is the guest's word: agent.h.
 */
#include "libvirt/agent.h"

/* ---- vCPUs ---- */

enum { GUEST_VCPUS_MAX = 4096 };

/* Numbers, ascending or not, as "0-3,7". */
struct numbers {
    uint8_t bits[GUEST_VCPUS_MAX / 8];
};

static bool has(const struct numbers *n, unsigned i)
{
    return i < GUEST_VCPUS_MAX && (n->bits[i / 8] >> i % 8 & 1);
}

static void add(struct numbers *n, int64_t i)
{
    if (i >= 0 && i < GUEST_VCPUS_MAX)
        n->bits[i / 8] |= (uint8_t)(1u << i % 8);
}

static void put_numbers(struct param_list *l, const char *name, const struct numbers *n)
{
    g_autoptr(GString) s = g_string_new(NULL);
    for (unsigned i = 0; i < GUEST_VCPUS_MAX; i++) {
        unsigned first = i;
        if (!has(n, i))
            continue;
        while (has(n, i + 1))
            i++;
        g_string_append_printf(s, first == i ? "%s%u" : "%s%u-%u", s->len ? "," : "", first, i);
    }
    param_string(l, name, s->str);
}

struct guest_vcpus {
    struct numbers all, online, offlinable;
};

static bool ask_vcpus(struct rpc_call *c, struct domain *d, struct guest_vcpus *ret, GError **error)
{
    g_autoptr(JsonArray) list = agent_ask_list(c, d, "guest-get-vcpus", error);
    for (unsigned i = 0; i < agent_count(list); i++) {
        JsonObject *o = agent_row(list, i);
        add(&ret->all, agent_number(o, "logical-id"));
        if (agent_is(o, "online"))
            add(&ret->online, agent_number(o, "logical-id"));
        if (agent_is(o, "can-offline"))
            add(&ret->offlinable, agent_number(o, "logical-id"));
    }
    return list != NULL;
}

int agent_vcpu_count(struct rpc_call *c, struct domain *d, bool all, GError **error)
{
    struct guest_vcpus v = {0};
    int count = 0;
    if (!ask_vcpus(c, d, &v, error))
        return -1;
    for (unsigned i = 0; i < GUEST_VCPUS_MAX; i++)
        count += has(all ? &v.all : &v.online, i);
    return count;
}

static bool get_vcpus(struct rpc_call *c, struct domain *d, unsigned flags, struct r_params *ret,
                      GError **error)
{
    struct guest_vcpus v = {0};
    struct param_list l = {0};
    if (!object_flags(flags, 0, "domain_get_guest_vcpus", error) || !ask_vcpus(c, d, &v, error))
        return false;
    put_numbers(&l, "vcpus", &v.all);
    put_numbers(&l, "online", &v.online);
    put_numbers(&l, "offlinable", &v.offlinable);
    params_to_wire(&l, &ret->params);
    return true;
}
DOMAIN_PROC(domain_get_guest_vcpus, 371, RPC_READONLY, a_domain_flags,
            get_vcpus(c, d, a->flags, ret, error), RET(r_params));

struct set_guest_vcpus {
    struct wire_domain dom;
    char *cpus;
    int32_t state;
    uint32_t flags;
};
static const struct xdr_row set_guest_vcpus_xdr[] = {
    XDR_SUB(struct set_guest_vcpus, dom, wire_domain_xdr),
    XDR_F(STRING, struct set_guest_vcpus, cpus), XDR_F(INT, struct set_guest_vcpus, state),
    XDR_F(UINT, struct set_guest_vcpus, flags), XDR_DONE};

/* "0-3,7" into bits. */
static bool read_numbers(const char *text, struct numbers *ret, GError **error)
{
    for (const char *p = text; *p;) {
        char *end;
        uint64_t from = g_ascii_strtoull(p, &end, 10), to = from;
        if (end != p && *end == '-')
            to = g_ascii_strtoull(end + 1, &end, 10);
        if (end == p || from > to || to >= GUEST_VCPUS_MAX || (*end && *end != ','))
            return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not a set of vCPUs", text);
        for (; from <= to; from++)
            add(ret, (int64_t)from);
        p = end + (*end == ',');
    }
    return true;
}

static bool may_change(const struct guest_vcpus *v, const struct numbers *wanted, bool on,
                       GError **error)
{
    for (unsigned i = 0; i < GUEST_VCPUS_MAX; i++) {
        if (has(wanted, i) && !has(&v->all, i))
            return ruche_error(error, RUCHE_ERR_INVALID, "the guest has no vCPU %u", i);
        if (has(wanted, i) && !on && !has(&v->offlinable, i))
            return ruche_error(error, RUCHE_ERR_INVALID, "the guest's vCPU %u cannot be offline",
                               i);
    }
    return true;
}

static bool set_vcpus(struct rpc_call *c, struct domain *d, const struct set_guest_vcpus *a,
                      GError **error)
{
    struct guest_vcpus v = {0};
    struct numbers wanted = {0};
    if (!object_flags(a->flags, 0, "domain_set_guest_vcpus", error) ||
        !read_numbers(a->cpus, &wanted, error) || !ask_vcpus(c, d, &v, error) ||
        !may_change(&v, &wanted, a->state, error))
        return false;
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < GUEST_VCPUS_MAX; i++) {
        if (!has(&wanted, i))
            continue;
        JsonObject *o = json_object_new();
        json_object_set_int_member(o, "logical-id", i);
        json_object_set_boolean_member(o, "online", a->state != 0);
        json_array_add_object_element(list, o);
    }
    JsonObject *args = json_object_new();
    json_object_set_array_member(args, "vcpus", list);
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-set-vcpus", args, error);
    return n != NULL;
}
DOMAIN_PROC(domain_set_guest_vcpus, 372, 0, set_guest_vcpus, set_vcpus(c, d, a, error));

/* ---- keys of its users ---- */

enum { KEYS_MAX = 2048, KEYS_APPEND = 1, KEYS_REMOVE = 2 };

struct get_keys {
    struct wire_domain dom;
    char *user;
    uint32_t flags;
};
static const struct xdr_row get_keys_xdr[] = {XDR_SUB(struct get_keys, dom, wire_domain_xdr),
                                              XDR_F(STRING, struct get_keys, user),
                                              XDR_F(UINT, struct get_keys, flags), XDR_DONE};
struct set_keys {
    struct wire_domain dom;
    char *user;
    struct xdr_array keys;
    uint32_t flags;
};
static const struct xdr_row set_keys_xdr[] = {
    XDR_SUB(struct set_keys, dom, wire_domain_xdr), XDR_F(STRING, struct set_keys, user),
    XDR_LIST(struct set_keys, keys, wire_string, KEYS_MAX), XDR_F(UINT, struct set_keys, flags),
    XDR_DONE};
struct keys {
    struct xdr_array keys;
};
static const struct xdr_row keys_xdr[] = {XDR_LIST(struct keys, keys, wire_string, KEYS_MAX),
                                          XDR_DONE};

static bool get_keys(struct rpc_call *c, struct domain *d, const struct get_keys *a,
                     struct keys *ret, GError **error)
{
    if (!object_flags(a->flags, 0, "domain_authorized_ssh_keys_get", error))
        return false;
    JsonObject *args = json_object_new();
    json_object_set_string_member(args, "username", a->user);
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-ssh-get-authorized-keys", args, error);
    JsonArray *list =
        n && JSON_NODE_HOLDS_OBJECT(n) ? agent_list(json_node_get_object(n), "keys") : NULL;
    unsigned count = list ? MIN(json_array_get_length(list), KEYS_MAX) : 0;
    struct wire_string *keys = g_new0(struct wire_string, count + 1);
    ret->keys.items = keys;
    for (unsigned i = 0; i < count; i++) {
        JsonNode *key = json_array_get_element(list, i);
        if (JSON_NODE_HOLDS_VALUE(key) && json_node_get_value_type(key) == G_TYPE_STRING)
            keys[ret->keys.count++].s = g_strdup(json_node_get_string(key));
    }
    return n != NULL;
}
DOMAIN_PROC(domain_authorized_ssh_keys_get, 424, 0, get_keys, get_keys(c, d, a, ret, error),
            RET(keys));

static bool set_keys(struct rpc_call *c, struct domain *d, const struct set_keys *a, GError **error)
{
    bool remove = a->flags & KEYS_REMOVE;
    if (!object_flags(a->flags, KEYS_APPEND | KEYS_REMOVE, "domain_authorized_ssh_keys_set", error))
        return false;
    if (remove && (a->flags & KEYS_APPEND))
        return ruche_error(error, RUCHE_ERR_INVALID, "keys are either appended or removed");
    JsonArray *list = json_array_new();
    for (uint32_t i = 0; i < a->keys.count; i++)
        json_array_add_string_element(list, ((struct wire_string *)a->keys.items)[i].s);
    JsonObject *args = json_object_new();
    json_object_set_string_member(args, "username", a->user);
    json_object_set_array_member(args, "keys", list);
    if (!remove)
        json_object_set_boolean_member(args, "reset", !(a->flags & KEYS_APPEND));
    g_autoptr(JsonNode) n = agent_ask(
        c, d, remove ? "guest-ssh-remove-authorized-keys" : "guest-ssh-add-authorized-keys", args,
        error);
    return n != NULL;
}
DOMAIN_PROC(domain_authorized_ssh_keys_set, 425, 0, set_keys, set_keys(c, d, a, error));

/* ---- time for answers, sleep ---- */

DOMAIN_PROC(domain_agent_set_response_timeout, 420, 0, a_domain_int_flags,
            object_flags(a->flags, 0, "domain_agent_set_response_timeout", error) &&
                domain_set_agent_timeout(c->who, d, a->v, error) && object_int(ret, 0),
            RET(r_int));

struct pm_suspend {
    struct wire_domain dom;
    uint32_t target;
    uint64_t duration;
    uint32_t flags;
};
static const struct xdr_row pm_suspend_xdr[] = {
    XDR_SUB(struct pm_suspend, dom, wire_domain_xdr), XDR_F(UINT, struct pm_suspend, target),
    XDR_F(UHYPER, struct pm_suspend, duration), XDR_F(UINT, struct pm_suspend, flags), XDR_DONE};
DOMAIN_PROC(domain_pm_suspend_for_duration, 261, 0, pm_suspend,
            object_flags(a->flags, 0, "domain_pm_suspend_for_duration", error) &&
                domain_pm_suspend(c->who, d, a->target, a->duration, error));
DOMAIN_PROC(domain_pm_wakeup, 267, 0, a_domain_flags,
            object_flags(a->flags, 0, "domain_pm_wakeup", error) &&
                domain_pm_wakeup(c->who, d, error));
