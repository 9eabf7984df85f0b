/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a device is, as XML.
 *
 * Spec      libvirt's formatnode, nodedev.rng at 9.0.0; Documentation/ABI of Linux; pci.ids.
 * Thread    The loop thread.
 */
#include "manager/markup.h"
#include "manager/node/device.h"
#include "manager/node/sysfs.h"
#include "manager/uuid.h"

#include <stdio.h>
#include <string.h>

#define TEXT_BYTES_MAX 1024

/* Makers write what they like: control characters become blanks. Takes `raw`. */
static char *clean(char *raw)
{
    g_autofree char *own = raw;
    if (!own || strlen(own) > TEXT_BYTES_MAX)
        return NULL;
    g_autofree char *text = g_utf8_make_valid(g_strstrip(own), -1);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    return *text ? g_steal_pointer(&text) : NULL;
}

char *node_device_text(const struct node_device *d, const char *file)
{
    return clean(sysfs_read("%s/%s", d->path, file));
}

static void add_text(GString *b, const struct node_device *d, const char *element, const char *file)
{
    g_autofree char *text = node_device_text(d, file);
    if (!text)
        return;
    g_string_append_printf(b, "    <%s>", element);
    markup_add(b, "%s", text);
    g_string_append_printf(b, "</%s>\n", element);
}

static bool number(const struct node_device *d, const char *file, int base, uint64_t *ret)
{
    g_autofree char *text = node_device_text(d, file);
    return text && g_ascii_string_to_unsigned(g_str_has_prefix(text, "0x") ? text + 2 : text,
                                              (guint)base, 0, UINT64_MAX, ret, NULL);
}

static void add_number(GString *b, const struct node_device *d, const char *element,
                       const char *file, int base)
{
    uint64_t v;
    if (number(d, file, base, &v))
        g_string_append_printf(b, "    <%s>%" PRIu64 "</%s>\n", element, v, element);
}

static char *link_end(const struct node_device *d, const char *file)
{
    g_autofree char *path = g_strdup_printf("%s/%s", d->path, file), *full = sysfs_path(path);
    g_autofree char *target = g_file_read_link(full, NULL);
    return target ? g_path_get_basename(target) : NULL;
}

/* ---- the computer ---- */

static void add_dmi(GString *b, const char *indent, const char *element, const char *file)
{
    g_autofree char *text = clean(sysfs_read("/sys/class/dmi/id/%s", file));
    if (!text)
        return;
    g_string_append_printf(b, "%s<%s>", indent, element);
    markup_add(b, "%s", text);
    g_string_append_printf(b, "</%s>\n", element);
}

static void add_system(GString *b, const struct node_device *d)
{
    char uuid[UUID_TEXT_BYTES];
    uuid_format(manager.host_uuid, uuid);
    add_dmi(b, "    ", "product", "product_name");
    g_string_append(b, "    <hardware>\n");
    add_dmi(b, "      ", "vendor", "sys_vendor");
    add_dmi(b, "      ", "version", "product_version");
    add_dmi(b, "      ", "serial", "product_serial");
    g_string_append_printf(b, "      <uuid>%s</uuid>\n    </hardware>\n    <firmware>\n", uuid);
    add_dmi(b, "      ", "vendor", "bios_vendor");
    add_dmi(b, "      ", "version", "bios_version");
    add_dmi(b, "      ", "release_date", "bios_date");
    g_string_append(b, "    </firmware>\n");
}

/* ---- PCI ---- */

/* The line that begins with `id` between two places of pci.ids; those of devices have a tab before.
 */
static const char *ids_line(const char *from, const char *to, const char *id)
{
    size_t len = strlen(id);
    for (const char *p = from; p && p + len + 2 < to; p = memchr(p, '\n', (size_t)(to - p))) {
        p += *p == '\n';
        if ((size_t)(to - p) > len + 2 && !strncmp(p, id, len) && p[len] == ' ')
            return p + len + 2;
        if (*id == '\t' && *p != '\t' && *p != '#')
            return NULL; /* the next vendor's */
    }
    return NULL;
}

static char *ids_rest(const char *p, const char *to)
{
    const char *end = p ? memchr(p, '\n', (size_t)(to - p)) : NULL;
    return end ? clean(g_strndup(p, (gsize)(end - p))) : NULL;
}

