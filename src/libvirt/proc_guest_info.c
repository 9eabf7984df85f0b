/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domain_get_guest_info: what the agent knows of the guest, as one list of parameters. Thread: in a
 * task.
 *
 * Trust     What comes back is the guest's word: agent.h.
 */
#include "libvirt/agent.h"

static void text(struct param_list *l, JsonObject *o, const char *member, const char *format,
                 unsigned i)
{
    const char *v = agent_text(o, member);
    if (v)
        param_string_at(l, v, format, i);
}

static bool users(struct rpc_call *c, struct domain *d, struct param_list *l, GError **error)
{
    g_autoptr(JsonArray) list = agent_ask_list(c, d, "guest-get-users", error);
    if (!list)
        return false;
    param_uint(l, "user.count", agent_count(list));
    for (unsigned i = 0; i < agent_count(list); i++) {
        JsonObject *o = agent_row(list, i);
        text(l, o, "user", "user.%u.name", i);
        text(l, o, "domain", "user.%u.domain", i);
        param_ullong_at(l, (uint64_t)agent_number(o, "login-time") * 1000, "user.%u.login-time", i);
    }
    return true;
}

static bool os(struct rpc_call *c, struct domain *d, struct param_list *l, GError **error)
{
    static const char *const members[] = {
        "id",      "name",       "pretty-name",    "version",        "version-id",
        "variant", "variant-id", "kernel-release", "kernel-version", "machine"};
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-get-osinfo", NULL, error);
    if (!n)
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(members) && JSON_NODE_HOLDS_OBJECT(n); i++) {
        const char *v = agent_text(json_node_get_object(n), members[i]);
        if (v)
            param_string_at(l, v, "os.%s", members[i]);
    }
    return true;
}

static bool timezone_info(struct rpc_call *c, struct domain *d, struct param_list *l,
                          GError **error)
{
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-get-timezone", NULL, error);
    if (!n)
        return false;
    if (!JSON_NODE_HOLDS_OBJECT(n))
        return true;
    JsonObject *o = json_node_get_object(n);
    if (agent_text(o, "zone"))
        param_string(l, "timezone.name", agent_text(o, "zone"));
    param_int(l, "timezone.offset", (int)agent_number(o, "offset"));
    return true;
}

static bool hostname(struct rpc_call *c, struct domain *d, struct param_list *l, GError **error)
{
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-get-host-name", NULL, error);
    const char *name =
        n && JSON_NODE_HOLDS_OBJECT(n) ? agent_text(json_node_get_object(n), "host-name") : NULL;
    if (name)
        param_string(l, "hostname", name);
    return n != NULL;
}

static void text_2(struct param_list *l, JsonObject *o, const char *member, const char *format,
                   unsigned i, unsigned k)
{
    const char *v = agent_text(o, member);
    if (v)
        param_string_at(l, v, format, i, k);
}

/* The machine's disks that a file system is on. */
static void fs_disks(struct domain *d, struct param_list *l, JsonArray *list, unsigned i)
{
    char name[80];
    g_snprintf(name, sizeof(name), "fs.%u.disk.count", i);
    param_uint(l, name, agent_count(list));
    for (unsigned k = 0; k < agent_count(list); k++) {
        JsonObject *o = agent_row(list, k);
        g_autofree char *target = agent_disk_target(d, o);
        if (target)
            param_string_at(l, target, "fs.%u.disk.%u.alias", i, k);
        text_2(l, o, "serial", "fs.%u.disk.%u.serial", i, k);
        text_2(l, o, "dev", "fs.%u.disk.%u.device", i, k);
    }
}

static bool file_systems(struct rpc_call *c, struct domain *d, struct param_list *l, GError **error)
{
    g_autoptr(JsonArray) list = agent_ask_list(c, d, "guest-get-fsinfo", error);
    if (!list)
        return false;
    param_uint(l, "fs.count", agent_count(list));
    for (unsigned i = 0; i < agent_count(list) && l->count < LIMIT_PARAMS / 2; i++) {
        JsonObject *o = agent_row(list, i);
        text(l, o, "mountpoint", "fs.%u.mountpoint", i);
        text(l, o, "name", "fs.%u.name", i);
        text(l, o, "type", "fs.%u.fstype", i);
        if (agent_number(o, "total-bytes"))
            param_ullong_at(l, (uint64_t)agent_number(o, "total-bytes"), "fs.%u.total-bytes", i);
        if (agent_number(o, "total-bytes"))
            param_ullong_at(l, (uint64_t)agent_number(o, "used-bytes"), "fs.%u.used-bytes", i);
        fs_disks(d, l, agent_list(o, "disk"), i);
    }
    return true;
}

