/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls that the guest agent answers: time, file systems, names, passwords, addresses. Thread: in a
 * task.
 *
 * Trust     What comes back is the guest's word: agent.h.
 */
#include "libvirt/agent.h"
#include "manager/network/network.h"

/* ---- time ---- */

enum { NS_PER_S = 1000000000 };

struct guest_time {
    int64_t seconds;
    uint32_t ns;
};
static const struct xdr_row guest_time_xdr[] = {XDR_F(HYPER, struct guest_time, seconds),
                                                XDR_F(UINT, struct guest_time, ns), XDR_DONE};

static bool get_time(struct rpc_call *c, struct domain *d, unsigned flags, struct guest_time *ret,
                     GError **error)
{
    if (!object_flags(flags, 0, "domain_get_time", error))
        return false;
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-get-time", NULL, error);
    if (!n)
        return false;
    int64_t ns = JSON_NODE_HOLDS_VALUE(n) ? json_node_get_int(n) : 0;
    *ret = (struct guest_time){ns / NS_PER_S, (uint32_t)(ns % NS_PER_S)};
    return true;
}
DOMAIN_PROC(domain_get_time, 337, RPC_READONLY, a_domain_flags,
            get_time(c, d, a->flags, ret, error), RET(guest_time));

struct set_time {
    struct wire_domain dom;
    int64_t seconds;
    uint32_t ns, flags;
};
static const struct xdr_row set_time_xdr[] = {
    XDR_SUB(struct set_time, dom, wire_domain_xdr), XDR_F(HYPER, struct set_time, seconds),
    XDR_F(UINT, struct set_time, ns), XDR_F(UINT, struct set_time, flags), XDR_DONE};

static bool set_time(struct rpc_call *c, struct domain *d, const struct set_time *a, GError **error)
{
    enum { SYNC = 1 };
    int64_t ns;
    if (!object_flags(a->flags, SYNC, "domain_set_time", error))
        return false;
    if (__builtin_mul_overflow(a->seconds, (int64_t)NS_PER_S, &ns) ||
        __builtin_add_overflow(ns, (int64_t)a->ns, &ns))
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "%" G_GINT64_FORMAT " s are more than a guest can count", a->seconds);
    JsonObject *args = a->flags & SYNC ? NULL : json_object_new();
    if (args)
        json_object_set_int_member(args, "time", ns);
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-set-time", args, error);
    return n != NULL;
}
DOMAIN_PROC(domain_set_time, 338, 0, set_time, set_time(c, d, a, error));

/* ---- file systems ---- */

struct mounts {
    struct wire_domain dom;
    struct xdr_array mounts;
    uint32_t flags;
};
static const struct xdr_row mounts_xdr[] = {XDR_SUB(struct mounts, dom, wire_domain_xdr),
                                            XDR_LIST(struct mounts, mounts, wire_string, 256),
                                            XDR_F(UINT, struct mounts, flags), XDR_DONE};

static bool ask_count(struct rpc_call *c, struct domain *d, const char *command, JsonObject *args,
                      void *ret, GError **error)
{
    g_autoptr(JsonNode) n = agent_ask(c, d, command, args, error);
    return n && object_int(ret, JSON_NODE_HOLDS_VALUE(n) ? (int32_t)json_node_get_int(n) : 0);
}

static bool freeze(struct rpc_call *c, struct domain *d, const struct mounts *a, void *ret,
                   GError **error)
{
    if (!object_flags(a->flags, 0, "domain_fsfreeze", error))
        return false;
    if (!a->mounts.count)
        return ask_count(c, d, "guest-fsfreeze-freeze", NULL, ret, error);
    JsonArray *list = json_array_new();
    for (uint32_t i = 0; i < a->mounts.count; i++)
        json_array_add_string_element(list, ((struct wire_string *)a->mounts.items)[i].s);
    JsonObject *args = json_object_new();
    json_object_set_array_member(args, "mountpoints", list);
    return ask_count(c, d, "guest-fsfreeze-freeze-list", args, ret, error);
}
DOMAIN_PROC(domain_fsfreeze, 335, 0, mounts, freeze(c, d, a, ret, error), RET(r_int));