/* Names where this host has the table; NULL otherwise. */
static void pci_names(uint64_t vendor, uint64_t product, char **ret_vendor, char **ret_product)
{
    static const char *const files[] = {"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"};
    g_autoptr(GMappedFile) ids = NULL;
    char id[16];
    *ret_vendor = *ret_product = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(files) && !ids; i++)
        ids = g_mapped_file_new(files[i], FALSE, NULL);
    if (!ids || !g_mapped_file_get_length(ids))
        return;
    const char *from = g_mapped_file_get_contents(ids), *to = from + g_mapped_file_get_length(ids);
    g_snprintf(id, sizeof(id), "%04x", (unsigned)vendor);
    const char *line = ids_line(from, to, id);
    *ret_vendor = ids_rest(line, to);
    const char *next = line ? memchr(line, '\n', (size_t)(to - line)) : NULL;
    g_snprintf(id, sizeof(id), "\t%04x", (unsigned)product);
    *ret_product = next ? ids_rest(ids_line(next + 1, to, id), to) : NULL;
}

static void add_id(GString *b, const char *element, uint64_t id, const char *name)
{
    if (name) {
        g_string_append_printf(b, "    <%s id='0x%04x'>", element, (unsigned)id);
        markup_add(b, "%s", name);
        g_string_append_printf(b, "</%s>\n", element);
    } else {
        g_string_append_printf(b, "    <%s id='0x%04x'/>\n", element, (unsigned)id);
    }
}

struct pci {
    unsigned domain, bus, slot, function;
};

static bool parse_pci(const char *text, struct pci *ret)
{
    char rest;
    return text && sscanf(text, "%x:%x:%x.%x%c", &ret->domain, &ret->bus, &ret->slot,
                          &ret->function, &rest) == 4;
}

static void add_address(GString *b, const struct pci *p)
{
    g_string_append_printf(
        b, "      <address domain='0x%04x' bus='0x%02x' slot='0x%02x' function='0x%x'/>\n",
        p->domain, p->bus, p->slot, p->function);
}

static void add_functions(GString *b, const struct node_device *d)
{
    struct pci p;
    uint64_t most;
    g_autofree char *physical = link_end(d, "physfn");
    if (parse_pci(physical, &p)) {
        g_string_append(b, "    <capability type='phys_function'>\n");
        add_address(b, &p);
        g_string_append(b, "    </capability>\n");
    }
    if (!number(d, "sriov_totalvfs", 10, &most) || !most)
        return;
    g_string_append_printf(b, "    <capability type='virt_functions' maxCount='%u'>\n",
                           (unsigned)most);
    for (unsigned i = 0; i < most && i < 4096; i++) {
        g_autofree char *file = g_strdup_printf("virtfn%u", i), *function = link_end(d, file);
        if (!parse_pci(function, &p))
            break;
        add_address(b, &p);
    }
    g_string_append(b, "    </capability>\n");
}

static void add_mdev_types(GString *b, const struct node_device *d)
{
    g_autofree char *path = g_strdup_printf("%s/mdev_supported_types", d->path);
    g_autofree char *full = sysfs_path(path);
    g_autoptr(GDir) dir = g_dir_open(full, 0, NULL);
    g_autoptr(GString) types = g_string_new(NULL);
    for (const char *id; dir && (id = g_dir_read_name(dir));) {
        g_autofree char *api = clean(sysfs_read("%s/%s/device_api", path, id));
        g_autofree char *name = clean(sysfs_read("%s/%s/name", path, id));
        uint64_t left = 0;
        if (!api || !g_utf8_validate(id, -1, NULL) ||
            !sysfs_read_u64(&left, "%s/%s/available_instances", path, id))
            continue;
        markup_add(types, "      <type id='%s'>\n", id);
        if (name)
            markup_add(types, "        <name>%s</name>\n", name);
        markup_add(types, "        <deviceAPI>%s</deviceAPI>\n", api);
        g_string_append_printf(types,
                               "        <availableInstances>%u</availableInstances>\n"
                               "      </type>\n",
                               (unsigned)left);
    }
    if (types->len)
        g_string_append_printf(b, "    <capability type='mdev_types'>\n%s    </capability>\n",
                               types->str);
}

