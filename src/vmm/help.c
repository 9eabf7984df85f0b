/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What "help" prints, made from the tables: options, boards, devices, backends. */
#include "base/log.h"
#include "base/units.h"
#include "chardev/chardev.h"
#include "machine/machine.h"
#include "netdev/netdev.h"
#include "vmm/build.h"
#include "vmm/options.h"

#include <string.h>

#define HELP_COLUMN 26

/* "  left          first line\n               second line". */
static void print_row(const char *left, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    int width = strlen(left) + 2;
    g_print("  %s", left);
    for (char **l = lines; *l; l++) {
        if (l == lines && width < HELP_COLUMN)
            g_print("%*s%s\n", HELP_COLUMN - width, "", *l);
        else
            g_print("%s%*s%s\n", l == lines ? "\n" : "", HELP_COLUMN, "", *l);
    }
}

void help_version(void)
{
    g_print("ruche-vmm version %s\nRuche comes without warranty, under the GNU GPL, version 2 or "
            "later.\n",
            RUCHE_VERSION);
}

void help_options(void)
{
    static const char *const groups[N_OPTION_GROUPS] = {
        [GROUP_MACHINE] = "Machine", [GROUP_BOOT] = "Boot",
        [GROUP_STORAGE] = "Storage", [GROUP_NETWORK] = "Network",
        [GROUP_DEVICE] = "Devices",  [GROUP_CONSOLE] = "Consoles and monitors",
        [GROUP_RUN] = "Running",     [GROUP_DEBUG] = "Debugging",
        [GROUP_OTHER] = "Other",
    };
    int group = -1;
    g_print(
        "ruche-vmm %s: runs one virtual machine. Options are QEMU's; a comma in a value is written "
        "',,'.\n\n"
        "  ruche-vmm -m 1G -kernel vmlinuz -initrd initrd.img -append console=ttyS0 -nographic\n",
        RUCHE_VERSION);
    for (const struct option_row *const *r = option_rows(); *r; r++) {
        if (!(*r)->help)
            continue;
        if ((int)(*r)->group != group)
            g_print("\n%s\n", groups[group = (*r)->group]);
        g_autofree char *left = g_strdup_printf("-%s%s%s", (*r)->name, (*r)->arg ? " " : "",
                                                (*r)->arg ? (*r)->arg : "");
        print_row(left, (*r)->help);
    }
    g_print(
        "\nOn the console of -nographic, Ctrl-a x leaves and Ctrl-a c switches to the monitor.\n");
}

void help_machines(void)
{
    g_print("Boards:\n");
    for (const struct board_type *const *b = board_type_list(); *b; b++) {
        g_autofree char *aliases = (*b)->aliases ? g_strjoinv(", ", (char **)(*b)->aliases) : NULL;
        g_autofree char *text =
            g_strdup_printf("%s, up to %u CPUs%s%s%s", (*b)->summary, (*b)->max_cpus,
                            aliases && *aliases ? "; also called " : "", aliases ? aliases : "",
                            strcmp((*b)->name, DEFAULT_BOARD) ? "" : " (default)");
        print_row((*b)->name, text);
    }
}

static const char *const kind_names[] = {
    [PROP_KIND_BOOL] = "on|off",     [PROP_KIND_U8] = "number",   [PROP_KIND_U16] = "number",
    [PROP_KIND_U32] = "number",      [PROP_KIND_U64] = "number",  [PROP_KIND_I32] = "number",
    [PROP_KIND_SIZE] = "size",       [PROP_KIND_STRING] = "text", [PROP_KIND_ENUM] = "word",
    [PROP_KIND_MAC] = "MAC address", [PROP_KIND_ONOFFAUTO] = "on|off|auto",
};

/* "Descriptors per queue (256; 2 to 1024, a power of two)" */
static char *describe_prop(const struct prop *p)
{
    GString *s = g_string_new(p->help ? p->help : "");
    const char *sep = " (";
    switch (p->kind) {
    case PROP_KIND_BOOL:
        g_string_append_printf(s, "%s%s", sep, p->def ? "on" : "off"), sep = "; ";
        break;
    case PROP_KIND_STRING:
        if (p->def_str)
            g_string_append_printf(s, "%s%s", sep, p->def_str), sep = "; ";
        break;
    case PROP_KIND_ENUM:
        g_string_append_printf(s, "%s%s", sep, p->words[p->def]), sep = "; ";
        break;
    case PROP_KIND_ONOFFAUTO:
        g_string_append_printf(s, "%s%s", sep,
                               (int)p->def < 0 ? "auto"
                               : p->def        ? "on"
                                               : "off"),
            sep = "; ";
        break;
    case PROP_KIND_MAC:
        break;
    case PROP_KIND_I32:
        g_string_append_printf(s, "%s%d", sep, (int32_t)p->def), sep = "; ";
        break;
    default:
        g_string_append_printf(s, "%s%" G_GUINT64_FORMAT, sep, p->def), sep = "; ";
    }
    if (p->min || p->max) {
        g_string_append_printf(s, "%s%" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT, sep, p->min,
                               p->max);
        sep = "; ";
    }
    if (p->power_of_2)
        g_string_append_printf(s, "%sa power of two", sep), sep = "; ";
    if (sep[0] == ';')
        g_string_append_c(s, ')');
    return g_string_free(s, FALSE);
}

