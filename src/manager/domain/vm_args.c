/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines: the words' builder, the machine as a whole, the order of everything; see
 * vm_args.h. */
#include "manager/domain/vm_args.h"
#include "manager/domain/def.h"

#include "base/fd.h"
#include "manager/domain/vm_spawn.h"
#include "manager/error.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>

/* ---- words ---- */

static void append_escaped(GString *s, const char *value)
{
    for (; *value; value++) {
        if (*value == ',')
            g_string_append_c(s, ',');
        g_string_append_c(s, *value);
    }
}

GString *opt_new(const char *first)
{
    GString *s = g_string_new(NULL);
    append_escaped(s, first);
    return s;
}

void opt_add(GString *s, const char *key, const char *value)
{
    if (!value)
        return;
    if (s->len)
        g_string_append_c(s, ',');
    g_string_append_printf(s, "%s=", key);
    append_escaped(s, value);
}

void opt_addf(GString *s, const char *key, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *value = g_strdup_vprintf(format, ap);
    va_end(ap);
    opt_add(s, key, value);
}

void opt_on_off(GString *s, const char *key, const struct xml_node *n, const char *path)
{
    const char *v = xml_get(n, path);
    if (v)
        opt_add(s, key, !strcmp(v, "yes") ? "on" : !strcmp(v, "no") ? "off" : v);
}

void args_add(struct vm_args *a, const char *option, const char *value)
{
    g_ptr_array_add(a->argv, g_strdup(option));
    if (value)
        g_ptr_array_add(a->argv, g_strdup(value));
}

void args_take(struct vm_args *a, const char *option, GString *value)
{
    g_ptr_array_add(a->argv, g_strdup(option));
    g_ptr_array_add(a->argv, g_string_free(value, FALSE));
}

void args_take_device(struct vm_args *a, GString *value)
{
    args_take(a, "-device", value);
}

const char *args_alias(const struct xml_node *device)
{
    return xml_get_or(device, "alias@name", "");
}

/* q35 and microvm begin at pcie.0, i440fx at pci.0. */
const char *args_root_bus(const struct vm_args *a)
{
    for (struct xml_node *c = xml_find(a->devices, "controller"); c; c = xml_next(c))
        if (xml_is(c, "@type", "pci") && xml_is(c, "@index", "0") &&
            xml_is(c, "@model", "pci-root"))
            return "pci.0";
    return "pcie.0";
}

void args_address(struct vm_args *a, GString *s, const struct xml_node *device)
{
    const struct xml_node *at = xml_find(device, "address");
    if (!at || !xml_is(at, "@type", "pci"))
        return;
    uint64_t bus = xml_get_u64(at, "@bus", 0), slot = xml_get_u64(at, "@slot", 0),
             function = xml_get_u64(at, "@function", 0);
    if (bus)
        opt_addf(s, "bus", "pci.%u", (unsigned)bus);
    else
        opt_add(s, "bus", args_root_bus(a));
    if (xml_is(at, "@multifunction", "on"))
        opt_add(s, "multifunction", "on");
    if (function)
        opt_addf(s, "addr", "0x%x.%x", (unsigned)slot, (unsigned)function);
    else
        opt_addf(s, "addr", "0x%x", (unsigned)slot);
}

/* As <os><boot dev> calls it. */
static const char *boot_kind(const struct xml_node *device)
{
    if (!strcmp(device->name, "interface"))
        return "network";
    return xml_is(device, "@device", "cdrom")    ? "cdrom"
           : xml_is(device, "@device", "floppy") ? "fd"
                                                 : "hd";
}

/* <boot order> of the device, else the place of its kind in <os><boot dev>, whose first device it
 * is. */
unsigned args_boot_place(const struct vm_args *a, const struct xml_node *device)
{
    uint64_t order = xml_get_u64(device, "boot@order", 0);
    if (order)
        return (unsigned)order;
    const char *kind = boot_kind(device);
    unsigned place = 0;
    for (struct xml_node *b = xml_find(a->domain, "os/boot"); b; b = xml_next(b)) {
        place++;
        if (!xml_is(b, "@dev", kind))
            continue;
        for (struct xml_node *d = device->prev; d; d = d->prev) /* only the first of its kind */
            if (d->name && !strcmp(d->name, device->name) && !strcmp(boot_kind(d), kind))
                return 0;
        return place;
    }
    return 0;
}

