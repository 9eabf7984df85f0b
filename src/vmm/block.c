/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How commands name nodes and disks, and helpers for their arguments. */
#include "vmm/block.h"

#include "image/driver.h"

#include <string.h>

const char *const on_error_words[] = { "report", "ignore", "stop", "enospc", "auto", NULL };

bool arg_u64(JsonObject *args, const char *name, uint64_t max, uint64_t *ret, GError **error)
{
    if (!json_object_has_member(args, name))
        return true;
    gint64 value = json_object_get_int_member(args, name);
    if (value < 0 || (uint64_t)value > max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' is %" G_GINT64_FORMAT
                           ", not a number from 0 to %" G_GUINT64_FORMAT,
                           name, value, max);
    *ret = (uint64_t)value;
    return true;
}

bool arg_word(JsonObject *args, const char *name, const char *const *words, int *ret,
              GError **error)
{
    const char *text = arg_string(args, name);
    if (!json_object_has_member(args, name))
        return true;
    for (int i = 0; text && words[i]; i++)
        if (!strcmp(words[i], text)) {
            *ret = i;
            return true;
        }
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' cannot be '%s'%s", name,
                       text ? text : "(no text)", text ? suggest_phrase(text, words) : "");
}

/* A device is named by its id, or by its path, as query-block's "qdev" says. */
static bool is_device(const struct vmm *v, const struct vm_drive *d, const char *name)
{
    const char *user = image_attached_to(d->image);
    if (!user)
        return false;
    if (!strcmp(user, name))
        return true;
    const struct device *device = machine_find_device(v->machine, name);
    return device && device->path && !strcmp(device->path, user);
}

struct vm_drive *block_drive(struct vmm *v, const char *device, GError **error)
{
    struct vm_drive *d = vmm_find_drive(v, device);
    for (guint i = 0; !d && i < v->drives->len; i++)
        if (is_device(v, g_ptr_array_index(v->drives, i), device))
            d = g_ptr_array_index(v->drives, i);
    if (!d)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no disk '%s'", device);
    return d;
}

struct node *block_node(struct vmm *v, const char *device, const char *node_name, GError **error)
{
    const char *name = node_name ? node_name : device;
    if (!name) {
        ruche_error(error, RUCHE_ERR_INVALID, "'device' or 'node-name' is missing");
        return NULL;
    }
    struct vm_drive *d = node_name ? NULL : block_drive(v, device, NULL);
    struct node *n = d ? image_node(d->image) : graph_find(v->graph, name);
    if (!n)
        ruche_error(error, RUCHE_ERR_NOT_FOUND,
                    d ? "disk '%s' has no medium" : "there is no disk or node '%s'", name);
    return n;
}

struct vm_drive *block_drive_of(struct vmm *v, struct node *n)
{
    for (guint i = 0; n && i < v->drives->len; i++) {
        struct vm_drive *d = g_ptr_array_index(v->drives, i);
        struct node *top = image_node(d->image);
        if (top && (top == n || node_skip_filters(top) == node_skip_filters(n)))
            return d;
    }
    return NULL;
}

struct node *block_shown_node(const struct vm_drive *d)
{
    struct node *n = image_node(d->image);
    while (n && n->driver->kind == DRIVER_FILTER && node_name(n)[0] == '#' && node_file(n))
        n = node_file(n);
    return n;
}

const char *block_device_name(struct vmm *v, struct node *n)
{
    const struct vm_drive *d = block_drive_of(v, n);
    return d && d->is_drive ? d->id : "";
}

int block_run(struct node *n, int (*fn)(void *opaque), void *opaque)
{
    return context_run(node_context(n), fn, opaque);
}

/* ---- all disks at one moment ---- */

static int drain_begin(void *n)
{
    node_drain_begin(n);
    return 0;
}

static int drain_end(void *n)
{
    node_drain_end(n);
    return 0;
}

GPtrArray *block_drain_all(struct vmm *v)
{
    GPtrArray *drained = g_ptr_array_new();
    for (guint i = 0; i < v->drives->len; i++) {
        struct node *n = image_node(((struct vm_drive *)g_ptr_array_index(v->drives, i))->image);
        if (!n)
            continue;
        g_ptr_array_add(drained, node_ref(n));
        block_run(n, drain_begin, n);
    }
    return drained;
}

void block_drain_all_end(GPtrArray *drained)
{
    for (guint i = 0; i < drained->len; i++) {
        struct node *n = g_ptr_array_index(drained, i);
        block_run(n, drain_end, n);
        node_unref(n);
    }
    g_ptr_array_unref(drained);
}
