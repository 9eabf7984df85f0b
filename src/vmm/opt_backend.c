/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options that make disks, networks, devices, consoles and objects. Here they are only collected
 * and checked as far as that needs no other option; vmm/build_*.c makes them.
 */
#include "vmm/options.h"

#include "image/driver.h"

#include <string.h>

/* ---- disks ---- */

static const char *const drive_keys[] = {
    "file",          "if",           "format",       "index",           "bus",           "unit",
    "media",         "cache",        "aio",          "discard",         "readonly",      "read-only",
    "snapshot",      "id",           "werror",       "rerror",          "serial",        "detect-zeroes",
    "copy-on-read",  "locking",      "driver",       "node-name",       "auto-read-only", "addr",
    "force-share",   "group",        "iops_size",    "bps",             "bps_rd",        "bps_wr",
    "iops",          "iops_rd",      "iops_wr",      "bps_max",         "bps_rd_max",    "bps_wr_max",
    "iops_max",      "iops_rd_max",  "iops_wr_max",  "bps_max_length",  "bps_rd_max_length",
    "bps_wr_max_length", "iops_max_length", "iops_rd_max_length", "iops_wr_max_length",
};

/* Options of the drivers that are here may stand beside the drive's own; those of nodes below ("file.x",
 * "backing.x") are checked when they are opened. */
static bool check_drive_keys(struct kv_list *l, GError **error)
{
    g_autoptr(GPtrArray) known = g_ptr_array_new();
    for (size_t i = 0; i < G_N_ELEMENTS(drive_keys); i++)
        g_ptr_array_add(known, (gpointer)drive_keys[i]);
    LINKSET_FOREACH(image_drivers, struct image_driver, d)
        for (const struct image_option *o = d->open_options; o && o->name; o++)
            g_ptr_array_add(known, (gpointer)o->name);
    for (size_t i = 0; i < l->count; i++)
        if (strchr(l->pairs[i].key, '.'))
            g_ptr_array_add(known, l->pairs[i].key);
    g_ptr_array_add(known, NULL);
    return kv_check_known(l, (const char *const *)known->pdata, error);
}

static bool check_drive(struct kv_list *l, GError **error)
{
    static const char *const buses[] = { "virtio", "none", NULL };
    static const char *const refused[] = { "ide", "scsi", "floppy", "pflash",
                                           "sd",  "mtd",  "xen",    NULL };
    const char *bus = kv_get(l, "if");
    if (bus && g_strv_contains(refused, bus))
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "there is no '%s' disk interface here; use if=virtio, or if=none and a -device", bus);
    if (bus && !g_strv_contains(buses, bus))
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown interface '%s'%s", bus,
                           suggest_phrase(bus, buses));
    return !kv_get(l, "id") || kv_check_id(kv_get(l, "id"), error);
}

static bool take_drive(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "file", error);
    if (!l || !check_drive_keys(l, error) || !check_drive(l, error))
        return false;
    if (!kv_has(l, "file") && !kv_has(l, "file.filename") && !kv_has(l, "file.driver"))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'file=' is missing: drives without a medium are not here");
    g_ptr_array_add(o->drives, g_steal_pointer(&l));
    return true;
}

static JsonObject *parse_json_options(const char *text, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) n = json_from_string(text, &local);
    if (n && JSON_NODE_HOLDS_OBJECT(n))
        return json_node_dup_object(n);
    ruche_error(error, RUCHE_ERR_INVALID, "bad JSON: %s", local ? local->message : "not an object");
    return NULL;
}

static bool check_blockdev(JsonObject *o, GError **error)
{
    const char *driver = json_object_get_string_member_with_default(o, "driver", NULL);
    const char *node = json_object_get_string_member_with_default(o, "node-name", NULL);
    if (!driver)
        return ruche_error(error, RUCHE_ERR_INVALID, "'driver' is missing");
    if (!driver_find(driver, error))
        return false;
    if (!node)
        return ruche_error(error, RUCHE_ERR_INVALID, "'node-name' is missing");
    return kv_check_id(node, error);
}

static bool take_blockdev(struct vm_options *o, const char *arg, GError **error)
{
    JsonObject *options =
        arg[0] == '{' ? parse_json_options(arg, error) : option_parse_text(arg, "driver", error);
    if (!options)
        return false;
    if (!check_blockdev(options, error)) {
        json_object_unref(options);
        return false;
    }
    g_ptr_array_add(o->blockdevs, options);
    return true;
}

static bool take_snapshot(struct vm_options *o, const char *arg, GError **error)
{
    o->snapshot = true;
    return true;
}

static bool refuse_ide(struct vm_options *o, const char *arg, GError **error)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "there are no IDE disks here; use -drive file=%s,format=raw,if=virtio", arg);
}

/* ---- devices ---- */

