/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on domains. */
#include "web/op.h"

#include "base/util.h"
#include "manager/launch/launch.h"
#include "manager/uuid.h"

#include <string.h>

static const char *const state_words[DOMAIN_STATES] = {
    [DOMAIN_NOSTATE] = "no state", [DOMAIN_RUNNING] = "running",   [DOMAIN_BLOCKED] = "blocked",
    [DOMAIN_PAUSED] = "paused",    [DOMAIN_SHUTDOWN] = "in shutdown", [DOMAIN_SHUTOFF] = "shut off",
    [DOMAIN_CRASHED] = "crashed",  [DOMAIN_PMSUSPENDED] = "pmsuspended",
};

static struct domain *find(const struct web_request *r, GError **error)
{
    return domain_find_name(web_text(r, "name"), error);
}

static JsonObject *describe(const struct caller *who, struct domain *d, GError **error)
{
    struct domain_info info;
    if (!domain_info(who, d, &info, error))
        return NULL;
    const struct domain_summary *s = domain_summary(d);
    char uuid[UUID_TEXT_BYTES];
    uuid_format(s->uuid, uuid);
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "name", s->name);
    json_object_set_string_member(o, "uuid", uuid);
    if (domain_is_active(d))
        json_object_set_int_member(o, "id", d->id);
    json_object_set_string_member(o, "state", state_words[d->state]);
    json_object_set_int_member(o, "reason", d->reason);
    json_object_set_int_member(o, "vcpus", info.vcpus);
    json_object_set_int_member(o, "memory", (int64_t)info.memory_kib * 1024);
    json_object_set_int_member(o, "max_memory", (int64_t)info.max_memory_kib * 1024);
    json_object_set_double_member(o, "cpu_seconds", (double)info.cpu_time_ns / 1e9);
    json_object_set_boolean_member(o, "autostart", d->autostart);
    json_object_set_boolean_member(o, "persistent", d->persistent);
    if (s->title)
        json_object_set_string_member(o, "title", s->title);
    return o;
}

static JsonArray *describe_disks(const struct domain_summary *s)
{
    JsonArray *disks = json_array_new();
    for (unsigned i = 0; i < s->disk_count; i++) {
        const struct def_disk *disk = &s->disks[i];
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "target", disk->target);
        json_object_set_string_member(o, "bus", disk->bus);
        json_object_set_string_member(o, "device", disk->device);
        if (disk->source)
            json_object_set_string_member(o, "source", disk->source);
        json_object_set_boolean_member(o, "read_only", disk->read_only);
        json_array_add_object_element(disks, o);
    }
    return disks;
}

static JsonArray *describe_interfaces(const struct domain_summary *s)
{
    JsonArray *interfaces = json_array_new();
    for (unsigned i = 0; i < s->interface_count; i++) {
        const struct def_interface *nic = &s->interfaces[i];
        const char *const members[][2] = { { "mac", nic->mac }, { "type", nic->type }, { "source", nic->source },
                                           { "target", nic->target }, { "model", nic->model } };
        JsonObject *o = json_object_new();
        for (size_t m = 0; m < G_N_ELEMENTS(members); m++)
            if (members[m][1])
                json_object_set_string_member(o, members[m][0], members[m][1]);
        json_array_add_object_element(interfaces, o);
    }
    return interfaces;
}

static JsonNode *do_list(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "list domains", error))
        return NULL;
    g_autoptr(GPtrArray) domains = domain_list(r->who, 0);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < domains->len; i++) {
        JsonObject *o = describe(r->who, domains->pdata[i], NULL);
        if (o)
            json_array_add_object_element(list, o);
    }
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "domains", list);
    return web_node(o);
}
WEB_OP(domain_list, .method = "GET", .path = "/domains", .summary = "All machines", .quick = true, .call = do_list);

static JsonNode *answer(const struct web_request *r, struct domain *d, GError **error)
{
    JsonObject *o = describe(r->who, d, error);
    return o ? web_node(o) : NULL;
}

/* Of a launched one. */
static void add_ssh(const struct caller *who, struct domain *d, JsonObject *o)
{
    g_autofree char *host = NULL, *user = NULL;
    unsigned port;
    if (!launch_ssh(who, d, &host, &port, &user, NULL))
        return;
    JsonObject *ssh = json_object_new();
    json_object_set_string_member(ssh, "host", host);
    json_object_set_int_member(ssh, "port", port);
    json_object_set_string_member(ssh, "user", user);
    json_object_set_object_member(o, "ssh", ssh);
}