static bool thaw(struct rpc_call *c, struct domain *d, const struct mounts *a, void *ret,
                 GError **error)
{
    if (a->mounts.count)
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "all file systems are thawed at once, not single ones");
    return object_flags(a->flags, 0, "domain_fsthaw", error) &&
           ask_count(c, d, "guest-fsfreeze-thaw", NULL, ret, error);
}
DOMAIN_PROC(domain_fsthaw, 336, 0, mounts, thaw(c, d, a, ret, error), RET(r_int));

struct trim {
    struct wire_domain dom;
    char *mount;
    uint64_t minimum;
    uint32_t flags;
};
static const struct xdr_row trim_xdr[] = {
    XDR_SUB(struct trim, dom, wire_domain_xdr), XDR_F(STRING_OPT, struct trim, mount),
    XDR_F(UHYPER, struct trim, minimum), XDR_F(UINT, struct trim, flags), XDR_DONE};

static bool trim(struct rpc_call *c, struct domain *d, const struct trim *a, GError **error)
{
    if (a->mount)
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "all file systems are trimmed at once, not '%s' alone", a->mount);
    if (!object_flags(a->flags, 0, "domain_fstrim", error))
        return false;
    JsonObject *args = json_object_new();
    json_object_set_int_member(args, "minimum", (int64_t)MIN(a->minimum, (uint64_t)INT64_MAX));
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-fstrim", args, error);
    return n != NULL;
}
DOMAIN_PROC(domain_fstrim, 294, 0, trim, trim(c, d, a, error));

struct fs {
    char *mount, *name, *type;
    struct xdr_array disks;
};
static const struct xdr_row fs_xdr[] = {
    XDR_F(STRING, struct fs, mount), XDR_F(STRING, struct fs, name), XDR_F(STRING, struct fs, type),
    XDR_LIST(struct fs, disks, wire_string, 256), XDR_DONE};
struct fs_info {
    struct xdr_array info;
    uint32_t count;
};
static const struct xdr_row fs_info_xdr[] = {XDR_LIST(struct fs_info, info, fs, 256),
                                             XDR_F(UINT, struct fs_info, count), XDR_DONE};

/* The names of our disks below it; the guest's others are left out. */
static struct xdr_array fs_disks(struct domain *d, JsonArray *list)
{
    struct wire_string *names = g_new0(struct wire_string, agent_count(list) + 1);
    struct xdr_array ret = {0, names};
    for (unsigned i = 0; i < agent_count(list); i++)
        if ((names[ret.count].s = agent_disk_target(d, agent_row(list, i))))
            ret.count++;
    return ret;
}

static bool fs_info(struct rpc_call *c, struct domain *d, unsigned flags, struct fs_info *ret,
                    GError **error)
{
    if (!object_flags(flags, 0, "domain_get_fsinfo", error))
        return false;
    g_autoptr(JsonArray) list = agent_ask_list(c, d, "guest-get-fsinfo", error);
    if (!list)
        return false;
    struct fs *f = g_new0(struct fs, agent_count(list) + 1);
    for (unsigned i = 0; i < agent_count(list); i++) {
        JsonObject *o = agent_row(list, i);
        f[i].mount = g_strdup(agent_text(o, "mountpoint"));
        f[i].name = g_strdup(agent_text(o, "name"));
        f[i].type = g_strdup(agent_text(o, "type"));
        f[i].disks = fs_disks(d, agent_list(o, "disk"));
    }
    ret->info = (struct xdr_array){agent_count(list), f};
    ret->count = ret->info.count;
    return true;
}
DOMAIN_PROC(domain_get_fsinfo, 349, 0, a_domain_flags, fs_info(c, d, a->flags, ret, error),
            RET(fs_info));

/* ---- names and passwords ---- */