void args_boot_index(struct vm_args *a, GString *s, const struct xml_node *device)
{
    unsigned place = args_boot_place(a, device);
    if (place)
        opt_addf(s, "bootindex", "%u", place);
}

bool args_word_error(const struct xml_node *device, const char *what, const char *value,
                     GError **error)
{
    return ruche_error(error, MANAGER_ERR_CONFIG, "%s '%s': %s '%s' is not possible", device->name,
                       args_alias(device), what, value ? value : "");
}

/* ---- descriptors ---- */

unsigned args_pass(struct vm_args *a, int fd)
{
    g_array_append_val(a->fds, fd);
    return VM_FIRST_FD + a->fds->len - 1;
}

static bool pass_in_set(struct vm_args *a, unsigned set, const char *path, int flags,
                        GError **error)
{
    int fd = a->ops->open(a->opaque, path, flags, error);
    if (fd < 0)
        return false;
    g_autofree char *text = g_strdup_printf("fd=%u,set=%u", args_pass(a, fd), set);
    args_add(a, "-add-fd", text);
    return true;
}

char *args_file(struct vm_args *a, const char *path, bool write, bool create, bool direct,
                GError **error)
{
    if (a->by_path)
        return g_strdup(path);
    unsigned set = ++a->fdsets;
    int more = (direct ? O_DIRECT : 0) | O_NONBLOCK;
    if (create ? !pass_in_set(a, set, path, O_WRONLY | O_CREAT | O_APPEND, error)
               : !pass_in_set(a, set, path, O_RDONLY | more, error) ||
                     (write && !pass_in_set(a, set, path, O_RDWR | more, error)))
        return NULL;
    return g_strdup_printf("/dev/fdset/%u", set);
}

/* ---- the machine ---- */

static bool has_feature(const struct vm_args *a, const char *name)
{
    const struct xml_node *f = xml_find(a->domain, "features");
    const struct xml_node *n = f ? xml_find(f, name) : NULL;
    return n && !xml_is(n, "@state", "off");
}

static bool has_memory_backend(const struct vm_args *a)
{
    return !xml_find(a->domain, "cpu/numa") && (xml_find(a->domain, "memoryBacking/hugepages") ||
                                                xml_find(a->domain, "memoryBacking/access") ||
                                                xml_find(a->domain, "memoryBacking/source") ||
                                                xml_find(a->domain, "memoryBacking/allocation"));
}

static void add_timers(struct vm_args *a, GString *s)
{
    for (struct xml_node *t = xml_find(a->domain, "clock/timer"); t; t = xml_next(t))
        if (xml_is(t, "@name", "hpet"))
            opt_on_off(s, "hpet", t, "@present");
}

static bool args_machine(struct vm_args *a, GError **error)
{
    GString *s = opt_new(xml_get_or(a->domain, "os/type@machine", "q35"));
    opt_add(s, "usb", "off");
    opt_add(s, "dump-guest-core", xml_get_or(a->domain, "memory@dumpCore", "off"));
    if (!has_feature(a, "acpi"))
        opt_add(s, "acpi", "off");
    add_timers(a, s);
    if (!a->ours) {
        opt_on_off(s, "smm", a->domain, "features/smm@state");
        opt_on_off(s, "vmport", a->domain, "features/vmport@state");
        opt_add(s, "kernel_irqchip",
                xml_is(a->domain, "features/ioapic@driver", "qemu") ? "split" : NULL);
    }
    if (xml_is(a->domain, "os/loader@type", "pflash")) {
        opt_add(s, "pflash0", "pflash0");
        opt_add(s, "pflash1", xml_get(a->domain, "os/nvram") ? "pflash1" : NULL);
    }
    if (has_memory_backend(a))
        opt_add(s, "memory-backend", "ram0");
    args_take(a, "-machine", s);
    bool kvm = xml_is(a->domain, "@type", "kvm");
    args_add(a, "-accel", kvm ? "kvm" : a->ours ? "soft" : "tcg");
    return true;
}

static bool args_firmware(struct vm_args *a, GError **error)
{
    const char *loader = xml_get(a->domain, "os/loader"), *nvram = xml_get(a->domain, "os/nvram");
    if (!loader || !*loader)
        return true;
    if (!xml_is(a->domain, "os/loader@type", "pflash")) {
        args_add(a, "-bios", loader);
        return true;
    }
    const char *paths[2] = {loader, nvram};
    for (int i = 0; i < 2 && paths[i]; i++) {
        bool write = i == 1 || xml_is(a->domain, "os/loader@readonly", "no");
        g_autofree char *file = args_file(a, paths[i], write, false, false, error);
        if (!file)
            return false;
        g_autofree char *text =
            g_strdup_printf("{\"driver\":\"raw\",\"node-name\":\"pflash%d\",\"read-only\":%s,"
                            "\"file\":{\"driver\":\"file\",\"filename\":\"%s\"}}",
                            i, write ? "false" : "true", file);
        args_add(a, "-blockdev", text);
    }
    return true;
}