static bool take_device(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "driver", error);
    if (!l)
        return false;
    const char *driver = kv_get(l, "driver");
    if (kv_wants_help(l)) {
        o->exit_now = true;
        if (driver && strcmp(driver, "help") && strcmp(driver, "?"))
            return help_device(driver, error);
        help_devices();
        return true;
    }
    if (!driver)
        return ruche_error(error, RUCHE_ERR_INVALID, "a device's name is missing");
    if (kv_get(l, "id") && !kv_check_id(kv_get(l, "id"), error))
        return false;
    g_ptr_array_add(o->devices, g_steal_pointer(&l));
    return true;
}

static bool bad_global(const char *arg, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not DEVICE.PROPERTY=VALUE", arg);
}

/* "driver.prop=value", or driver=,property=,value=. */
static bool take_global(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "driver", "property", "value", NULL };
    const char *dot = strchr(arg, '.'), *eq = strchr(arg, '=');
    bool dotted = dot && eq && dot < eq;
    if (!eq)
        return bad_global(arg, error);
    auto_kv *l = kv_parse(dotted ? "" : arg, NULL, error);
    if (!l || !kv_check_known(l, known, error))
        return false;
    if (dotted) {
        g_autofree char *driver = g_strndup(arg, dot - arg),
                        *prop = g_strndup(dot + 1, eq - dot - 1);
        if (!kv_add(l, "driver", driver, error) || !kv_add(l, "property", prop, error) ||
            !kv_add(l, "value", eq + 1, error))
            return false;
    }
    if (!kv_get(l, "driver") || !kv_get(l, "property") || !kv_get(l, "value"))
        return bad_global(arg, error);
    g_ptr_array_add(o->globals, g_steal_pointer(&l));
    return true;
}

static bool take_object(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "qom-type", error);
    if (!l)
        return false;
    if (kv_wants_help(l)) {
        help_objects();
        o->exit_now = true;
        return true;
    }
    if (!kv_get(l, "qom-type"))
        return ruche_error(error, RUCHE_ERR_INVALID, "an object's type is missing");
    if (!kv_get(l, "id"))
        return ruche_error(error, RUCHE_ERR_INVALID, "'id=' is missing");
    if (!kv_check_id(kv_get(l, "id"), error))
        return false;
    g_ptr_array_add(o->objects, g_steal_pointer(&l));
    return true;
}

/* ---- networks ---- */

static bool take_netdev(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "type", error);
    if (!l)
        return false;
    const char *type = kv_get(l, "type");
    if (kv_wants_help(l)) {
        o->exit_now = true;
        if (type && strcmp(type, "help") && strcmp(type, "?"))
            return help_netdev(type, error);
        help_netdevs();
        return true;
    }
    if (!type || !kv_get(l, "id"))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is missing", type ? "id=" : "type");
    if (!kv_check_id(kv_get(l, "id"), error))
        return false;
    g_ptr_array_add(o->netdevs, g_steal_pointer(&l));
    return true;
}

static bool take_nic(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "type", error);
    if (!l)
        return false;
    if (kv_wants_help(l)) {
        help_netdevs();
        o->exit_now = true;
        return true;
    }
    if (!kv_get(l, "type"))
        return ruche_error(error, RUCHE_ERR_INVALID, "the network's type is missing");
    g_ptr_array_add(o->nics, g_steal_pointer(&l));
    return true;
}

static bool take_net(struct vm_options *o, const char *arg, GError **error)
{
    return option_add_kv(o->nets, arg, "type", error);
}

/* ---- consoles ---- */

static bool take_chardev(struct vm_options *o, const char *arg, GError **error)
{
    auto_kv *l = kv_parse(arg, "backend", error);
    if (!l)
        return false;
    const char *backend = kv_get(l, "backend");
    if (kv_wants_help(l)) {
        o->exit_now = true;
        if (backend && strcmp(backend, "help") && strcmp(backend, "?"))
            return help_chardev(backend, error);
        help_chardevs();
        return true;
    }
    if (!backend || !kv_get(l, "id"))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is missing",
                           backend ? "id=" : "backend");
    if (!kv_check_id(kv_get(l, "id"), error))
        return false;
    g_ptr_array_add(o->chardevs, g_steal_pointer(&l));
    return true;
}

static bool take_serial(struct vm_options *o, const char *arg, GError **error)
{
    if (o->serials->len == 4)
        return ruche_error(error, RUCHE_ERR_INVALID, "a machine has at most 4 serial ports");
    g_ptr_array_add(o->serials, g_strdup(arg));
    return true;
}

static bool take_parallel(struct vm_options *o, const char *arg, GError **error)
{
    if (!strcmp(arg, "none") || !strcmp(arg, "null"))
        return true;
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "there are no parallel ports here; only 'none' is possible");
}

static bool add_monitor(struct vm_options *o, const char *spec, bool qmp)
{
    struct monitor_text *m = g_new(struct monitor_text, 1);
    *m = (struct monitor_text){ .spec = g_strdup(spec), .qmp = qmp };
    g_ptr_array_add(o->monitors, m);
    return true;
}

static bool take_monitor(struct vm_options *o, const char *arg, GError **error)
{
    o->no_monitor = true; /* no default one */
    return !strcmp(arg, "none") || add_monitor(o, arg, false);
}