/* The name that it told a DHCP server of ours. */
static bool leased_name(const struct domain *d, void *ret, GError **error)
{
    const struct domain_summary *s = domain_summary(d);
    for (unsigned i = 0; i < s->interface_count; i++) {
        const struct def_interface *n = &s->interfaces[i];
        g_autoptr(GPtrArray) leases = n->source ? network_leases_of(n->source, n->mac) : NULL;
        for (unsigned k = 0; leases && k < leases->len; k++) {
            const struct network_lease *l = leases->pdata[k];
            if (l->hostname)
                return object_text(ret, g_strdup(l->hostname));
        }
    }
    return ruche_error(error, RUCHE_ERR_NOT_FOUND, "domain '%s' has no lease with a name", s->name);
}

static bool hostname(struct rpc_call *c, struct domain *d, unsigned flags, void *ret,
                     GError **error)
{
    enum { LEASE = 1, AGENT = 2 };
    if (!object_flags(flags, LEASE | AGENT, "domain_get_hostname", error))
        return false;
    if (flags & LEASE)
        return leased_name(d, ret, error);
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-get-host-name", NULL, error);
    if (!n)
        return false;
    const char *name =
        JSON_NODE_HOLDS_OBJECT(n) ? agent_text(json_node_get_object(n), "host-name") : NULL;
    return object_text(ret, g_strdup(name ? name : ""));
}
DOMAIN_PROC(domain_get_hostname, 277, RPC_READONLY, a_domain_flags,
            hostname(c, d, a->flags, ret, error), RET(r_text));

struct password {
    struct wire_domain dom;
    char *user, *password;
    uint32_t flags;
};
static const struct xdr_row password_xdr[] = {
    XDR_SUB(struct password, dom, wire_domain_xdr), XDR_F(STRING_OPT, struct password, user),
    XDR_F(STRING_OPT, struct password, password), XDR_F(UINT, struct password, flags), XDR_DONE};

static bool set_password(struct rpc_call *c, struct domain *d, const struct password *a,
                         GError **error)
{
    enum { ENCRYPTED = 1 };
    if (!object_flags(a->flags, ENCRYPTED, "domain_set_user_password", error))
        return false;
    const char *password = a->password ? a->password : "";
    g_autofree char *encoded = g_base64_encode((const guchar *)password, strlen(password));
    JsonObject *args = json_object_new();
    json_object_set_boolean_member(args, "crypted", a->flags & ENCRYPTED);
    json_object_set_string_member(args, "username", a->user ? a->user : "");
    json_object_set_string_member(args, "password", encoded);
    g_autoptr(JsonNode) n = agent_ask(c, d, "guest-set-user-password", args, error);
    return n != NULL;
}
DOMAIN_PROC(domain_set_user_password, 357, 0, password, set_password(c, d, a, error));

/* ---- addresses ---- */

struct address {
    int32_t type;
    char *text;
    uint32_t prefix;
};
static const struct xdr_row address_xdr[] = {XDR_F(INT, struct address, type),
                                             XDR_F(STRING, struct address, text),
                                             XDR_F(UINT, struct address, prefix), XDR_DONE};
struct interface {
    char *name, *mac;
    struct xdr_array addresses;
};
static const struct xdr_row interface_xdr[] = {
    XDR_F(STRING, struct interface, name), XDR_F(STRING_OPT, struct interface, mac),
    XDR_LIST(struct interface, addresses, address, 2048), XDR_DONE};
struct interfaces {
    struct xdr_array list;
};
static const struct xdr_row interfaces_xdr[] = {XDR_LIST(struct interfaces, list, interface, 2048),
                                                XDR_DONE};

static void fill_interface(JsonObject *o, struct interface *ret)
{
    JsonArray *list = agent_list(o, "ip-addresses");
    struct address *a = g_new0(struct address, agent_count(list) + 1);
    ret->name = g_strdup(agent_text(o, "name"));
    ret->mac = g_strdup(agent_text(o, "hardware-address"));
    for (unsigned i = 0; i < agent_count(list); i++) {
        JsonObject *row = agent_row(list, i);
        a[i] = (struct address){g_strcmp0(agent_text(row, "ip-address-type"), "ipv6") == 0,
                                g_strdup(agent_text(row, "ip-address")),
                                (uint32_t)agent_number(row, "prefix")};
    }
    ret->addresses = (struct xdr_array){agent_count(list), a};
}

