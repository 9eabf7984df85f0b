/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks: -drive and -blockdev into nodes and images, and the devices that if=virtio makes.
 *
 * A -blockdev is a node that the user owns; it becomes a disk when a device names it. A -drive is a
 * disk at once, and owns its nodes.
 */
#include "vmm/block.h"

#include "image/driver.h"
#include "machine/backends.h"

#include <string.h>

void vm_drive_free(gpointer drive)
{
    struct vm_drive *d = drive;
    image_close(d->image);
    g_free(d->id);
    g_free(d->serial);
    g_free(d);
}

struct vm_drive *vmm_find_drive(struct vmm *v, const char *id)
{
    for (guint i = 0; i < v->drives->len; i++) {
        struct vm_drive *d = g_ptr_array_index(v->drives, i);
        if (!strcmp(d->id, id))
            return d;
    }
    return NULL;
}

static bool make_graph(struct vmm *v, GError **error)
{
    v->image_context = context_get(v->loop);
    if (!v->image_context)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory or descriptors for disk I/O");
    v->graph = graph_new(v->image_context);
    struct job_listener l = block_job_listener;
    l.opaque = v;
    v->jobs = job_set_new(v->loop, &l);
    block_events_init(v);
    return true;
}

struct node *block_open_node(struct vmm *v, JsonObject *options, unsigned flags, GError **error)
{
    g_autoptr(GError) why = NULL;
    bool expected = v->options.incoming && (!v->machine || v->machine->state == RUN_INMIGRATE);
    struct node *n = node_open(v->graph, options, flags, &why);
    if (!n && expected && flags & NODE_RW)
        n = node_open(v->graph, options, flags | NODE_INACTIVE, NULL);
    if (!n)
        g_propagate_error(error, g_steal_pointer(&why));
    return n;
}

struct node *block_add_node(struct vmm *v, JsonObject *options, GError **error)
{
    const char *name = arg_string(options, "node-name");
    if (!name) {
        ruche_error(error, RUCHE_ERR_INVALID, "'node-name' is missing");
        return NULL;
    }
    if (vmm_find_drive(v, name)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "the name '%s' is taken by a drive", name);
        return NULL;
    }
    struct node *n = block_open_node(v, options, NODE_RW, error);
    if (n)
        n->user_ref = true; /* the reference is the user's, until blockdev-del */
    return n;
}

bool build_drives(struct vmm *v, GError **error)
{
    if (!make_graph(v, error))
        return false;
    for (guint i = 0; i < v->options.blockdevs->len; i++)
        if (!block_add_node(v, g_ptr_array_index(v->options.blockdevs, i), error)) {
            g_prefix_error(error, "-blockdev: ");
            return false;
        }
    for (guint i = 0; i < v->options.drives->len; i++)
        if (!drive_open(v, g_ptr_array_index(v->options.drives, i), i, error)) {
            g_prefix_error(error, "-drive: ");
            return false;
        }
    return true;
}

/* ---- devices ---- */

bool build_drive_devices(struct vmm *v, GError **error)
{
    for (guint i = 0, n = 0; i < v->drives->len; i++) {
        struct vm_drive *d = g_ptr_array_index(v->drives, i);
        if (!d->is_drive)
            continue;
        struct kv_list *from = g_ptr_array_index(v->options.drives, n++);
        const char *bus = kv_get(from, "if");
        if (bus && !strcmp(bus, "none"))
            continue;
        auto_kv *l = kv_parse("driver=virtio-blk-pci", NULL, error);
        if (!kv_add(l, "drive", d->id, error) || !build_device(v, l, error)) {
            g_prefix_error(error, "-drive: ");
            return false;
        }
    }
    return true;
}

static bool has_prop(const struct device *d, const char *name)
{
    for (const struct prop *p = d->type->props; p && p->name; p++)
        if (!strcmp(p->name, name))
            return true;
    return false;
}

/* A node becomes a disk when a device asks for it. */
static bool adopt_node(struct vmm *v, const char *name, GError **error)
{
    struct node *n = graph_find(v->graph, name);
    if (!n)
        return true; /* the device says that there is none */
    struct image *i = image_new(name, n, error);
    if (!i)
        return false;
    struct vm_drive *d = g_new0(struct vm_drive, 1);
    d->id = g_strdup(name);
    d->image = i;
    g_ptr_array_add(v->drives, d);
    backend_add(v->machine, BACKEND_IMAGE, d->id, d->image);
    return true;
}

char *build_drive_of(const struct device *d)
{
    char *id = has_prop(d, "drive") ? device_get(d, "drive") : NULL;
    if (id && !*id)
        g_clear_pointer(&id, g_free);
    return id;
}

void build_forget_drive(struct vmm *v, const char *id)
{
    struct vm_drive *d = vmm_find_drive(v, id);
    if (!d || image_attached_to(d->image))
        return;
    backend_remove(v->machine, BACKEND_IMAGE, id);
    g_ptr_array_remove(v->drives, d);
}

static const char *const on_error_props[] = { "rerror", "werror" };

/* rerror= and werror= of the device hold over the drive's. */
static bool set_on_error(struct device *d, struct image *i, GError **error)
{
    enum image_on_error policy[2];
    image_get_on_error(i, &policy[0], &policy[1]);
    for (size_t k = 0; k < G_N_ELEMENTS(on_error_props); k++) {
        g_autofree char *word =
            has_prop(d, on_error_props[k]) ? device_get(d, on_error_props[k]) : NULL;
        for (int p = 0; word && p <= IMAGE_ERROR_ENOSPC; p++)
            if (!strcmp(word, on_error_words[p]))
                policy[k] = (enum image_on_error)p;
    }
    image_set_on_error(i, policy[0], policy[1]);
    return true;
}

bool build_drive_defaults(struct vmm *v, struct device *d, const struct kv_list *given,
                          GError **error)
{
    g_autofree char *id = build_drive_of(d);
    if (!id)
        return true;
    if (!vmm_find_drive(v, id) && !adopt_node(v, id, error))
        return false;
    struct vm_drive *drive = vmm_find_drive(v, id);
    if (!drive)
        return true;
    const struct {
        const char *prop, *value;
    } wishes[] = { { "serial", drive->serial },
                   { "write-cache", image_is_writethrough(drive->image) ? "off" : NULL } };
    for (size_t i = 0; i < G_N_ELEMENTS(wishes); i++)
        if (wishes[i].value && has_prop(d, wishes[i].prop) && !kv_has(given, wishes[i].prop) &&
            !device_set(d, wishes[i].prop, wishes[i].value, error))
            return false;
    return set_on_error(d, drive->image, error);
}
