/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disks that an OVF description names.
 *
 * Spec      DSP0243, References and DiskSection.
 * Thread    Any.
 * Trust     The XML is hostile: base/xml.h has its limits.
 */
#include "base/xml.h"
#include "image/ova/internal.h"

#include <string.h>

static void disk_clear(gpointer data)
{
    struct ovf_disk *d = data;
    g_free(d->disk_id);
    g_free(d->href);
    g_free(d->format_uri);
    g_free(d->compression);
    g_free(d->parent);
}

/* The next element of that name among n and what follows it; NULL: none. Namespaces differ between
 * writers. */
static const struct xml_node *find_element(const struct xml_node *n, const char *name)
{
    while (n && strcmp(n->name, name) != 0)
        n = n->next;
    return n;
}

/* In any namespace, too; NULL: it is not there. */
static const char *attribute(const struct xml_node *n, const char *name)
{
    for (const struct xml_attr *a = n->attrs; a; a = a->next)
        if (!strcmp(a->name, name))
            return a->value;
    return NULL;
}

/* "byte", "byte * 2^30"; 0: something else. */
static uint64_t parse_unit(const char *unit)
{
    if (!unit || !*unit)
        return 1;
    GString *plain = g_string_new(NULL);
    for (const char *p = unit; *p; p++)
        if (!g_ascii_isspace(*p))
            g_string_append_c(plain, g_ascii_tolower(*p));
    uint64_t ret = 0, power;
    if (!strcmp(plain->str, "byte") || !strcmp(plain->str, "bytes"))
        ret = 1;
    else if (g_str_has_prefix(plain->str, "byte*2^") &&
             g_ascii_string_to_unsigned(plain->str + 7, 10, 0, 60, &power, NULL))
        ret = 1ULL << power;
    g_string_free(plain, TRUE);
    return ret;
}

static uint64_t parse_capacity(const struct xml_node *disk)
{
    const char *text = attribute(disk, "capacity"),
               *unit_text = attribute(disk, "capacityAllocationUnits");
    uint64_t unit = parse_unit(unit_text), n;
    if (!text || !unit || !g_ascii_string_to_unsigned(text, 10, 0, IMAGE_SIZE_MAX / unit, &n, NULL))
        return 0;
    return n * unit;
}

/* The File of that id; NULL: none. */
static const struct xml_node *find_file(const struct xml_node *envelope, const char *id)
{
    const struct xml_node *references = find_element(envelope->children, "References");
    for (const struct xml_node *f = references ? find_element(references->children, "File") : NULL;
         f; f = find_element(f->next, "File")) {
        const char *have = attribute(f, "id");
        if (have && strcmp(have, id) == 0)
            return f;
    }
    return NULL;
}

static bool add_disk(const struct xml_node *envelope, const struct xml_node *disk, GArray *to,
                     const char *archive, GError **error)
{
    const char *ref = attribute(disk, "fileRef");
    if (!ref || !*ref)
        return true; /* an empty disk: nothing to extract */
    const struct xml_node *file = find_file(envelope, ref);
    const char *href = file ? attribute(file, "href") : NULL,
               *chunk = file ? attribute(file, "chunkSize") : NULL;
    if (!href)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the description has no file '%.200s', which a disk refers to",
                           archive, ref);
    if (to->len >= OVA_DISKS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the description has over %d disks",
                           archive, OVA_DISKS_MAX);
    struct ovf_disk d = {
        .disk_id = g_strdup(attribute(disk, "diskId")),
        .href = g_strdup(href),
        .format_uri = g_strdup(attribute(disk, "format")),
        .compression = g_strdup(attribute(file, "compression")),
        .parent = g_strdup(attribute(disk, "parentRef")),
        .capacity_bytes = parse_capacity(disk),
        .chunked = chunk && *chunk,
    };
    g_array_append_val(to, d);
    return true;
}

static bool collect(const struct xml_node *envelope, GArray *to, const char *archive,
                    GError **error)
{
    if (strcmp(envelope->name, "Envelope") != 0)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the description is no OVF envelope",
                           archive);
    const struct xml_node *section = find_element(envelope->children, "DiskSection");
    for (const struct xml_node *d = section ? find_element(section->children, "Disk") : NULL; d;
         d = find_element(d->next, "Disk"))
        if (!add_disk(envelope, d, to, archive, error))
            return false;
    return true;
}

GArray *ovf_parse(const char *xml, size_t len, const char *archive, GError **error)
{
    auto_xml *envelope = xml_parse(xml, len, NULL, error);
    if (!envelope) {
        g_prefix_error(error, "%s: the description: ", archive);
        return NULL;
    }
    GArray *disks = g_array_new(FALSE, FALSE, sizeof(struct ovf_disk));
    g_array_set_clear_func(disks, disk_clear);
    if (collect(envelope, disks, archive, error))
        return disks;
    g_array_unref(disks);
    return NULL;
}
