/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine from its options: configuration, devices, order; see build.h. */
#include "vmm/block.h"

#include "base/log.h"
#include "base/units.h"
#include "chardev/chardev.h"
#include "image/image.h"
#include "image/node.h"
#include "machine/backends.h"
#include "machine/fw_cfg.h"
#include "netdev/netdev.h"
#include "vmm/hotplug.h"
#include "vmm/dump.h"
#include "vmm/migrate.h"
#include "vmm/monitor.h"

#include <string.h>

/* ---- -machine ---- */

bool board_unknown(const char *name, GError **error)
{
    const char *names[16];
    size_t n = 0;
    for (const struct board_type *const *b = board_type_list(); *b && n < G_N_ELEMENTS(names) - 1;
         b++)
        names[n++] = (*b)->name;
    names[n] = NULL;
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown board '%s'%s", name,
                       suggest_phrase(name, names));
}

/* Properties that QEMU's machines have and command lines carry; what we can say yes to (NULL:
 * anything). */
static const struct {
    const char *name;
    const char *values;
} tolerated[] = {
    { "usb", "off" },           { "vmport", "off|auto" },     { "dump-guest-core", NULL },
    { "mem-merge", NULL },      { "smm", "off|auto" },        { "smbus", NULL },
    { "sata", "off" },          { "kernel-irqchip", NULL },   { "kernel_irqchip", NULL },
    { "nvdimm", "off" },        { "hmat", "off" },            { "memory-encryption", "" },
    { "suppress-vmdesc", NULL }, { "default-bus-bypass-iommu", "off" }, { "x-option-roms", "off" },
    { "option-roms", "off" },   { "auto-kernel-cmdline", NULL }, { "pcie", "on" },
    { "ioapic2", "off" },       { "i8042", "on" },            { "fd-bootchk", NULL },
};

static const struct prop *board_prop(const struct board_type *b, const char *name)
{
    for (const struct prop *p = b->props; p && p->name; p++)
        if (!strcmp(p->name, name))
            return p;
    return NULL;
}

static bool unknown_machine_prop(const struct board_type *b, const char *key, GError **error)
{
    const char *names[96];
    size_t n = 0;
    for (const struct prop *p = b->props; p && p->name && n < 48; p++)
        names[n++] = p->name;
    for (size_t i = 0; i < G_N_ELEMENTS(tolerated); i++)
        names[n++] = tolerated[i].name;
    names[n++] = "accel";
    names[n++] = "memory-backend";
    names[n] = NULL;
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "-machine: board '%s' has no property '%s'%s",
                       b->name, key, suggest_phrase(key, names));
}

static bool set_machine_prop(struct vmm *v, const struct kv *pair, GError **error)
{
    const struct prop *p = board_prop(v->board, pair->key);
    if (p)
        return prop_parse(p, &v->config, "-machine", pair->value, error);
    for (size_t i = 0; i < G_N_ELEMENTS(tolerated); i++) {
        if (strcmp(pair->key, tolerated[i].name))
            continue;
        g_auto(GStrv) allowed =
            tolerated[i].values ? g_strsplit(tolerated[i].values, "|", 0) : NULL;
        if (!allowed || g_strv_contains((const char *const *)allowed, pair->value))
            return true;
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "-machine: '%s=%s' is not possible here; only '%s' is", pair->key,
                           pair->value, tolerated[i].values);
    }
    return unknown_machine_prop(v->board, pair->key, error);
}

/* -machine accel= stands before -accel, as the older form. */
static void set_accel(struct vmm *v, const char *names)
{
    struct vm_options *o = &v->options;
    if (o->accel || !names)
        return;
    o->accel = g_strdup(!strcmp(names, "tcg") ? "soft" : names);
}

static bool apply_machine(struct vmm *v, GError **error)
{
    struct kv_list *l = v->options.machine;
    const char *type = l ? kv_get(l, "type") : NULL;
    v->board = board_type_find(type ? type : DEFAULT_BOARD);
    if (!v->board) {
        board_unknown(type ? type : DEFAULT_BOARD, error);
        g_prefix_error(error, "-machine: ");
        return false;
    }
    for (size_t i = 0; l && i < l->count; i++) {
        const char *key = l->pairs[i].key;
        if (!strcmp(key, "type") || !strcmp(key, "memory-backend"))
            continue;
        if (!strcmp(key, "accel"))
            set_accel(v, l->pairs[i].value);
        else if (!set_machine_prop(v, &l->pairs[i], error))
            return false;
    }
    return true;
}