static void add_iommu(GString *b, const struct node_device *d)
{
    g_autofree char *group = link_end(d, "iommu_group");
    g_autofree char *path = g_strdup_printf("%s/iommu_group/devices", d->path);
    g_autofree char *full = sysfs_path(path);
    g_autoptr(GDir) dir = group ? g_dir_open(full, 0, NULL) : NULL;
    g_autoptr(GString) members = g_string_new(NULL);
    struct pci p;
    for (const char *name; dir && (name = g_dir_read_name(dir));)
        if (parse_pci(name, &p))
            add_address(members, &p);
    if (members->len)
        markup_add(b, "    <iommuGroup number='%s'>\n", group);
    if (members->len)
        g_string_append_printf(b, "%s    </iommuGroup>\n", members->str);
}

/* Of a link that cannot say, or is down, only the width is known. */
static void add_pcie_link(GString *b, const struct node_device *d, const char *validity,
                          const char *speed_file, const char *width_file)
{
    g_autofree char *speed = node_device_text(d, speed_file);
    size_t digits = speed ? strspn(speed, "0123456789.") : 0;
    uint64_t width;
    if (!number(d, width_file, 10, &width))
        return;
    g_string_append_printf(b, "      <link validity='%s'", validity);
    if (digits && g_str_has_prefix(speed + digits, " GT/s")) {
        /* "5.0" is written "5" */
        digits -= digits > 2 && !strncmp(speed + digits - 2, ".0", 2) ? 2 : 0;
        g_string_append_printf(b, " speed='%.*s'", (int)digits, speed);
    }
    g_string_append_printf(b, " width='%u'/>\n", (unsigned)width);
}

static void add_pcie(GString *b, const struct node_device *d)
{
    uint64_t most;
    if (!number(d, "max_link_width", 10, &most) || !most || most == 255) /* 255: no PCI Express */
        return;
    g_string_append(b, "    <pci-express>\n");
    add_pcie_link(b, d, "cap", "max_link_speed", "max_link_width");
    add_pcie_link(b, d, "sta", "current_link_speed", "current_link_width");
    g_string_append(b, "    </pci-express>\n");
}

static void add_pci(GString *b, const struct node_device *d)
{
    g_autofree char *entry = g_path_get_basename(d->path), *vendor_name = NULL,
                    *product_name = NULL, *node = node_device_text(d, "numa_node");
    uint64_t class = 0, vendor = 0, product = 0;
    struct pci p = {0};
    parse_pci(entry, &p);
    number(d, "vendor", 16, &vendor);
    number(d, "device", 16, &product);
    if (number(d, "class", 16, &class))
        g_string_append_printf(b, "    <class>0x%06x</class>\n", (unsigned)class & 0xffffff);
    g_string_append_printf(b,
                           "    <domain>%u</domain>\n    <bus>%u</bus>\n    <slot>%u</slot>\n"
                           "    <function>%u</function>\n",
                           p.domain, p.bus, p.slot, p.function);
    pci_names(vendor, product, &vendor_name, &product_name);
    add_id(b, "product", product, product_name);
    add_id(b, "vendor", vendor, vendor_name);
    add_functions(b, d);
    if (class >> 8 == 0x0604 || class >> 8 == 0x0607)
        g_string_append_printf(b, "    <capability type='%s'/>\n",
                               class >> 8 == 0x0604 ? "pci-bridge" : "cardbus-bridge");
    add_mdev_types(b, d);
    add_iommu(b, d);
    if (node && g_ascii_isdigit(*node))
        markup_add(b, "    <numa node='%s'/>\n", node);
    add_pcie(b, d);
}

/* ---- others ---- */

static void add_usb(GString *b, const struct node_device *d)
{
    uint64_t vendor = 0, product = 0;
    g_autofree char *vendor_name = node_device_text(d, "manufacturer"),
                    *product_name = node_device_text(d, "product");
    number(d, "idVendor", 16, &vendor);
    number(d, "idProduct", 16, &product);
    add_number(b, d, "bus", "busnum", 10);
    add_number(b, d, "device", "devnum", 10);
    add_id(b, "product", product, product_name);
    add_id(b, "vendor", vendor, vendor_name);
}