static JsonNode *do_get(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    JsonObject *o = d ? describe(r->who, d, error) : NULL;
    if (o) {
        json_object_set_array_member(o, "disks", describe_disks(domain_summary(d)));
        json_object_set_array_member(o, "interfaces", describe_interfaces(domain_summary(d)));
        add_ssh(r->who, d, o);
    }
    domain_unref(d);
    return o ? web_node(o) : NULL;
}
WEB_OP(domain_get, .method = "GET", .path = "/domains/{name}", .summary = "One machine, its disks and interfaces", .quick = true,
       .call = do_get);

static const struct web_field xml_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "libvirt's domain XML; or as a body of type application/xml" },
    { "start", WEB_BOOL, false, 0, 0, "start it, too" },
    { 0 },
};

static JsonNode *do_define(struct web_request *r, GError **error)
{
    struct domain *d = domain_define(r->who, web_text(r, "xml"), 0, error);
    JsonNode *node = NULL;
    if (d && (!web_bool(r, "start") || domain_start(r->who, d, 0, error)))
        node = answer(r, d, error);
    domain_unref(d);
    return node;
}
WEB_OP(domain_define, .method = "POST", .path = "/domains", .summary = "Defines a machine, or changes its definition",
       .fields = xml_fields, .status = 201, .call = do_define);

static const struct web_field xml_get_fields[] = {
    { "inactive", WEB_BOOL, false, 0, 0, "as it will be started next" },
    { "secure", WEB_BOOL, false, 0, 0, "with passwords" },
    { 0 },
};

static JsonNode *do_xml(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    unsigned flags = (web_bool(r, "inactive") ? DEF_FORMAT_INACTIVE : 0) | (web_bool(r, "secure") ? DEF_FORMAT_SECURE : 0);
    r->text_type = "application/xml";
    r->ret_text = d ? domain_xml(r->who, d, flags, error) : NULL;
    domain_unref(d);
    return NULL;
}
WEB_OP(domain_xml, .method = "GET", .path = "/domains/{name}/xml", .summary = "A machine's description as libvirt's XML",
       .fields = xml_get_fields, .call = do_xml);

/* What a machine is told to do: one row each. */
static const struct web_field start_fields[] = { { "paused", WEB_BOOL, false, 0, 0, "stop before the first instruction" }, { 0 } };
static const struct web_field destroy_fields[] = {
    { "graceful", WEB_BOOL, false, 0, 0, "only if it ends when it is asked to" }, { 0 }
};
static const struct web_field mode_fields[] = { { "mode", WEB_STRING, false, 0, 0, "acpi or agent" }, { 0 } };

enum { START_PAUSED = 1, DESTROY_GRACEFUL = 1, SHUTDOWN_ACPI = 1, SHUTDOWN_AGENT = 2 };

static bool mode_flags(const struct web_request *r, unsigned *ret_flags, GError **error)
{
    const char *mode = web_text(r, "mode");
    *ret_flags = !mode ? 0 : !strcmp(mode, "acpi") ? SHUTDOWN_ACPI : SHUTDOWN_AGENT;
    return !mode || !strcmp(mode, "acpi") || !strcmp(mode, "agent") ||
           ruche_error(error, RUCHE_ERR_INVALID, "mode '%s' is neither 'acpi' nor 'agent'", mode);
}

static bool act_start(const struct web_request *r, struct domain *d, GError **error)
{
    return domain_start(r->who, d, web_bool(r, "paused") ? START_PAUSED : 0, error);
}

static bool act_shutdown(const struct web_request *r, struct domain *d, GError **error)
{
    unsigned flags;
    return mode_flags(r, &flags, error) && domain_shutdown(r->who, d, flags, error);
}

static bool act_reboot(const struct web_request *r, struct domain *d, GError **error)
{
    unsigned flags;
    return mode_flags(r, &flags, error) && domain_reboot(r->who, d, flags, error);
}

static bool act_reset(const struct web_request *r, struct domain *d, GError **error)
{
    return domain_reset(r->who, d, error);
}

static bool act_destroy(const struct web_request *r, struct domain *d, GError **error)
{
    return domain_destroy(r->who, d, web_bool(r, "graceful") ? DESTROY_GRACEFUL : 0, error);
}