/* ---- struct machine_config ---- */

static bool add_globals(struct vmm *v, GError **error)
{
    struct global_prop **tail = &v->globals;
    for (guint i = 0; i < v->options.globals->len; i++) {
        struct kv_list *l = g_ptr_array_index(v->options.globals, i);
        struct global_prop *g = g_new0(struct global_prop, 1);
        g->driver = kv_get(l, "driver");
        g->prop = kv_get(l, "property");
        g->value = kv_get(l, "value");
        *tail = g;
        tail = &g->next;
    }
    v->config.globals = v->globals;
    return true;
}

static void add_smbios(struct vmm *v)
{
    struct smbios_field **tail = &v->smbios;
    for (guint i = 0; i < v->options.smbios->len; i++) {
        struct kv_list *l = g_ptr_array_index(v->options.smbios, i);
        uint64_t type = 0;
        kv_get_u64(l, "type", 0, 255, &type, NULL);
        for (size_t k = 0; k < l->count; k++) {
            if (!strcmp(l->pairs[k].key, "type") || !strcmp(l->pairs[k].key, "uuid"))
                continue;
            struct smbios_field *f = g_new0(struct smbios_field, 1);
            *f = (struct smbios_field){ .type = type,
                                        .key = l->pairs[k].key,
                                        .value = l->pairs[k].value };
            *tail = f;
            tail = &f->next;
        }
    }
    v->config.smbios_fields = v->smbios;
}

/* A -global for a device that is not in this machine does nothing: say so, as a typing error looks
 * the same. */
static void warn_globals(const struct vmm *v)
{
    for (const struct global_prop *g = v->globals; g; g = g->next) {
        if (g->used)
            continue;
        if (device_type_find(g->driver))
            log_warn("-global %s.%s=%s: no such device in this machine", g->driver, g->prop,
                     g->value);
        else
            log_warn("-global %s.%s=%s: unknown device '%s'%s", g->driver, g->prop, g->value,
                     g->driver, device_type_suggest(g->driver));
    }
}

bool build_config(struct vmm *v, GError **error)
{
    const struct vm_options *o = &v->options;
    struct machine_config *c = &v->config;
    machine_config_init(c);
    if (!apply_machine(v, error) || !add_globals(v, error))
        return false;
    add_smbios(v);
    c->name = o->name;
    memcpy(c->uuid, o->uuid, sizeof(c->uuid));
    c->has_uuid = o->has_uuid;
    if (o->ram_bytes)
        c->ram_bytes = o->ram_bytes;
    if (o->cpu_count) {
        c->cpu_count = o->cpu_count;
        c->max_cpus = o->max_cpus;
        c->topology = o->topology;
    }
    c->cpu_model = o->cpu;
    c->kernel = o->kernel;
    c->initrd = o->initrd;
    c->append = o->append;
    c->firmware = o->bios;
    c->rtc_offset_s = o->rtc_offset_s;
    c->rtc_local = o->rtc_local;
    c->accel = o->accel_config;
    c->hpet = c->hpet && !o->no_hpet;
    c->acpi = c->acpi && !o->no_acpi;
    c->graphics = c->graphics && !o->nographic;
    if (!o->kernel && (o->initrd || o->append))
        return ruche_error(error, RUCHE_ERR_INVALID, "-%s: there is no -kernel to give it to",
                           o->initrd ? "initrd" : "append");
    return true;
}

/* ---- devices ---- */

/* Values from -device: id= and bus= belong to the core, the others to the device. */
static bool set_device_values(struct device *d, const struct kv_list *l, GError **error)
{
    for (size_t i = 0; i < l->count; i++) {
        const char *key = l->pairs[i].key, *value = l->pairs[i].value;
        if (!strcmp(key, "driver"))
            continue;
        if (!strcmp(key, "id"))
            d->id = g_strdup(value);
        else if (!strcmp(key, "bus"))
            d->bus_name = g_strdup(value);
        else if (!device_set(d, key, value, error))
            return false;
    }
    return true;
}