static void disk_dependencies(struct param_list *l, JsonArray *list, unsigned i)
{
    char name[80];
    if (!list)
        return;
    g_snprintf(name, sizeof(name), "disk.%u.dependency.count", i);
    param_uint(l, name, agent_count(list));
    for (unsigned k = 0; k < agent_count(list); k++)
        if (agent_text_at(list, k))
            param_string_at(l, agent_text_at(list, k), "disk.%u.dependency.%u.name", i, k);
}

/* Disks and their partitions, as the guest's kernel names them. */
static bool disks(struct rpc_call *c, struct domain *d, struct param_list *l, GError **error)
{
    g_autoptr(JsonArray) list = agent_ask_list(c, d, "guest-get-disks", error);
    if (!list)
        return false;
    param_uint(l, "disk.count", agent_count(list));
    for (unsigned i = 0; i < agent_count(list) && l->count < LIMIT_PARAMS / 2; i++) {
        JsonObject *o = agent_row(list, i), *address = agent_object(o, "address");
        char name[80];
        text(l, o, "name", "disk.%u.name", i);
        g_snprintf(name, sizeof(name), "disk.%u.partition", i);
        param_bool(l, name, agent_is(o, "partition"));
        disk_dependencies(l, agent_list(o, "dependencies"), i);
        g_autofree char *target = address ? agent_disk_target(d, address) : NULL;
        if (target)
            param_string_at(l, target, "disk.%u.alias", i);
        if (address)
            text(l, address, "serial", "disk.%u.serial", i);
        text(l, o, "alias", "disk.%u.guest_alias", i);
    }
    return true;
}

static void interface_addresses(struct param_list *l, JsonArray *list, unsigned i)
{
    char name[80];
    g_snprintf(name, sizeof(name), "if.%u.addr.count", i);
    param_uint(l, name, agent_count(list));
    for (unsigned k = 0; k < agent_count(list); k++) {
        JsonObject *o = agent_row(list, k);
        param_string_at(l, agent_text(o, "ip-address-type"), "if.%u.addr.%u.type", i, k);
        param_string_at(l, agent_text(o, "ip-address"), "if.%u.addr.%u.addr", i, k);
        g_snprintf(name, sizeof(name), "if.%u.addr.%u.prefix", i, k);
        param_uint(l, name, (unsigned)agent_number(o, "prefix"));
    }
}

static bool interfaces(struct rpc_call *c, struct domain *d, struct param_list *l, GError **error)
{
    g_autoptr(JsonArray) list = agent_ask_list(c, d, "guest-network-get-interfaces", error);
    if (!list)
        return false;
    param_uint(l, "if.count", agent_count(list));
    for (unsigned i = 0; i < agent_count(list) && l->count < LIMIT_PARAMS / 2; i++) {
        JsonObject *o = agent_row(list, i);
        text(l, o, "name", "if.%u.name", i);
        text(l, o, "hardware-address", "if.%u.hwaddr", i);
        interface_addresses(l, agent_list(o, "ip-addresses"), i);
    }
    return true;
}

/* By the bits of virDomainGuestInfoTypes. */
static const struct {
    unsigned bit;
    bool (*ask)(struct rpc_call *c, struct domain *d, struct param_list *l, GError **error);
} topics[] = {{1, users},         {2, os},     {4, timezone_info}, {8, hostname},
              {16, file_systems}, {32, disks}, {64, interfaces}};

struct guest_info {
    struct wire_domain dom;
    uint32_t types, flags;
};
static const struct xdr_row guest_info_xdr[] = {XDR_SUB(struct guest_info, dom, wire_domain_xdr),
                                                XDR_F(UINT, struct guest_info, types),
                                                XDR_F(UINT, struct guest_info, flags), XDR_DONE};

/* What is asked for by name must be answered; of everything, what the agent can. */
static bool guest_info(struct rpc_call *c, struct domain *d, const struct guest_info *a,
                       struct r_params *ret, GError **error)
{
    struct param_list l = {0};
    if (!object_flags(a->flags, 0, "domain_get_guest_info", error) ||
        !object_flags(a->types, 0x7f, "domain_get_guest_info: types", error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(topics); i++) {
        g_autoptr(GError) e = NULL;
        if (a->types && !(a->types & topics[i].bit))
            continue;
        if (topics[i].ask(c, d, &l, &e) || (!a->types && i))
            continue;
        param_list_done(&l);
        g_propagate_error(error, g_steal_pointer(&e));
        return false;
    }
    params_to_wire(&l, &ret->params);
    return true;
}
DOMAIN_PROC(domain_get_guest_info, 418, 0, guest_info, guest_info(c, d, a, ret, error),
            RET(r_params));
