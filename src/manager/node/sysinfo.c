/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's own SMBIOS texts.
 *
 * Spec      /sys/class/dmi/id of Linux; libvirt's <sysinfo type='smbios'>, sysinfo of
 *           domaincommon.rng.
 * Thread    The loop thread.
 */
#include "manager/markup.h"
#include "manager/node/node.h"
#include "manager/node/sysfs.h"

#include <string.h>

struct dmi_row {
    const char *element, *entry, *file;
};
static const struct dmi_row dmi_rows[] = {
    {"bios", "vendor", "bios_vendor"},
    {"bios", "version", "bios_version"},
    {"bios", "date", "bios_date"},
    {"bios", "release", "bios_release"},
    {"system", "manufacturer", "sys_vendor"},
    {"system", "product", "product_name"},
    {"system", "version", "product_version"},
    {"system", "serial", "product_serial"},
    {"system", "uuid", "product_uuid"},
    {"system", "sku", "product_sku"},
    {"system", "family", "product_family"},
    {"baseBoard", "manufacturer", "board_vendor"},
    {"baseBoard", "product", "board_name"},
    {"baseBoard", "version", "board_version"},
    {"baseBoard", "serial", "board_serial"},
    {"baseBoard", "asset", "board_asset_tag"},
    {"chassis", "manufacturer", "chassis_vendor"},
    {"chassis", "version", "chassis_version"},
    {"chassis", "serial", "chassis_serial"},
    {"chassis", "asset", "chassis_asset_tag"},
};

/* Firmware writes what it likes: only what XML can hold is passed on. */
static char *read_text(const char *file)
{
    g_autofree char *raw = sysfs_read("/sys/class/dmi/id/%s", file);
    if (!raw || strlen(raw) > 1024)
        return NULL;
    g_autofree char *text = g_utf8_make_valid(g_strstrip(raw), -1);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    return *text ? g_steal_pointer(&text) : NULL;
}

static void add_rows(GString *b, const char *element)
{
    g_autoptr(GString) inner = g_string_new(NULL);
    for (unsigned i = 0; i < ARRAY_COUNT(dmi_rows); i++) {
        if (strcmp(dmi_rows[i].element, element) != 0)
            continue;
        g_autofree char *text = read_text(dmi_rows[i].file);
        if (text)
            markup_add(inner, "    <entry name='%s'>%s</entry>\n", dmi_rows[i].entry, text);
    }
    if (inner->len)
        g_string_append_printf(b, "  <%s>\n%s  </%s>\n", element, inner->str, element);
}

char *node_sysinfo(const struct caller *who, GError **error)
{
    static const char *const elements[] = {"bios", "system", "baseBoard", "chassis"};
    if (!access_check(who, RIGHT_READ, "read host's system information", error))
        return NULL;
    g_autoptr(GString) b = g_string_new("<sysinfo type='smbios'>\n");
    size_t empty = b->len;
    for (unsigned i = 0; i < ARRAY_COUNT(elements); i++)
        add_rows(b, elements[i]);
    if (b->len == empty) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "this host has no SMBIOS information");
        return NULL;
    }
    g_string_append(b, "</sysinfo>\n");
    return g_string_free(g_steal_pointer(&b), FALSE);
}
