/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines: serial ports, consoles, channels and the character backends behind them; see
 * vm_args.h.
 *
 * Sockets that listen are made by us and passed. What the first console says is logged, for ruche
 * dmesg.
 */
#include "manager/domain/vm_args.h"

#include "manager/error.h"

#include <string.h>

/* ---- backends ---- */

static bool pty_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    return true; /* the machine opens one; its name is asked for later */
}

static bool file_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    const char *path = xml_get_or(n, "source@path", "");
    g_autofree char *file = args_file(a, path, true, true, false, error);
    opt_add(s, "path", file);
    opt_add(s, "append", "on");
    return file != NULL;
}

static bool path_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    opt_add(s, "path", xml_get(n, "source@path"));
    return true;
}

static bool unix_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    const char *path = xml_get(n, "source@path");
    if (path && xml_is(n, "source@mode", "connect")) {
        opt_add(s, "path", path);
        opt_add(s, "reconnect", xml_get(n, "source/reconnect@timeout"));
        return true;
    }
    if (!path || !*path) {
        g_autofree char *name = g_strdup_printf("%s.sock", args_alias(n));
        g_autofree char *own = g_build_filename(a->dir, name, NULL);
        xml_set(n, "source@mode", "bind");
        xml_set(n, "source@path", own);
        path = xml_get(n, "source@path");
    }
    int fd = a->ops->listen(a->opaque, path, error);
    if (fd < 0)
        return false;
    opt_addf(s, "fd", "%u", args_pass(a, fd));
    opt_add(s, "server", "on");
    opt_add(s, "wait", "off");
    return true;
}

static bool tcp_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    bool server = xml_is(n, "source@mode", "bind");
    opt_add(s, "host", xml_get_or(n, "source@host", "127.0.0.1"));
    opt_add(s, "port", xml_get_or(n, "source@service", "0"));
    opt_add(s, "telnet", xml_is(n, "protocol@type", "telnet") ? "on" : NULL);
    opt_add(s, "server", server ? "on" : NULL);
    opt_add(s, "wait", server ? "off" : NULL);
    return true;
}

/* The two <source>s of UDP. */
static bool udp_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    for (struct xml_node *source = xml_find(n, "source"); source; source = xml_next(source)) {
        bool local = xml_is(source, "@mode", "bind");
        opt_add(s, local ? "localaddr" : "host", xml_get(source, "@host"));
        opt_add(s, local ? "localport" : "port", xml_get(source, "@service"));
    }
    return true;
}

static bool spice_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    opt_add(s, "name", xml_is(n, "@type", "spicevmc") ? "vdagent" : xml_get(n, "source@channel"));
    return true;
}

static const struct {
    const char *type, *backend;
    bool (*fn)(struct vm_args *a, struct xml_node *n, GString *s, GError **error);
} backends[] = {
    {"pty", "pty", pty_backend},
    {"file", "file", file_backend},
    {"unix", "socket", unix_backend},
    {"tcp", "socket", tcp_backend},
    {"udp", "udp", udp_backend},
    {"null", "null", pty_backend},
    {"stdio", "stdio", pty_backend},
    {"pipe", "pipe", path_backend},
    {"dev", "serial", path_backend},
    {"spicevmc", "spicevmc", spice_backend},
    {"spiceport", "spiceport", spice_backend},
};

static bool add_log(struct vm_args *a, const struct xml_node *n, GString *s, bool first,
                    GError **error)
{
    const char *path = xml_get(n, "log@file");
    if (!path && !first)
        return true;
    g_autofree char *file = args_file(a, path ? path : a->console_log, true, true, false, error);
    opt_add(s, "logfile", file);
    opt_add(s, "logappend", path && xml_is(n, "log@append", "off") ? "off" : "on");
    return file != NULL;
}

static bool add_backend(struct vm_args *a, struct xml_node *n, bool first, GError **error)
{
    const char *type = xml_get_or(n, "@type", "pty");
    for (size_t i = 0; i < G_N_ELEMENTS(backends); i++) {
        if (strcmp(backends[i].type, type))
            continue;
        g_autoptr(GString) s = opt_new(backends[i].backend);
        g_autofree char *id = g_strconcat("char", args_alias(n), NULL);
        opt_add(s, "id", id);
        if (!backends[i].fn(a, n, s, error) || !add_log(a, n, s, first, error))
            return false;
        args_add(a, "-chardev", s->str);
        return true;
    }
    return args_word_error(n, "type", type, error);
}

/* ---- devices ---- */

static GString *char_device(const struct xml_node *n, const char *device)
{
    GString *s = opt_new(device);
    opt_addf(s, "chardev", "char%s", args_alias(n));
    opt_add(s, "id", args_alias(n));
    return s;
}

static void virtio_place(GString *s, const struct xml_node *n)
{
    opt_addf(s, "bus", "virtio-serial%u.0", (unsigned)xml_get_u64(n, "address@controller", 0));
    opt_add(s, "nr", xml_get(n, "address@port"));
}

static bool add_serial(struct vm_args *a, struct xml_node *n, unsigned index, GError **error)
{
    const char *target = xml_get_or(n, "target@type", "isa-serial");
    if (!strcmp(target, "usb-serial") || !strcmp(target, "pci-serial")) {
        GString *s = char_device(n, target);
        args_address(a, s, n);
        args_take_device(a, s);
        return true;
    }
    if (strcmp(target, "isa-serial") && strcmp(target, "isa-debug"))
        return args_word_error(n, "target type", target, error);
    GString *s = char_device(n, strcmp(target, "isa-debug") ? "isa-serial" : "isa-debugcon");
    if (strcmp(target, "isa-debug"))
        opt_addf(s, "index", "%u", (unsigned)xml_get_u64(n, "target@port", index));
    else
        opt_add(s, "iobase", xml_get(n, "address@iobase"));
    args_take_device(a, s);
    return true;
}

static bool add_console(struct vm_args *a, struct xml_node *n, GError **error)
{
    if (!xml_is(n, "target@type", "virtio"))
        return args_word_error(n, "target type", xml_get(n, "target@type"), error);
    GString *s = char_device(n, "virtconsole");
    virtio_place(s, n);
    args_take_device(a, s);
    return true;
}

static bool add_channel(struct vm_args *a, struct xml_node *n, GError **error)
{
    if (!xml_is(n, "target@type", "virtio"))
        return args_word_error(n, "target type", xml_get(n, "target@type"), error);
    GString *s = char_device(n, "virtserialport");
    virtio_place(s, n);
    opt_add(s, "name", xml_get(n, "target@name"));
    args_take_device(a, s);
    return true;
}

/* The first console is the first serial port again, where there is one. */
static bool is_serial_again(const struct vm_args *a, const struct xml_node *console)
{
    return !xml_is(console, "target@type", "virtio") && xml_find(a->devices, "serial");
}

bool args_chardevs(struct vm_args *a, GError **error)
{
    bool first = true;
    unsigned index = 0;
    for (struct xml_node *n = xml_find(a->devices, "serial"); n; n = xml_next(n), first = false)
        if (!add_backend(a, n, first, error) || !add_serial(a, n, index++, error))
            return false;
    for (struct xml_node *n = xml_find(a->devices, "console"); n; n = xml_next(n)) {
        if (is_serial_again(a, n))
            continue;
        if (!add_backend(a, n, first, error) || !add_console(a, n, error))
            return false;
        first = false;
    }
    for (struct xml_node *n = xml_find(a->devices, "channel"); n; n = xml_next(n))
        if (!add_backend(a, n, false, error) || !add_channel(a, n, error))
            return false;
    return true;
}