static void add_usb_interface(GString *b, const struct node_device *d)
{
    add_number(b, d, "number", "bInterfaceNumber", 16);
    add_number(b, d, "class", "bInterfaceClass", 16);
    add_number(b, d, "subclass", "bInterfaceSubClass", 16);
    add_number(b, d, "protocol", "bInterfaceProtocol", 16);
    add_text(b, d, "description", "interface");
}

static void add_net(GString *b, const struct node_device *d)
{
    g_autofree char *name = g_path_get_basename(d->path), *wireless = NULL,
                    *state = node_device_text(d, "operstate"),
                    *mac = node_device_text(d, "address");
    uint64_t speed;
    wireless = g_strdup_printf("%s/wireless", d->path);
    markup_add(b, "    <interface>%s</interface>\n", name);
    if (mac && strlen(mac) == 17)
        markup_add(b, "    <address>%s</address>\n", mac);
    if (state && !strcmp(state, "up") && number(d, "speed", 10, &speed) && speed < UINT32_MAX)
        g_string_append_printf(b, "    <link speed='%u' state='up'/>\n", (unsigned)speed);
    else if (state)
        markup_add(b, "    <link state='%s'/>\n", state);
    g_string_append_printf(b, "    <capability type='%s'/>\n",
                           sysfs_exists(wireless) ? "80211" : "80203");
}

static void add_wwn(GString *b, const char *element, const char *host, const char *file)
{
    g_autofree char *text = clean(sysfs_read("/sys/class/fc_host/%s/%s", host, file));
    if (!text)
        return;
    g_string_append_printf(b, "      <%s>", element);
    markup_add(b, "%s", g_str_has_prefix(text, "0x") ? text + 2 : text);
    g_string_append_printf(b, "</%s>\n", element);
}

static void add_scsi_host(GString *b, const struct node_device *d)
{
    g_autofree char *host = g_path_get_basename(d->path);
    g_string_append_printf(b, "    <host>%u</host>\n",
                           (unsigned)g_ascii_strtoull(host + 4, NULL, 10));
    add_number(b, d, "unique_id", "unique_id", 10);
    if (!(d->caps & 1u << DEVICE_FC_HOST))
        return;
    g_string_append(b, "    <capability type='fc_host'>\n");
    add_wwn(b, "wwnn", host, "node_name");
    add_wwn(b, "wwpn", host, "port_name");
    add_wwn(b, "fabric_wwn", host, "fabric_name");
    g_string_append(b, "    </capability>\n");
}

static void add_scsi_target(GString *b, const struct node_device *d)
{
    g_autofree char *name = g_path_get_basename(d->path);
    markup_add(b, "    <target>%s</target>\n", name);
}

static void add_scsi(GString *b, const struct node_device *d)
{
    static const struct {
        unsigned type;
        const char *word;
    } types[] = {{0, "disk"},    {1, "tape"},    {3, "processor"}, {4, "worm"},      {5, "cdrom"},
                 {6, "scanner"}, {8, "changer"}, {12, "raid"},     {13, "enclosure"}};
    g_autofree char *name = g_path_get_basename(d->path);
    unsigned host = 0, bus = 0, target = 0, lun = 0;
    uint64_t type;
    if (sscanf(name, "%u:%u:%u:%u", &host, &bus, &target, &lun) != 4)
        host = bus = target = lun = 0;
    g_string_append_printf(b,
                           "    <host>%u</host>\n    <bus>%u</bus>\n    <target>%u</target>\n"
                           "    <lun>%u</lun>\n",
                           host, bus, target, lun);
    for (unsigned i = 0; number(d, "type", 10, &type) && i < G_N_ELEMENTS(types); i++)
        if (types[i].type == type)
            g_string_append_printf(b, "    <type>%s</type>\n", types[i].word);
}