static bool args_memory(struct vm_args *a, GError **error)
{
    uint64_t kib = xml_get_u64(a->domain, "memory", 0);
    GString *s = opt_new("");
    opt_addf(s, "size", "%" G_GUINT64_FORMAT "k", kib);
    uint64_t most = xml_get_u64(a->domain, "maxMemory", 0);
    if (most) {
        opt_add(s, "slots", xml_get(a->domain, "maxMemory@slots"));
        opt_addf(s, "maxmem", "%" G_GUINT64_FORMAT "k", most);
    }
    args_take(a, "-m", s);
    if (xml_find(a->domain, "memoryBacking/locked"))
        args_add(a, "-overcommit", "mem-lock=on");
    if (!has_memory_backend(a))
        return true;
    const struct xml_node *huge = xml_find(a->domain, "memoryBacking/hugepages");
    s = opt_new("memory-backend-memfd");
    opt_add(s, "id", "ram0");
    opt_addf(s, "size", "%" G_GUINT64_FORMAT "k", kib);
    opt_add(s, "share", xml_is(a->domain, "memoryBacking/access@mode", "shared") ? "on" : "off");
    opt_add(s, "hugetlb", huge ? "on" : NULL);
    uint64_t page = xml_get_u64(a->domain, "memoryBacking/hugepages/page@size", 0);
    if (huge && page)
        opt_addf(s, "hugetlbsize", "%" G_GUINT64_FORMAT "k", page);
    opt_add(s, "prealloc",
            huge || xml_is(a->domain, "memoryBacking/allocation@mode", "immediate") ? "on" : NULL);
    args_take(a, "-object", s);
    return true;
}

static bool args_iothreads(struct vm_args *a, GError **error)
{
    g_autoptr(GArray) list = domain_def_iothreads(a->domain);
    const struct xml_node *row = xml_find(a->domain, "iothreadids/iothread");
    for (guint i = 0; i < list->len; i++, row = row ? xml_next(row) : NULL) {
        GString *s = opt_new("iothread");
        opt_addf(s, "id", "iothread%u", g_array_index(list, unsigned, i));
        opt_add(s, "thread-pool-min", row ? xml_get(row, "@thread_pool_min") : NULL);
        opt_add(s, "thread-pool-max", row ? xml_get(row, "@thread_pool_max") : NULL);
        args_take(a, "-object", s);
    }
    return true;
}

static bool args_identity(struct vm_args *a, GError **error)
{
    GString *s = opt_new("");
    opt_add(s, "guest", a->name);
    opt_add(s, "debug-threads", "on");
    args_take(a, "-name", s);
    args_add(a, "-uuid", xml_get(a->domain, "uuid"));
    return true;
}

