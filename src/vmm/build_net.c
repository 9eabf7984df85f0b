/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks: -netdev, -nic, -net and the default one, into backends and their devices. */
#include "vmm/build.h"

#include "netdev/netdev.h"

#include <string.h>

#define DEFAULT_NIC "virtio-net-pci"

bool netdev_unknown(const char *name, GError **error)
{
    const char *names[32];
    size_t n = 0;
    for (const struct netdev_type *const *t = netdev_type_list(); *t && n < G_N_ELEMENTS(names) - 1;
         t++)
        names[n++] = (*t)->name;
    names[n] = NULL;
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown network backend '%s'%s", name,
                       suggest_phrase(name, names));
}

static bool type_known(const char *name)
{
    for (const struct netdev_type *const *t = netdev_type_list(); *t; t++)
        if (!strcmp((*t)->name, name))
            return true;
    return false;
}

/* JSON lists come as "hostfwd.0.str": back to a repeated "hostfwd". */
static char *plain_name(const char *key)
{
    const char *dot = strchr(key, '.');
    return dot && g_ascii_isdigit(dot[1]) ? g_strndup(key, dot - key) : g_strdup(key);
}

/* All pairs but those named in `not_these` go to the backend. */
static struct netdev *make_netdev(struct vmm *v, struct kv_list *l, const char *id,
                                  const char *const *not_these, GError **error)
{
    const char *type = kv_get(l, "type");
    if (!type_known(type)) {
        netdev_unknown(type, error);
        return NULL;
    }
    for (guint i = 0; i < v->netdevs->len; i++)
        if (!strcmp(((struct netdev *)g_ptr_array_index(v->netdevs, i))->id, id)) {
            ruche_error(error, RUCHE_ERR_EXISTS, "the id '%s' is taken", id);
            return NULL;
        }
    g_autofree struct netdev_option *options = g_new0(struct netdev_option, l->count + 1);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (g_strv_contains(not_these, l->pairs[i].key))
            continue;
        char *name = plain_name(l->pairs[i].key);
        g_ptr_array_add(names, name);
        options[n++] = (struct netdev_option){ .name = name, .value = l->pairs[i].value };
    }
    const char *chardev = kv_get(l, "chardev");
    struct netdev_config config = { options, n, chardev ? vmm_find_chardev(v, chardev) : NULL };
    if (chardev && !config.chardev) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "netdev '%s': there is no chardev '%s'", id, chardev);
        return NULL;
    }
    struct netdev *net = netdev_new(type, id, &config, error);
    if (net)
        g_ptr_array_add(v->netdevs, net);
    return net;
}

struct netdev *build_netdev(struct vmm *v, struct kv_list *l, GError **error)
{
    static const char *const netdev_keys[] = { "type", "id", NULL };
    return make_netdev(v, l, kv_get(l, "id"), netdev_keys, error);
}

/* ---- backends ---- */

static const char *const nic_keys[] = { "type", "id",      "model", "mac", "macaddr",
                                        "addr", "vectors", "name",  NULL };

static bool make_nic_backend(struct vmm *v, struct kv_list *l, unsigned index, GError **error)
{
    const char *id = kv_get(l, "id");
    g_autofree char *name = id ? g_strdup(id) : g_strdup_printf("nic%u", index);
    return !strcmp(kv_get(l, "type"), "none") || make_netdev(v, l, name, nic_keys, error);
}

/* "-net nic -net user" are two halves of one -nic. */
static bool join_nets(struct vmm *v, GError **error)
{
    struct kv_list *nic = NULL, *backend = NULL;
    for (guint i = 0; i < v->options.nets->len; i++) {
        struct kv_list *l = g_ptr_array_index(v->options.nets, i);
        const char *type = kv_get(l, "type");
        if (!type)
            return ruche_error(error, RUCHE_ERR_INVALID, "-net: a type is missing");
        if (!strcmp(type, "none"))
            return true;
        struct kv_list **half = !strcmp(type, "nic") ? &nic : &backend;
        if (*half)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "-net: only one 'nic' and one backend; use -nic");
        *half = l;
    }
    if (!nic || !backend)
        return true; /* a card without a cable, or a cable without a card */
    for (size_t i = 0; i < nic->count; i++)
        if (strcmp(nic->pairs[i].key, "type") &&
            !kv_add(backend, nic->pairs[i].key, nic->pairs[i].value, error))
            return false;
    g_ptr_array_remove(v->options.nets, nic); /* frees it */
    guint at;
    if (g_ptr_array_find(v->options.nets, backend, &at))
        g_ptr_array_add(v->options.nics, g_ptr_array_steal_index(v->options.nets, at));
    return true;
}

static bool add_default_nic(struct vmm *v, GError **error)
{
    const struct vm_options *o = &v->options;
    if (o->nodefaults || o->netdevs->len || o->nics->len || o->nets->len)
        return true;
    return option_add_kv(o->nics, "user", "type", error);
}

bool build_netdevs(struct vmm *v, GError **error)
{
    if (!add_default_nic(v, error) || !join_nets(v, error))
        return false;
    for (guint i = 0; i < v->options.netdevs->len; i++) {
        struct kv_list *l = g_ptr_array_index(v->options.netdevs, i);
        if (!build_netdev(v, l, error)) {
            g_prefix_error(error, "-netdev: ");
            return false;
        }
    }
    for (guint i = 0; i < v->options.nics->len; i++)
        if (!make_nic_backend(v, g_ptr_array_index(v->options.nics, i), i, error)) {
            g_prefix_error(error, "-nic: ");
            return false;
        }
    return true;
}

/* ---- devices ---- */

static bool make_nic_device(struct vmm *v, struct kv_list *from, unsigned index, GError **error)
{
    const char *model = kv_get(from, "model"), *id = kv_get(from, "id"), *mac = kv_get(from, "mac");
    if (!strcmp(kv_get(from, "type"), "none"))
        return true;
    if (!mac)
        mac = kv_get(from, "macaddr");
    g_autofree char *name = id ? g_strdup(id) : g_strdup_printf("nic%u", index);
    auto_kv *l = kv_parse("", NULL, error);
    bool plain = !model || !strcmp(model, "virtio");
    if (!kv_add(l, "driver", plain ? DEFAULT_NIC : model, error) ||
        !kv_add(l, "netdev", name, error) || (mac && !kv_add(l, "mac", mac, error)) ||
        (kv_get(from, "addr") && !kv_add(l, "addr", kv_get(from, "addr"), error)))
        return false;
    return build_device(v, l, error);
}

bool build_nic_devices(struct vmm *v, GError **error)
{
    for (guint i = 0; i < v->options.nics->len; i++)
        if (!make_nic_device(v, g_ptr_array_index(v->options.nics, i), i, error)) {
            g_prefix_error(error, "-nic: ");
            return false;
        }
    return true;
}
