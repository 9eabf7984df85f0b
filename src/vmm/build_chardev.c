/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character backends: -chardev, -serial, the console of -nographic, and the serial ports. */
#include "vmm/build.h"

#include "chardev/chardev.h"
#include "vmm/monitor.h"

#include <string.h>

struct chardev *vmm_find_chardev(struct vmm *v, const char *id)
{
    for (guint i = 0; i < v->chardevs->len; i++) {
        struct chardev *c = g_ptr_array_index(v->chardevs, i);
        if (!strcmp(chardev_id(c), id))
            return c;
    }
    return NULL;
}

static void leave(void *opaque)
{
    run_quit(opaque, CAUSE_CONSOLE);
}

static void add_chardev(struct vmm *v, struct chardev *c)
{
    chardev_on_quit(c, leave, v);
    g_ptr_array_add(v->chardevs, c);
}

struct chardev *build_chardev_alone(struct vmm *v, struct kv_list *l, GError **error)
{
    g_autofree struct chardev_option *options = g_new0(struct chardev_option, l->count + 1);
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++) {
        const char *key = l->pairs[i].key;
        if (strcmp(key, "backend") && strcmp(key, "id"))
            options[n++] = (struct chardev_option){ .name = key, .value = l->pairs[i].value };
    }
    return chardev_new(kv_get(l, "backend"), kv_get(l, "id"), &(struct chardev_config){ options, n },
                       v->loop, error);
}

struct chardev *build_chardev(struct vmm *v, struct kv_list *l, GError **error)
{
    const char *id = kv_get(l, "id");
    if (vmm_find_chardev(v, id)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "the id '%s' is taken", id);
        return NULL;
    }
    struct chardev *c = build_chardev_alone(v, l, error);
    if (c)
        add_chardev(v, c);
    return c;
}

struct chardev *build_short_chardev(struct vmm *v, const char *spec, const char *id,
                                    bool *ret_monitor, GError **error)
{
    if (g_str_has_prefix(spec, "chardev:")) {
        struct chardev *c = vmm_find_chardev(v, spec + 8);
        if (!c)
            ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no chardev '%s'", spec + 8);
        return c;
    }
    struct chardev *c = chardev_parse(spec, id, v->loop, ret_monitor, error);
    if (c)
        add_chardev(v, c);
    return c;
}

static bool add_serial(struct vmm *v, unsigned index, const char *spec, GError **error)
{
    GError *local = NULL;
    bool monitor = false;
    g_autofree char *id = g_strdup_printf("serial%u", index);
    struct chardev *c = build_short_chardev(v, spec, id, &monitor, &local);
    if (local) {
        g_propagate_prefixed_error(error, local, "-serial: ");
        return false;
    }
    if (!c)
        return true;
    /* A port remembers its backend by id: the list keeps "chardev:ID" for build_serial_ports(). */
    g_free(v->options.serials->pdata[index]);
    v->options.serials->pdata[index] = g_strdup_printf("chardev:%s", chardev_id(c));
    if (monitor) {
        struct monitor_text *m = g_new(struct monitor_text, 1);
        *m = (struct monitor_text){ .spec = g_strdup_printf("chardev:%s", chardev_id(c)),
                                    .qmp = false };
        g_ptr_array_add(v->options.monitors, m);
    }
    return true;
}

/* Without -nodefaults there is a serial port: on the terminal with -nographic, else to nowhere. */
static void add_default_serial(struct vmm *v)
{
    const struct vm_options *o = &v->options;
    if (o->serials->len || o->nodefaults || !v->config.isa_serial)
        return;
    bool terminal = o->nographic;
    for (guint i = 0; i < o->monitors->len; i++)
        if (g_str_has_prefix(((struct monitor_text *)g_ptr_array_index(o->monitors, i))->spec,
                             "stdio"))
            terminal = false;
    for (guint i = 0; i < v->chardevs->len; i++) /* -chardev stdio has the terminal */
        if (g_str_has_prefix(chardev_id(g_ptr_array_index(v->chardevs, i)), "stdio"))
            terminal = false;
    const char *with_monitor = o->no_monitor ? "stdio,signal=off,mux=on" : "mon:stdio";
    g_ptr_array_add(o->serials, g_strdup(terminal ? with_monitor : "null"));
}

bool build_chardevs(struct vmm *v, GError **error)
{
    for (guint i = 0; i < v->options.chardevs->len; i++)
        if (!build_chardev(v, g_ptr_array_index(v->options.chardevs, i), error)) {
            g_prefix_error(error, "-chardev: ");
            return false;
        }
    add_default_serial(v);
    for (guint i = 0; i < v->options.serials->len; i++)
        if (!add_serial(v, i, g_ptr_array_index(v->options.serials, i), error))
            return false;
    return true;
}

bool build_serial_ports(struct vmm *v, GError **error)
{
    for (guint i = 0; v->machine->config.isa_serial && i < v->options.serials->len; i++) {
        const char *spec = g_ptr_array_index(v->options.serials, i);
        if (!strcmp(spec, "none"))
            continue;
        g_autofree char *index = g_strdup_printf("%u", i);
        if (!device_make(v->machine, "isa-serial", error, "chardev", spec + strlen("chardev:"),
                         "index", index, NULL)) {
            g_prefix_error(error, "-serial: ");
            return false;
        }
    }
    return true;
}