static bool build_any_device(struct vmm *v, struct kv_list *l, GError **error)
{
    const char *driver = kv_get(l, "driver");
    return driver && hotplug_is_cpu(driver) ? hotplug_cpu_add(v, l, error) : build_device(v, l, error) != NULL;
}

struct device *build_device(struct vmm *v, struct kv_list *l, GError **error)
{
    const char *driver = kv_get(l, "driver"), *id = kv_get(l, "id");
    const struct device_type *t = device_type_find(driver);
    if (t && t->internal) {
        ruche_error(error, RUCHE_ERR_INVALID, "device '%s' belongs to the board; it cannot be added", driver);
        return NULL;
    }
    if (id && machine_find_device(v->machine, id)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "device id '%s' is taken", id);
        return NULL;
    }
    struct device *d = device_new(v->machine, driver, error);
    if (!d)
        return NULL;
    g_autofree char *drive = NULL;
    bool ok = set_device_values(d, l, error);
    if (ok) {
        drive = build_drive_of(d);
        if (drive && vmm_find_drive(v, drive))
            g_clear_pointer(&drive, g_free); /* it was there before */
        ok = build_drive_defaults(v, d, l, error);
    }
    if (!ok)
        device_free(d);
    if (ok && device_realize(d, error))
        return d;
    if (drive)
        build_forget_drive(v, drive);
    return NULL;
}

static bool build_devices(struct vmm *v, GError **error)
{
    GPtrArray *list = v->options.devices;
    for (guint i = 0; i < list->len; i++)
        if (!build_any_device(v, g_ptr_array_index(list, i), error)) {
            g_prefix_error(error, "-device: ");
            return false;
        }
    return true;
}

static bool add_fw_cfg(struct vmm *v, GError **error)
{
    GPtrArray *list = v->options.fw_cfg;
    if (list->len && !v->machine->fw_cfg)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "-fw_cfg: board '%s' has no fw_cfg",
                           v->board->name);
    for (guint i = 0; i < list->len; i++) {
        const struct fw_cfg_text *f = g_ptr_array_index(list, i);
        g_autofree char *content = NULL;
        g_autoptr(GError) local = NULL;
        size_t len = 0;
        if (f->file && !g_file_get_contents(f->file, &content, &len, &local))
            return ruche_error(error, RUCHE_ERR_IO, "-fw_cfg: %s", local->message);
        if (len > 64 * MIB)
            return ruche_error(error, RUCHE_ERR_INVALID, "-fw_cfg: '%s' is larger than 64 MiB",
                               f->file);
        int err = f->text ? fw_cfg_set_file(v->machine->fw_cfg, f->name, f->text, strlen(f->text))
                          : fw_cfg_set_file(v->machine->fw_cfg, f->name, content, len);
        if (err < 0)
            return ruche_error_errno(error, -err, "-fw_cfg: item '%s'", f->name);
    }
    return true;
}

/* ---- the whole ---- */

static void free_iothread(gpointer p)
{
    struct vm_iothread *t = p;
    if (t->loop) {
        loop_thread_join(t->loop);
        if (t->images)
            context_put(t->images);
        loop_free(t->loop);
    }
    g_free(t->id);
    g_free(t);
}

void vmm_init(struct vmm *v)
{
    *v = (struct vmm){ .exit_status = 0 };
    vm_options_init(&v->options);
    migrate_init(v);
    v->chardevs = g_ptr_array_new_with_free_func((GDestroyNotify)chardev_free);
    v->drives = g_ptr_array_new_with_free_func(vm_drive_free);
    v->throttle_groups = g_ptr_array_new_with_free_func((GDestroyNotify)throttle_group_put);
    v->netdevs = g_ptr_array_new_with_free_func((GDestroyNotify)netdev_free);
    v->iothreads = g_ptr_array_new_with_free_func(free_iothread);
    v->rngs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    v->monitors = g_ptr_array_new_with_free_func(monitor_free);
}

static void register_chardev(gpointer item, gpointer opaque)
{
    backend_add(((struct vmm *)opaque)->machine, BACKEND_CHARDEV, chardev_id(item), item);
}