static void print_props(const struct prop *props)
{
    for (const struct prop *p = props; p && p->name; p++) {
        g_autofree char *words =
            p->kind == PROP_KIND_ENUM ? g_strjoinv("|", (char **)p->words) : NULL;
        g_autofree char *left =
            g_strdup_printf("%s=<%s>", p->name, words ? words : kind_names[p->kind]);
        g_autofree char *text = describe_prop(p);
        print_row(left, text);
    }
}

bool help_machine_properties(const char *type, GError **error)
{
    const struct board_type *b = board_type_find(type);
    if (!b)
        return board_unknown(type, error);
    g_print("Properties of board '%s':\n", b->name);
    print_row("accel=<names>", "as -accel");
    print_row("memory-backend=<id>", "the -object that gives the RAM");
    print_props(b->props);
    return true;
}

void help_accelerators(void)
{
    g_print("Accelerators (default: kvm:soft):\n");
    for (const struct accel_ops *const *a = accel_list(); *a; a++) {
        g_autofree char *why = NULL;
        bool works = (*a)->probe(true, &why);
        g_autofree char *text =
            g_strdup_printf("%s\n%s: %s", (*a)->summary,
                            works ? "works here" : "does not work here", why ? why : "");
        print_row((*a)->name, text);
    }
}

void help_cpus(void)
{
    g_print("Processor models (add ,+feature or ,-feature):\n");
    for (const char *const *n = cpu_model_names(); *n; n++)
        g_print("  %s\n", *n);
}

void help_devices(void)
{
    static const struct {
        enum device_bus bus;
        const char *title;
    } groups[] = {
        { BUS_PCI, "PCI devices" },
        { BUS_ISA, "Devices at fixed ports" },
        { BUS_VIRTIO_SERIAL, "Ports of a virtio console" },
        { BUS_SYSTEM, "Devices on the board" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(groups); i++) {
        bool titled = false;
        for (const struct device_type *const *t = device_type_list(); *t; t++) {
            if ((*t)->bus != groups[i].bus || (*t)->internal)
                continue;
            if (!titled)
                g_print("%s:\n", groups[i].title);
            titled = true;
            print_row((*t)->name, (*t)->summary ? (*t)->summary : "");
        }
    }
    g_print("'-device DRIVER,help' lists a device's properties.\n");
}

bool help_device(const char *type, GError **error)
{
    const struct device_type *t = device_type_find(type);
    if (!t)
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown device '%s'%s", type,
                           device_type_suggest(type));
    g_print("%s: %s%s%s%s\n", t->name, t->summary ? t->summary : "", t->spec ? " (" : "",
            t->spec ? t->spec : "", t->spec ? ")" : "");
    print_row("id=<text>", "name by which QMP knows the device");
    if (t->bus == BUS_PCI || t->bus == BUS_VIRTIO_SERIAL)
        print_row("bus=<text>", "the bus that it plugs into");
    print_props(t->props);
    return true;
}

void help_netdevs(void)
{
    g_print("Network backends:\n");
    for (const struct netdev_type *const *t = netdev_type_list(); *t; t++)
        print_row((*t)->name, (*t)->summary);
    g_print("'-netdev TYPE,help' lists a backend's properties.\n");
}

bool help_netdev(const char *type, GError **error)
{
    for (const struct netdev_type *const *t = netdev_type_list(); *t; t++) {
        if (strcmp((*t)->name, type))
            continue;
        g_print("%s: %s\n", (*t)->name, (*t)->summary);
        for (const struct netdev_prop *p = (*t)->props; p && p->name; p++)
            print_row(p->name, p->help ? p->help : "");
        return true;
    }
    return netdev_unknown(type, error);
}

void help_chardevs(void)
{
    g_print("Character backends:\n");
    for (const char *const *n = chardev_backends(); *n; n++)
        print_row(*n, chardev_backend_summary(*n));
    g_print("'-chardev BACKEND,help' lists a backend's properties.\n");
}

bool help_chardev(const char *backend, GError **error)
{
    if (!chardev_backend_summary(backend))
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown backend '%s'%s", backend,
                           suggest_phrase(backend, chardev_backends()));
    g_print("%s: %s\n", backend, chardev_backend_summary(backend));
    const char *name, *help;
    for (size_t i = 0; chardev_backend_option(backend, i, &name, &help); i++)
        print_row(name, help);
    return true;
}

void help_objects(void)
{
    g_print("Objects:\n");
    for (const struct object_type *t = object_types; t->name; t++)
        print_row(t->name, t->summary);
}

void help_log_items(void)
{
    g_print("Log items:\n");
    for (const struct log_item_name *i = log_item_names; i->name; i++)
        print_row(i->name, i->help);
}