static bool act_pause(const struct web_request *r, struct domain *d, GError **error)
{
    return domain_suspend(r->who, d, error);
}

static bool act_resume(const struct web_request *r, struct domain *d, GError **error)
{
    return domain_resume(r->who, d, error);
}

static JsonNode *act(struct web_request *r, bool (*fn)(const struct web_request *, struct domain *, GError **), GError **error)
{
    struct domain *d = find(r, error);
    JsonNode *node = NULL;
    if (d && fn(r, d, error))
        node = answer(r, d, NULL);
    domain_unref(d);
    return node;
}

#define ACTION(word, text, ...)                                                                    \
    static JsonNode *do_##word(struct web_request *r, GError **error)                              \
    {                                                                                              \
        return act(r, act_##word, error);                                                          \
    }                                                                                              \
    WEB_OP(domain_##word, .method = "POST", .path = "/domains/{name}/" #word, .summary = text, .call = do_##word, __VA_ARGS__)

ACTION(start, "Starts it", .fields = start_fields);
ACTION(shutdown, "Asks the guest to power off", .fields = mode_fields);
ACTION(reboot, "Asks the guest to boot again", .fields = mode_fields);
ACTION(reset, "Resets it, as its button does");
ACTION(destroy, "Switches it off", .fields = destroy_fields);
ACTION(pause, "Stops its vCPUs");
ACTION(resume, "Lets its vCPUs go on");

static const struct web_field rename_fields[] = { { "new_name", WEB_STRING, true, 0, 0, "its new name" }, { 0 } };

static JsonNode *do_rename(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    JsonNode *node = NULL;
    if (d && domain_rename(r->who, d, web_text(r, "new_name"), error))
        node = answer(r, d, NULL);
    domain_unref(d);
    return node;
}
WEB_OP(domain_rename, .method = "POST", .path = "/domains/{name}/rename", .summary = "Gives it another name", .fields = rename_fields,
       .call = do_rename);

enum { UNDEFINE_MANAGED_SAVE = 1, UNDEFINE_SNAPSHOTS = 2, UNDEFINE_NVRAM = 4 };

static JsonNode *do_undefine(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    if (d)
        domain_undefine(r->who, d, UNDEFINE_MANAGED_SAVE | UNDEFINE_SNAPSHOTS | UNDEFINE_NVRAM, error);
    domain_unref(d);
    return NULL;
}
WEB_OP(domain_undefine, .method = "DELETE", .path = "/domains/{name}",
       .summary = "Takes its definition away; its disks stay; a running one goes on until it ends", .call = do_undefine);

static const struct web_field set_fields[] = {
    { "memory", WEB_SIZE, false, 1 << 20, INT64_MAX, "what the guest has: now, and at the next start" },
    { "max_memory", WEB_SIZE, false, 1 << 20, INT64_MAX, "what the guest may have, at the next start" },
    { "vcpus", WEB_INT, false, 1, 4096, "vCPUs, at the next start" },
    { "autostart", WEB_BOOL, false, 0, 0, "start with the host" },
    { "title", WEB_STRING, false, 0, 0, "a short description" },
    { "description", WEB_STRING, false, 0, 0, "a long description" },
    { 0 },
};
enum { AFFECT_CURRENT = 0, AFFECT_LIVE = 1, AFFECT_CONFIG = 2, MEMORY_MAXIMUM = 4, VCPU_MAXIMUM = 4 };

static bool set_memory(const struct web_request *r, struct domain *d, GError **error)
{
    uint64_t max = (uint64_t)web_int(r, "max_memory", 0) / 1024, now = (uint64_t)web_int(r, "memory", 0) / 1024;
    if (max && !domain_set_memory(r->who, d, max, AFFECT_CONFIG | MEMORY_MAXIMUM, error))
        return false;
    if (now && d->persistent && !domain_set_memory(r->who, d, now, AFFECT_CONFIG, error))
        return false;
    return !now || !domain_is_active(d) || domain_set_memory(r->who, d, now, AFFECT_LIVE, error);
}

static bool set_vcpus(const struct web_request *r, struct domain *d, GError **error)
{
    int64_t vcpus = web_int(r, "vcpus", 0);
    if (!vcpus)
        return true;
    unsigned count = (unsigned)vcpus;
    if (!domain_set_vcpus(r->who, d, count, AFFECT_CONFIG | VCPU_MAXIMUM, error))
        return false;
    return !d->def || d->def->s.vcpus == count || domain_set_vcpus(r->who, d, count, AFFECT_CONFIG, error);
}

static bool set_text(const struct web_request *r, struct domain *d, const char *name, int type, GError **error)
{
    const char *text = web_text(r, name);
    return !text || domain_set_metadata(r->who, d, type, *text ? text : NULL, NULL, NULL,
                                        d->persistent ? AFFECT_CONFIG : AFFECT_CURRENT, error);
}

static JsonNode *do_set(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    JsonNode *node = NULL;
    if (d && set_memory(r, d, error) && set_vcpus(r, d, error) &&
        (!web_given(r, "autostart") || domain_set_autostart(r->who, d, web_bool(r, "autostart"), error)) &&
        set_text(r, d, "description", 0, error) && set_text(r, d, "title", 1, error))
        node = answer(r, d, error);
    domain_unref(d);
    return node;
}
WEB_OP(domain_set, .method = "PATCH", .path = "/domains/{name}", .summary = "Changes what a machine has", .fields = set_fields,
       .call = do_set);

static const struct web_field device_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "the device as libvirt's XML" },
    { "live", WEB_BOOL, false, 0, 0, "in the running machine" },
    { "config", WEB_BOOL, false, 0, 0, "from the next start on; the default for a machine that does not run" },
    { 0 },
};