static void register_drive(gpointer item, gpointer opaque)
{
    struct vm_drive *d = item;
    backend_add(((struct vmm *)opaque)->machine, BACKEND_IMAGE, d->id, d->image);
}

static const char *netdev_state_type(const void *backend)
{
    const struct netdev *n = backend;
    return netdev_has_state(n) ? n->type->name : NULL;
}

static bool netdev_state_save(void *backend, GByteArray *out, GError **error)
{
    return netdev_save(backend, out, error);
}

static bool netdev_state_load(void *backend, struct cur *c, GError **error)
{
    return netdev_load(backend, c, error);
}

static const struct backend_state netdev_state = {
    .type = netdev_state_type, .save = netdev_state_save, .load = netdev_state_load
};

static void register_netdev(gpointer item, gpointer opaque)
{
    backend_add(((struct vmm *)opaque)->machine, BACKEND_NETDEV, ((struct netdev *)item)->id, item);
}

static void register_iothread(gpointer item, gpointer opaque)
{
    struct vm_iothread *t = item;
    backend_add(((struct vmm *)opaque)->machine, BACKEND_IOTHREAD, t->id, t->loop);
}

static bool make_machine(struct vmm *v, GError **error)
{
    v->machine =
        machine_new(v->board, &v->config, v->options.accel, v->loop, &v->accel_note, error);
    if (!v->machine)
        return false;
    v->machine->observer = run_observer;
    v->machine->observer.opaque = v;
    v->cpu_ids = g_new0(char *, v->machine->vcpu_count + 1);
    g_ptr_array_foreach(v->chardevs, register_chardev, v);
    g_ptr_array_foreach(v->drives, register_drive, v);
    g_ptr_array_foreach(v->netdevs, register_netdev, v);
    backend_state_set(v->machine, BACKEND_NETDEV, &netdev_state);
    g_ptr_array_foreach(v->iothreads, register_iothread, v);
    return true;
}

static bool power_on(struct vmm *v, GError **error)
{
    if (!v->options.incoming)
        return machine_power_on(v->machine, error);
    run_expect_state(v);
    return true;
}

bool vmm_build(struct vmm *v, GError **error)
{
    static bool (*const steps[])(struct vmm *v, GError **error) = {
        build_config,  build_objects,  build_drives,       build_chardevs,    build_netdevs,
        make_machine,  add_fw_cfg,     build_serial_ports, build_nic_devices, build_drive_devices,
        build_devices, power_on,       build_monitors,
    };
    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++)
        if (!steps[i](v, error))
            return false;
    warn_globals(v);
    return true;
}

/* Jobs and exports work on nodes that devices have taken to their threads: they end before the machine. */
static void end_block_work(struct vmm *v)
{
    block_events_done();
    g_clear_pointer(&v->jobs, job_set_free);
    block_exports_done(v);
}

void vmm_done(struct vmm *v)
{
    dump_done(v);
    migrate_done(v);
    end_block_work(v);
    hotplug_done(v);
    g_clear_pointer(&v->machine, machine_free);
    g_clear_pointer(&v->monitors, g_ptr_array_unref);
    g_clear_pointer(&v->qmp, qmp_server_free);
    g_clear_pointer(&v->netdevs, g_ptr_array_unref);
    g_clear_pointer(&v->drives, g_ptr_array_unref);
    g_clear_pointer(&v->graph, graph_free);
    g_clear_pointer(&v->throttle_groups, g_ptr_array_unref);
    g_clear_pointer(&v->image_context, context_put);
    g_clear_pointer(&v->chardevs, g_ptr_array_unref);
    g_clear_pointer(&v->iothreads, g_ptr_array_unref);
    g_clear_pointer(&v->rngs, g_hash_table_unref);
    g_clear_pointer(&v->named_fds, g_hash_table_unref);
    for (struct global_prop *g = v->globals, *next; g; g = next) {
        next = g->next;
        g_free(g);
    }
    v->globals = NULL;
    for (struct smbios_field *f = v->smbios, *next; f; f = next) {
        next = f->next;
        g_free(f);
    }
    v->smbios = NULL;
    g_clear_pointer(&v->accel_note, g_free);
    vm_options_done(&v->options);
}
