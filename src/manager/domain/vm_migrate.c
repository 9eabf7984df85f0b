/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine is told before and while it migrates.
 *
 * Spec      QEMU's QMP: migrate-set-capabilities, migrate-set-parameters, query-migrate-parameters.
 * Thread: the loop thread.
 */
#include "manager/domain/vm_internal.h"

static const struct {
    const char *name;
    unsigned flag; /* 0: always */
} capabilities[] = {
    {"return-path", 0}, /* done is what the other side says that it has */
    {"events", 0},
    {"xbzrle", VM_MIGRATE_COMPRESSED},
    {"auto-converge", VM_MIGRATE_AUTO_CONVERGE},
};

bool vm_migrate_prepare(struct vm *v, unsigned migrate_flags, GError **error)
{
    JsonArray *list = json_array_new();
    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        unsigned flag = capabilities[i].flag;
        json_array_add_object_element(list,
                                      vm_json("capability", 's', capabilities[i].name, "state", 'b',
                                              !flag || (migrate_flags & flag), NULL));
    }
    return vm_do(v, "migrate-set-capabilities", vm_json("capabilities", 'a', list, NULL), error);
}

static bool set(struct vm *v, const char *name, uint64_t value, GError **error)
{
    return vm_do(v, "migrate-set-parameters", vm_json(name, 'i', (int64_t)value, NULL), error);
}

static bool get(struct vm *v, const char *name, uint64_t *ret, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autoptr(JsonNode) n = vm_call(v, "query-migrate-parameters", NULL, error);
    int64_t value = vm_json_int(vm_json_object(n), name, -1);
    if (!n)
        return false;
    if (value < 0)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "machine '%s': it does not tell its '%s'",
                           keep->name, name);
    *ret = (uint64_t)value;
    return true;
}

bool vm_migrate_set_downtime(struct vm *v, uint64_t ms, GError **error)
{
    return set(v, "downtime-limit", ms, error);
}

bool vm_migrate_get_downtime(struct vm *v, uint64_t *ret, GError **error)
{
    return get(v, "downtime-limit", ret, error);
}

static bool compresses(const struct vm *v, GError **error)
{
    return !v->ours ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "machine '%s': compressed migration is not possible with ruche-vmm",
                       v->name);
}

bool vm_migrate_set_cache(struct vm *v, uint64_t bytes, GError **error)
{
    return compresses(v, error) && set(v, "xbzrle-cache-size", bytes, error);
}

bool vm_migrate_get_cache(struct vm *v, uint64_t *ret, GError **error)
{
    return compresses(v, error) && get(v, "xbzrle-cache-size", ret, error);
}