static bool args_beginning(struct vm_args *a, GError **error)
{
    args_add(a, "-S", NULL);
    if (a->incoming)
        args_add(a, "-incoming", "defer");
    args_add(a, "-no-user-config", NULL);
    args_add(a, "-nodefaults", NULL);
    args_add(a, "-msg", "timestamp=on");
    if (!a->ours)
        args_add(a, "-sandbox",
                 "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    return true;
}

/* It listens before the process begins, and is found again by its path. */
static bool args_monitor(struct vm_args *a, GError **error)
{
    g_autofree char *path = g_build_filename(a->dir, "monitor", NULL);
    int fd = a->ops->listen(a->opaque, path, error);
    if (fd < 0)
        return false;
    g_autofree char *text =
        g_strdup_printf("socket,id=charmonitor,fd=%u,server=on,wait=off", args_pass(a, fd));
    args_add(a, "-chardev", text);
    args_add(a, "-mon", "chardev=charmonitor,id=monitor,mode=control");
    return true;
}

static const char *watchdog_action(const char *word)
{
    static const char *const same[] = {"reset", "shutdown",   "poweroff", "pause",
                                       "none",  "inject-nmi", NULL};
    if (word && !strcmp(word, "dump"))
        return "pause";
    return word && g_strv_contains(same, word) ? word : "reset";
}

/* A guest that is off or has panicked stands until we have decided (on_poweroff, on_crash). */
static bool args_actions(struct vm_args *a, GError **error)
{
    GString *s = opt_new("");
    opt_add(s, "reboot", xml_is(a->domain, "on_reboot", "destroy") ? "shutdown" : "reset");
    opt_add(s, "shutdown", "pause");
    opt_add(s, "panic", "pause");
    const struct xml_node *w = xml_find(a->devices, "watchdog");
    if (w)
        opt_add(s, "watchdog", watchdog_action(xml_get(w, "@action")));
    args_take(a, "-action", s);
    return true;
}

static bool args_boot(struct vm_args *a, GError **error)
{
    GString *s = opt_new("");
    if (xml_is(a->domain, "os/bootmenu@enable", "yes")) {
        opt_add(s, "menu", "on");
        opt_add(s, "splash-time", xml_get(a->domain, "os/bootmenu@timeout"));
    }
    opt_add(s, "reboot-timeout", xml_get(a->domain, "os/bios@rebootTimeout"));
    opt_add(s, "strict", "on");
    args_take(a, "-boot", s);
    return true;
}

static bool add_boot_file(struct vm_args *a, const char *element, const char *option,
                          GError **error)
{
    g_autofree char *path = g_strconcat("os/", element, NULL);
    const char *file = xml_get(a->domain, path);
    if (!file || !*file)
        return true;
    /* QEMU reads these by their path. */
    g_autofree char *passed =
        a->ours ? args_file(a, file, false, false, false, error) : g_strdup(file);
    if (passed)
        args_add(a, option, passed);
    return passed != NULL;
}

static bool args_kernel(struct vm_args *a, GError **error)
{
    if (!add_boot_file(a, "kernel", "-kernel", error) ||
        !add_boot_file(a, "initrd", "-initrd", error))
        return false;
    const char *cmdline = xml_get(a->domain, "os/cmdline");
    if (cmdline && *cmdline)
        args_add(a, "-append", cmdline);
    const char *dtb = xml_get(a->domain, "os/dtb");
    if (dtb && *dtb)
        args_add(a, "-dtb", dtb);
    return true;
}

/* <qemu:commandline>: words that a person wrote for QEMU. */
static bool args_passthrough(struct vm_args *a, GError **error)
{
    const struct xml_node *line = a->ours ? NULL : xml_find(a->domain, "qemu:commandline");
    for (struct xml_node *n = line ? xml_find(line, "qemu:arg") : NULL; n; n = xml_next(n))
        if (xml_get(n, "@value"))
            args_add(a, xml_get(n, "@value"), NULL);
    return true;
}

static bool (*const steps[])(struct vm_args *a, GError **error) = {
    args_identity,    args_beginning,  args_machine,  args_firmware, args_cpu,
    args_memory,      args_iothreads,  args_numa,     args_smbios,   args_monitor,
    args_clock,       args_actions,    args_boot,     args_kernel,   args_controllers,
    args_disks,       args_interfaces, args_chardevs, args_displays, args_small_devices,
    args_passthrough,
};

/* One may be a secret's. */
static void free_word(gpointer word)
{
    if (word)
        explicit_bzero(word, strlen(word));
    g_free(word);
}

void vm_args_init(struct vm_args *a, struct xml_node *domain, bool ours)
{
    *a = (struct vm_args){.domain = domain, .devices = xml_find(domain, "devices"), .ours = ours};
    a->name = xml_get_or(domain, "name", "");
    a->argv = g_ptr_array_new_with_free_func(free_word);
    a->fds = g_array_new(FALSE, FALSE, sizeof(int));
}

void vm_args_done(struct vm_args *a)
{
    for (guint i = 0; a->fds && i < a->fds->len; i++)
        fd_close_keep_errno(g_array_index(a->fds, int, i));
    g_clear_pointer(&a->fds, g_array_unref);
    g_clear_pointer(&a->argv, g_ptr_array_unref);
}

bool vm_args_build(struct vm_args *a, const char *program, GError **error)
{
    args_add(a, program, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++)
        if (!steps[i](a, error))
            return false;
    g_ptr_array_add(a->argv, NULL);
    return a->fds->len <= VM_MAX_FDS ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "domain '%s' uses %u files and sockets; %d are possible", a->name,
                       a->fds->len, VM_MAX_FDS);
}