static JsonNode *do_device(struct web_request *r, enum def_device_action action, GError **error)
{
    struct domain *d = find(r, error);
    unsigned affect = (web_bool(r, "live") ? AFFECT_LIVE : 0) | (web_bool(r, "config") ? AFFECT_CONFIG : 0);
    if (d)
        domain_device(r->who, d, action, web_text(r, "xml"), affect, error);
    domain_unref(d);
    return NULL;
}

static JsonNode *do_attach(struct web_request *r, GError **error)
{
    return do_device(r, DEF_ATTACH, error);
}
WEB_OP(domain_attach, .method = "POST", .path = "/domains/{name}/attach", .summary = "Adds a device", .fields = device_fields,
       .call = do_attach);

static JsonNode *do_detach(struct web_request *r, GError **error)
{
    return do_device(r, DEF_DETACH, error);
}
WEB_OP(domain_detach, .method = "POST", .path = "/domains/{name}/detach", .summary = "Takes a device away", .fields = device_fields,
       .call = do_detach);

static JsonNode *value_node(const struct param *p)
{
    JsonNode *node = json_node_new(JSON_NODE_VALUE);
    switch (p->type) {
    case PARAM_STRING:
        json_node_set_string(node, p->s);
        break;
    case PARAM_DOUBLE:
        json_node_set_double(node, p->d);
        break;
    case PARAM_BOOL:
        json_node_set_boolean(node, p->u != 0);
        break;
    default:
        json_node_set_int(node, p->type == PARAM_INT || p->type == PARAM_LLONG ? p->i : (int64_t)MIN(p->u, INT64_MAX));
    }
    return node;
}

static JsonNode *do_stats(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    struct param_list stats = { 0 };
    JsonNode *node = NULL;
    if (d && domain_stats(r->who, d, 0, 0, &stats, error)) {
        JsonObject *o = json_object_new();
        for (unsigned i = 0; i < stats.count; i++)
            json_object_set_member(o, stats.rows[i].name, value_node(&stats.rows[i]));
        node = web_node(o);
    }
    param_list_done(&stats);
    domain_unref(d);
    return node;
}
WEB_OP(domain_stats, .method = "GET", .path = "/domains/{name}/stats", .summary = "A machine's figures, by libvirt's names",
       .call = do_stats);

static JsonNode *do_dmesg(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    r->text_type = "text/plain; charset=utf-8";
    r->ret_text = d ? domain_dmesg(r->who, d, error) : NULL;
    domain_unref(d);
    return NULL;
}
WEB_OP(domain_dmesg, .method = "GET", .path = "/domains/{name}/dmesg", .summary = "What the guest wrote to its console last",
       .call = do_dmesg);

static JsonNode *do_log(struct web_request *r, GError **error)
{
    struct domain *d = find(r, error);
    r->text_type = "text/plain; charset=utf-8";
    r->ret_text = d ? domain_log(r->who, d, error) : NULL;
    domain_unref(d);
    return NULL;
}
WEB_OP(domain_log, .method = "GET", .path = "/domains/{name}/log", .summary = "How the machine's program was started, and what it said",
       .call = do_log);