static bool take_qmp(struct vm_options *o, const char *arg, GError **error)
{
    return !strcmp(arg, "none") || add_monitor(o, arg, true);
}

static bool take_mon(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "chardev", "mode", "pretty", "id", NULL };
    static const char *const modes[] = { "readline", "control", NULL };
    auto_kv *l = kv_parse(arg, "chardev", error);
    int mode = 0;
    if (!l || !kv_check_known(l, known, error) || !kv_get_word(l, "mode", modes, &mode, error))
        return false;
    const char *id = kv_get(l, "chardev");
    if (!id)
        return ruche_error(error, RUCHE_ERR_INVALID, "'chardev=' is missing");
    if (mode == 0)
        o->no_monitor = true;
    g_autofree char *spec = g_strconcat("chardev:", id, NULL);
    return add_monitor(o, spec, mode == 1);
}

static bool take_display(struct vm_options *o, const char *arg, GError **error)
{
    if (!strcmp(arg, "help")) {
        g_print("Displays:\n  none    no window; the guest's graphics, if any, go nowhere\n");
        o->exit_now = true;
        return true;
    }
    o->display_named = true;
    if (!strcmp(arg, "none"))
        return true;
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "there is no display '%s' yet; only 'none' is possible", arg);
}

static bool take_vga(struct vm_options *o, const char *arg, GError **error)
{
    if (!strcmp(arg, "none"))
        return true;
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "there is no graphics card '%s' yet; only 'none' is possible", arg);
}

static bool take_nographic(struct vm_options *o, const char *arg, GError **error)
{
    o->nographic = o->display_named = true;
    return true;
}

static bool take_keyboard(struct vm_options *o, const char *arg, GError **error)
{
    return true;
}

const struct option_row backend_option_rows[] = {
    { "drive", "file=FILE[,if=virtio|none][,format=FORMAT][,id=ID][,cache=MODE][,readonly=on]...",
      "a disk; with if=virtio (the default) its device is made too", GROUP_STORAGE, take_drive },
    { "blockdev", "[driver=]DRIVER,node-name=ID,...",
      "a disk's backend, as key=value or JSON", GROUP_STORAGE, take_blockdev },
    { "snapshot", NULL, "writes go to temporary files, not to the disks", GROUP_STORAGE,
      take_snapshot },
    { "hda", "FILE", NULL, GROUP_STORAGE, refuse_ide },
    { "hdb", "FILE", NULL, GROUP_STORAGE, refuse_ide },
    { "hdc", "FILE", NULL, GROUP_STORAGE, refuse_ide },
    { "hdd", "FILE", NULL, GROUP_STORAGE, refuse_ide },
    { "cdrom", "FILE", NULL, GROUP_STORAGE, refuse_ide },
    { "fda", "FILE", NULL, GROUP_STORAGE, refuse_ide },
    { "netdev", "TYPE,id=ID[,prop=value...]", "a network backend; '-netdev help' lists them",
      GROUP_NETWORK, take_netdev },
    { "nic", "TYPE|none[,model=DEVICE][,mac=ADDR][,prop=value...]",
      "a network backend and its device in one", GROUP_NETWORK, take_nic },
    { "net", "none|nic|TYPE[,prop=value...]", "the old form of -nic", GROUP_NETWORK, take_net },
    { "device", "DRIVER[,prop=value...]",
      "adds a device; '-device help' lists them,\n'-device DRIVER,help' its properties",
      GROUP_DEVICE, take_device },
    { "global", "DRIVER.PROPERTY=VALUE", "a default for all devices of a kind", GROUP_DEVICE,
      take_global },
    { "object", "TYPE,id=ID[,prop=value...]",
      "an I/O thread, memory or randomness; '-object help' lists them", GROUP_DEVICE, take_object },
    { "chardev", "BACKEND,id=ID[,prop=value...]", "a character backend; '-chardev help' lists them",
      GROUP_CONSOLE, take_chardev },
    { "serial", "CHARDEV",
      "a serial port: none, null, stdio, mon:stdio, pty, file:PATH,\nunix:PATH,server=on, "
      "tcp:HOST:PORT, chardev:ID",
      GROUP_CONSOLE, take_serial },
    { "parallel", "none", NULL, GROUP_CONSOLE, take_parallel },
    { "monitor", "CHARDEV|none", "a monitor for people: commands, 'help' lists them", GROUP_CONSOLE,
      take_monitor },
    { "qmp", "CHARDEV", "a monitor for programs (JSON)", GROUP_CONSOLE, take_qmp },
    { "mon", "[chardev=]ID[,mode=readline|control]", "a monitor on a -chardev; control is QMP",
      GROUP_CONSOLE, take_mon },
    { "nographic", NULL, "console and monitor on the terminal; Ctrl-a h is the help", GROUP_CONSOLE,
      take_nographic },
    { "display", "none", "where graphics are shown", GROUP_CONSOLE, take_display },
    { "vga", "none", "the graphics card", GROUP_CONSOLE, take_vga },
    { "k", "LANGUAGE", NULL, GROUP_CONSOLE, take_keyboard },
    { 0 },
};
