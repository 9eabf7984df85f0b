/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vCPUs that come to a running machine and leave it. The n-th place that the emulator names, from
 * the end of its list, is vCPU n; what we plug in is called "vcpuN". Those that were there at the
 * start stay.
 *
 * Trust     The list is data of a process that its guest may have taken over: read by type.
 */
#include "manager/domain/vm_internal.h"
#include "manager/domain/vm_tune.h"

#include <string.h>

/* ---- places ---- */

enum place { PLACE_NONE, PLACE_FREE, PLACE_FIXED, PLACE_PLUGGED };

static JsonNode *ask_places(struct vm *v, GError **error)
{
    return vm_call(v, "query-hotpluggable-cpus", NULL, error);
}

static guint count_places(JsonNode *places)
{
    JsonArray *a = vm_json_array(places);
    return a ? MIN(json_array_get_length(a), VM_MAX_VCPUS) : 0;
}

static JsonObject *place_at(JsonNode *places, guint index)
{
    guint count = count_places(places);
    return index < count ? vm_json_at(vm_json_array(places), count - 1 - index) : NULL;
}

static enum place kind_of(JsonNode *places, guint index)
{
    JsonObject *o = place_at(places, index);
    const char *path = o ? vm_json_string(o, "qom-path") : NULL;
    if (!o)
        return PLACE_NONE;
    if (!path)
        return PLACE_FREE;
    return g_str_has_prefix(path, "/machine/peripheral/") ? PLACE_PLUGGED : PLACE_FIXED;
}

/* ---- one in, one out ---- */

static bool plug(struct vm *v, JsonNode *places, guint index, GError **error)
{
    JsonObject *o = place_at(places, index), *props = vm_json_sub(o, "props");
    const char *type = vm_json_string(o, "type");
    g_autofree char *id = g_strdup_printf("vcpu%u", index);
    if (!props || !type)
        return ruche_error(error, MANAGER_ERR_MACHINE,
                           "machine '%s': place %u of a vCPU has no type", v->name, index);
    JsonObject *args = vm_json("driver", 's', type, "id", 's', id, NULL);
    JsonObjectIter it;
    const char *name;
    JsonNode *value;
    json_object_iter_init(&it, props);
    while (json_object_iter_next(&it, &name, &value))
        json_object_set_member(args, name, json_node_copy(value));
    return vm_do(v, "device_add", args, error);
}

static bool unplug(struct vm *v, JsonNode *places, guint index, GError **error)
{
    const char *path = vm_json_string(place_at(places, index), "qom-path");
    bool gone = false;
    if (!vm_unplug(v, path + strlen("/machine/peripheral/"), true, &gone, error))
        return false;
    return gone ||
           ruche_error(error, MANAGER_ERR_TIMEOUT,
                       "machine '%s': vcpu unplug request timed out: the guest has not let go "
                       "of vCPU %u",
                       v->name, index);
}

/* Threads that came get the pins and limits of their kind. */
static bool settle(struct vm *v, bool ok, GError **error)
{
    if (!vm_read_threads(v, ok ? error : NULL))
        return false;
    struct xml_node *domain = v->d && v->d->live ? domain_def_tree(v->d->live) : NULL;
    return ok && (!domain ||
                  (vm_start_pins(v, domain, error) && vm_tune_scheduler.start(v, domain, error)));
}

/* ---- what is asked for ---- */

static unsigned count_taken(JsonNode *places)
{
    unsigned taken = 0;
    for (guint i = 0; i < count_places(places); i++)
        taken += kind_of(places, i) >= PLACE_FIXED;
    return taken;
}

static bool add_to(struct vm *v, JsonNode *places, unsigned count, GError **error)
{
    unsigned taken = count_taken(places);
    for (guint i = 0; i < count_places(places) && taken < count; i++) {
        if (kind_of(places, i) != PLACE_FREE)
            continue;
        if (!plug(v, places, i, error))
            return false;
        taken++;
    }
    return taken >= count || ruche_error(error, MANAGER_ERR_CONFIG,
                                         "machine '%s' has no place for %u vCPUs", v->name, count);
}

static bool take_to(struct vm *v, JsonNode *places, unsigned count, GError **error)
{
    unsigned taken = count_taken(places), plugged = 0;
    for (guint i = 0; i < count_places(places); i++)
        plugged += kind_of(places, i) == PLACE_PLUGGED;
    if (taken - plugged > count)
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "machine '%s': failed to find appropriate hotpluggable vcpus to reach %u: "
            "%u were there when it started",
            v->name, count, taken - plugged);
    for (guint i = count_places(places); i-- > 0 && taken > count;) {
        if (kind_of(places, i) != PLACE_PLUGGED)
            continue;
        if (!unplug(v, places, i, error))
            return false;
        taken--;
    }
    return true;
}

bool vm_set_vcpus(struct vm *v, unsigned count, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autoptr(JsonNode) places = ask_places(v, error);
    if (!places)
        return false;
    bool ok = count_taken(places) < count ? add_to(v, places, count, error)
                                          : take_to(v, places, count, error);
    return settle(keep, ok, error);
}

static bool set_one(struct vm *v, JsonNode *places, guint index, bool on, GError **error)
{
    switch (kind_of(places, index)) {
    case PLACE_FREE:
        return !on || plug(v, places, index, error);
    case PLACE_PLUGGED:
        return on || unplug(v, places, index, error);
    case PLACE_FIXED:
        return on || ruche_error(error, MANAGER_ERR_CONFIG,
                                 "machine '%s': vCPU %u was there when it started, and stays",
                                 v->name, index);
    default:
        return ruche_error(error, RUCHE_ERR_INVALID, "machine '%s' has no vCPU %u", v->name, index);
    }
}

bool vm_set_vcpu(struct vm *v, const uint8_t *map, unsigned len, bool on, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autoptr(JsonNode) places = ask_places(v, error);
    bool ok = places != NULL;
    for (guint i = 0; ok && i < len * 8; i++)
        ok = !(map[i / 8] >> i % 8 & 1) || set_one(v, places, i, on, error);
    return places && settle(keep, ok, error);
}

unsigned vm_vcpu_count(struct vm *v)
{
    auto_vm *keep = vm_ref(v);
    return vm_read_threads(keep, NULL) ? keep->vcpus->len : 0;
}
