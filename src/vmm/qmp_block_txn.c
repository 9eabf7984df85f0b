/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: `transaction`: actions on disks that happen together or not at all, at one moment for the
 * guest.
 *
 * All disks stand still from before the first action is prepared until the last is committed.
 */
#include "vmm/block.h"

#include <string.h>

static struct block_action *action_new(struct vmm *v, const struct block_action_type *t)
{
    struct block_action *a = g_malloc0(t->size);
    a->type = t;
    a->vmm = v;
    return a;
}

static void action_end(struct block_action *a, bool ok)
{
    void (*end)(struct block_action * a) = ok ? a->type->commit : a->type->abort;
    if (end)
        end(a);
}

static void action_free(struct block_action *a)
{
    if (a->type->clean)
        a->type->clean(a);
    g_free(a);
}

JsonNode *block_action_run(struct vmm *v, const struct block_action_type *t, JsonObject *data,
                           GError **error)
{
    struct block_action *a = action_new(v, t);
    bool ok = t->prepare(a, data, error);
    action_end(a, ok);
    JsonNode *result = a->result;
    action_free(a);
    return result;
}

static const struct block_action_type *find_type(const char *name, GError **error)
{
    const char *names[32];
    size_t n = 0;
    LINKSET_FOREACH (block_actions, struct block_action_type, t) {
        if (!strcmp(t->name, name))
            return t;
        if (n < G_N_ELEMENTS(names) - 1)
            names[n++] = t->name;
    }
    names[n] = NULL;
    ruche_error(error, RUCHE_ERR_UNKNOWN, "transaction: there is no action '%s'%s", name,
                suggest_phrase(name, names));
    return NULL;
}

/* {"type": ..., "data": {...}} */
static struct block_action *parse_action(struct vmm *v, JsonNode *n, JsonObject **ret_data,
                                         GError **error)
{
    JsonObject *o = JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
    const char *name = o ? arg_string(o, "type") : NULL;
    JsonNode *data = o ? json_object_get_member(o, "data") : NULL;
    if (!name || !data || !JSON_NODE_HOLDS_OBJECT(data)) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "transaction: an action has a 'type' and an object 'data'");
        return NULL;
    }
    const struct block_action_type *t = find_type(name, error);
    *ret_data = json_node_get_object(data);
    const struct qmp_command shape = { .name = name, .args = t ? t->args : NULL };
    if (!t || !qmp_check_args(&shape, *ret_data, error))
        return NULL;
    return action_new(v, t);
}

/* Prepares all; stops at the first that cannot be. */
static bool prepare_all(struct vmm *v, JsonArray *list, struct job_transaction *txn,
                        GPtrArray *actions, GError **error)
{
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *data;
        struct block_action *a = parse_action(v, json_array_get_element(list, i), &data, error);
        if (!a)
            return false;
        a->txn = txn;
        a->hold = true;
        g_ptr_array_add(actions, a);
        if (!a->type->prepare(a, data, error))
            return false;
    }
    return true;
}

/* Undone in the reverse order. */
static void end_all(GPtrArray *actions, bool ok)
{
    for (guint i = 0; i < actions->len; i++)
        action_end(g_ptr_array_index(actions, ok ? i : actions->len - 1 - i), ok);
    for (guint i = 0; i < actions->len; i++)
        action_free(g_ptr_array_index(actions, i));
    g_ptr_array_unref(actions);
}

#define ACTIONS_MAX 1024

static JsonNode *transaction(void *opaque, JsonObject *args, GError **error)
{
    static const char *const modes[] = { "individual", "grouped", NULL };
    struct vmm *v = opaque;
    JsonArray *list = json_object_get_array_member(args, "actions");
    JsonNode *properties = json_object_get_member(args, "properties");
    int mode = 0;
    if (properties &&
        !arg_word(json_node_get_object(properties), "completion-mode", modes, &mode, error))
        return NULL;
    if (json_array_get_length(list) > ACTIONS_MAX) {
        ruche_error(error, RUCHE_ERR_INVALID, "transaction: more than %d actions", ACTIONS_MAX);
        return NULL;
    }
    struct job_transaction *txn = mode ? job_transaction_new() : NULL;
    GPtrArray *actions = g_ptr_array_new(), *drained = block_drain_all(v);
    end_all(actions, prepare_all(v, list, txn, actions, error));
    block_drain_all_end(drained);
    job_transaction_put(txn);
    return NULL;
}
static const struct qmp_arg transaction_args[] = {
    { "actions", QMP_ARRAY, false, "{type, data} each" },
    { "properties", QMP_OBJECT, true,
      "completion-mode: individual, or grouped: jobs succeed or fail together" },
    { 0 },
};
static const struct qmp_command transaction_cmd = {
    .name = "transaction",
    .summary = "Actions on disks, all or none, at one moment",
    .args = transaction_args,
    .call = transaction,
};
QMP_COMMAND(transaction_cmd);

/* ---- abort: for tests of what others undo ---- */

static bool prepare_abort(struct block_action *a, JsonObject *data, GError **error)
{
    return ruche_error(error, RUCHE_ERR_STATE, "transaction: aborted, as asked");
}

static const struct block_action_type abort_action = { .name = "abort",
                                                       .size = sizeof(struct block_action),
                                                       .prepare = prepare_abort };
BLOCK_ACTION(abort_action);
