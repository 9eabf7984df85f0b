/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asking the guest agent. Thread: in a task. Trust: answers are the guest's. */
#include "libvirt/agent.h"

static char *command_text(const char *command, JsonObject *args)
{
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_string_member(o, "execute", command);
    if (args)
        json_object_set_object_member(o, "arguments", args);
    g_autoptr(JsonNode) n = json_node_init_object(json_node_alloc(), o);
    return json_to_string(n, FALSE);
}

JsonNode *agent_ask(struct rpc_call *c, struct domain *d, const char *command, JsonObject *args,
                    GError **error)
{
    g_autofree char *text = command_text(command, args);
    g_autofree char *answer = domain_agent_command(c->who, d, text, -1, error);
    if (!answer)
        return NULL;
    g_autoptr(JsonNode) n = json_from_string(answer, NULL);
    if (n && JSON_NODE_HOLDS_OBJECT(n) && json_object_has_member(json_node_get_object(n), "return"))
        return json_object_dup_member(json_node_get_object(n), "return");
    ruche_error(error, MANAGER_ERR_MACHINE,
                "the agent of domain '%s' answers %s with something else than a value: %.200s",
                domain_summary(d)->name, command, answer);
    return NULL;
}

JsonArray *agent_ask_list(struct rpc_call *c, struct domain *d, const char *command, GError **error)
{
    g_autoptr(JsonNode) n = agent_ask(c, d, command, NULL, error);
    if (!n)
        return NULL;
    if (JSON_NODE_HOLDS_ARRAY(n))
        return json_node_dup_array(n);
    ruche_error(error, MANAGER_ERR_MACHINE,
                "the agent of domain '%s' answers %s with something else than a list",
                domain_summary(d)->name, command);
    return NULL;
}

static JsonNode *member(JsonObject *o, const char *name)
{
    return o && json_object_has_member(o, name) ? json_object_get_member(o, name) : NULL;
}

static const char *text_of(JsonNode *n)
{
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING
               ? json_node_get_string(n)
               : NULL;
}

const char *agent_text(JsonObject *o, const char *name)
{
    return text_of(member(o, name));
}

const char *agent_text_at(JsonArray *a, unsigned i)
{
    return text_of(json_array_get_element(a, i));
}

int64_t agent_number(JsonObject *o, const char *name)
{
    JsonNode *n = member(o, name);
    if (!n || !JSON_NODE_HOLDS_VALUE(n))
        return 0;
    if (json_node_get_value_type(n) == G_TYPE_DOUBLE) {
        double v = json_node_get_double(n);
        return v > -9e18 && v < 9e18 ? (int64_t)v : 0;
    }
    return json_node_get_value_type(n) == G_TYPE_INT64 ? json_node_get_int(n) : 0;
}

bool agent_is(JsonObject *o, const char *name)
{
    JsonNode *n = member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_BOOLEAN &&
           json_node_get_boolean(n);
}

JsonArray *agent_list(JsonObject *o, const char *name)
{
    JsonNode *n = member(o, name);
    return n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
}

JsonObject *agent_object(JsonObject *o, const char *name)
{
    JsonNode *n = member(o, name);
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

JsonObject *agent_row(JsonArray *a, unsigned i)
{
    JsonNode *n = json_array_get_element(a, i);
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

unsigned agent_count(JsonArray *a)
{
    return a ? MIN(json_array_get_length(a), AGENT_ROWS_MAX) : 0;
}

char *agent_disk_target(struct domain *d, JsonObject *address)
{
    JsonObject *pci = agent_object(address, "pci-controller");
    if (!pci)
        return NULL;
    const struct guest_disk_place at = {
        .domain = (uint64_t)agent_number(pci, "domain"),
        .bus = (uint64_t)agent_number(pci, "bus"),
        .slot = (uint64_t)agent_number(pci, "slot"),
        .function = (uint64_t)agent_number(pci, "function"),
        .channel = (uint64_t)agent_number(address, "bus"),
        .target = (uint64_t)agent_number(address, "target"),
        .unit = (uint64_t)agent_number(address, "unit"),
    };
    return domain_disk_at(d, &at);
}