static bool from_agent(struct rpc_call *c, struct domain *d, struct xdr_array *ret, GError **error)
{
    g_autoptr(JsonArray) list = agent_ask_list(c, d, "guest-network-get-interfaces", error);
    if (!list)
        return false;
    struct interface *f = g_new0(struct interface, agent_count(list) + 1);
    for (unsigned i = 0; i < agent_count(list); i++)
        fill_interface(agent_row(list, i), &f[i]);
    *ret = (struct xdr_array){agent_count(list), f};
    return true;
}

/* The host's neighbours, by the domain's MACs. */
static void from_arp(const struct domain *d, struct xdr_array *ret)
{
    const struct domain_summary *s = domain_summary(d);
    g_autofree char *table = NULL;
    struct interface *f = g_new0(struct interface, s->interface_count + 1);
    ret->items = f;
    if (!g_file_get_contents("/proc/net/arp", &table, NULL, NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(table, "\n", 1 << 16);
    for (unsigned i = 0; i < s->interface_count; i++)
        for (char **line = lines; *line; line++) {
            if (!strstr(*line, s->interfaces[i].mac))
                continue;
            struct address *a = g_new0(struct address, 1);
            *a = (struct address){0, g_strndup(*line, strcspn(*line, " ")), 0};
            f[ret->count++] = (struct interface){
                g_strdup(s->interfaces[i].target), g_strdup(s->interfaces[i].mac), {1, a}};
            break;
        }
}

/* What the networks' DHCP servers gave the domain's interfaces. */
static void from_leases(const struct domain *d, struct xdr_array *ret)
{
    const struct domain_summary *s = domain_summary(d);
    struct interface *f = g_new0(struct interface, s->interface_count + 1);
    ret->items = f;
    for (unsigned i = 0; i < s->interface_count; i++) {
        const struct def_interface *n = &s->interfaces[i];
        g_autoptr(GPtrArray) leases = n->source ? network_leases_of(n->source, n->mac) : NULL;
        if (!leases || !leases->len)
            continue;
        struct address *a = g_new0(struct address, leases->len);
        for (unsigned k = 0; k < leases->len; k++) {
            const struct network_lease *l = leases->pdata[k];
            a[k] = (struct address){l->v6, g_strdup(l->ip), l->prefix};
        }
        f[ret->count++] =
            (struct interface){g_strdup(n->target), g_strdup(n->mac), {leases->len, a}};
    }
}

struct addresses {
    struct wire_domain dom;
    uint32_t source, flags;
};
static const struct xdr_row addresses_xdr[] = {XDR_SUB(struct addresses, dom, wire_domain_xdr),
                                               XDR_F(UINT, struct addresses, source),
                                               XDR_F(UINT, struct addresses, flags), XDR_DONE};

static bool addresses(struct rpc_call *c, struct domain *d, const struct addresses *a,
                      struct xdr_array *ret, GError **error)
{
    enum { LEASE, AGENT, ARP };
    if (!object_flags(a->flags, 0, "domain_interface_addresses", error))
        return false;
    if (!domain_is_active(d))
        return ruche_error(error, RUCHE_ERR_STATE, "domain '%s' is not running",
                           domain_summary(d)->name);
    if (a->source == AGENT)
        return from_agent(c, d, ret, error);
    if (a->source > ARP)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "%u is no source of addresses", a->source);
    if (a->source == ARP)
        from_arp(d, ret);
    else
        from_leases(d, ret);
    return true;
}
DOMAIN_PROC(domain_interface_addresses, 353, RPC_READONLY, addresses,
            addresses(c, d, a, ret, error), RET(interfaces));