static void add_storage(GString *b, const struct node_device *d)
{
    g_autofree char *name = g_path_get_basename(d->path);
    uint64_t sectors = 0, block = 0, removable = 0;
    bool cdrom = g_str_has_prefix(name, "sr");
    number(d, "size", 10, &sectors);
    number(d, "queue/logical_block_size", 10, &block);
    number(d, "removable", 10, &removable);
    sectors = MIN(sectors, UINT64_MAX / 512);
    markup_add(b, "    <block>/dev/%s</block>\n", name);
    g_string_append_printf(b, "    <drive_type>%s</drive_type>\n", cdrom ? "cdrom" : "disk");
    add_text(b, d, "model", "device/model");
    add_text(b, d, "vendor", "device/vendor");
    add_text(b, d, "serial", "serial");
    if (removable)
        g_string_append_printf(b,
                               "    <capability type='removable'>\n"
                               "      <media_available>%d</media_available>\n"
                               "      <media_size>%" PRIu64 "</media_size>\n",
                               sectors > 0, sectors * 512);
    else
        g_string_append_printf(b, "    <size>%" PRIu64 "</size>\n", sectors * 512);
    if (block)
        g_string_append_printf(b,
                               "    <logical_block_size>%" PRIu64 "</logical_block_size>\n"
                               "    <num_blocks>%" PRIu64 "</num_blocks>\n",
                               block, sectors * 512 / block);
    if (removable)
        g_string_append(b, "    </capability>\n");
}

static void add_scsi_generic(GString *b, const struct node_device *d)
{
    g_autofree char *name = g_path_get_basename(d->path);
    markup_add(b, "    <char>/dev/%s</char>\n", name);
}

const char *node_device_drm_type(const char *entry)
{
    static const char *const rows[][2] = {
        {"card", "primary"}, {"controlD", "control"}, {"renderD", "render"}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        size_t len = strlen(rows[i][0]);
        if (!strncmp(entry, rows[i][0], len) && entry[len] &&
            !entry[len + strspn(entry + len, "0123456789")])
            return rows[i][1];
    }
    return NULL;
}

static void add_drm(GString *b, const struct node_device *d)
{
    const char *type = node_device_drm_type(strrchr(d->path, '/') + 1);
    g_string_append_printf(b, "    <type>%s</type>\n", type ? type : "primary");
}

static void add_mdev(GString *b, const struct node_device *d)
{
    g_autofree char *uuid = g_path_get_basename(d->path), *type = link_end(d, "mdev_type"),
                    *group = link_end(d, "iommu_group");
    markup_add(b, "    <type id='%s'/>\n    <uuid>%s</uuid>\n", type ? type : "", uuid);
    if (group)
        markup_add(b, "    <iommuGroup number='%s'/>\n", group);
}

static void (*const adders[DEVICE_CAPS])(GString *b, const struct node_device *d) = {
    [DEVICE_SYSTEM] = add_system,
    [DEVICE_PCI] = add_pci,
    [DEVICE_USB] = add_usb,
    [DEVICE_USB_INTERFACE] = add_usb_interface,
    [DEVICE_NET] = add_net,
    [DEVICE_SCSI_HOST] = add_scsi_host,
    [DEVICE_SCSI_TARGET] = add_scsi_target,
    [DEVICE_SCSI] = add_scsi,
    [DEVICE_STORAGE] = add_storage,
    [DEVICE_SCSI_GENERIC] = add_scsi_generic,
    [DEVICE_DRM] = add_drm,
    [DEVICE_MDEV] = add_mdev,
};

char *node_device_driver(const struct node_device *d)
{
    return link_end(d, "driver");
}

char *node_device_xml(const struct node_device *d)
{
    if (!d->active)
        return g_strdup(d->text);
    GString *b = g_string_new("<device>\n");
    g_autofree char *driver = d->path ? node_device_driver(d) : NULL;
    g_autofree char *name = d->path ? g_path_get_basename(d->path) : NULL;
    markup_add(b, "  <name>%s</name>\n", d->name);
    if (d->path)
        markup_add(b, "  <path>%s</path>\n", d->path);
    if (d->kind == DEVICE_STORAGE || d->kind == DEVICE_SCSI_GENERIC || d->kind == DEVICE_DRM)
        markup_add(b, "  <devnode type='dev'>/dev/%s%s</devnode>\n",
                   d->kind == DEVICE_DRM ? "dri/" : "", name);
    if (d->parent)
        markup_add(b, "  <parent>%s</parent>\n", d->parent);
    if (driver)
        markup_add(b, "  <driver>\n    <name>%s</name>\n  </driver>\n", driver);
    markup_add(b, "  <capability type='%s'>\n", node_device_cap_name(d->kind));
    adders[d->kind](b, d);
    g_string_append(b, "  </capability>\n</device>\n");
    return g_string_free(b, FALSE);
}
