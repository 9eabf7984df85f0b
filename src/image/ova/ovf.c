/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disks that an OVF description names.
 *
 * Spec      DSP0243, References and DiskSection.
 * Thread    Any.
 * Trust     The XML is hostile: no network, and a document type (which entities need) ends the
 * parsing at once. libxml2 bounds the depth itself.
 */
#include "image/ova/internal.h"

#include <libxml/parser.h>
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

static bool is_named(const xmlNode *n, const char *name)
{
    return n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, name) == 0;
}

/* The next element of that name among n and what follows it; NULL: none. Namespaces differ between
 * writers. */
static xmlNode *find_element(xmlNode *n, const char *name)
{
    while (n && !is_named(n, name))
        n = n->next;
    return n;
}

/* Caller frees; NULL: it is not there. */
static char *attribute(const xmlNode *n, const char *name)
{
    for (const xmlAttr *a = n->properties; a; a = a->next) {
        if (strcmp((const char *)a->name, name) != 0)
            continue;
        xmlChar *value = xmlNodeListGetString(n->doc, a->children, 1);
        char *copy = g_strdup(value ? (const char *)value : "");
        xmlFree(value);
        return copy;
    }
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

static uint64_t parse_capacity(const xmlNode *disk)
{
    g_autofree char *text = attribute(disk, "capacity"),
                    *unit_text = attribute(disk, "capacityAllocationUnits");
    uint64_t unit = parse_unit(unit_text), n;
    if (!text || !unit || !g_ascii_string_to_unsigned(text, 10, 0, IMAGE_SIZE_MAX / unit, &n, NULL))
        return 0;
    return n * unit;
}

/* The File of that id; NULL: none. */
static xmlNode *find_file(xmlNode *envelope, const char *id)
{
    xmlNode *references = find_element(envelope->children, "References");
    for (xmlNode *f = references ? find_element(references->children, "File") : NULL; f;
         f = find_element(f->next, "File")) {
        g_autofree char *have = attribute(f, "id");
        if (have && strcmp(have, id) == 0)
            return f;
    }
    return NULL;
}

static bool add_disk(xmlNode *envelope, const xmlNode *disk, GArray *to, const char *archive,
                     GError **error)
{
    g_autofree char *ref = attribute(disk, "fileRef");
    if (!ref || !*ref)
        return true; /* an empty disk: nothing to extract */
    const xmlNode *file = find_file(envelope, ref);
    g_autofree char *href = file ? attribute(file, "href") : NULL;
    g_autofree char *chunk = file ? attribute(file, "chunkSize") : NULL;
    if (!href)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the description has no file '%.200s', which a disk refers to",
                           archive, ref);
    if (to->len >= OVA_DISKS_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the description has over %d disks",
                           archive, OVA_DISKS_MAX);
    struct ovf_disk d = {
        .disk_id = attribute(disk, "diskId"),
        .href = g_steal_pointer(&href),
        .format_uri = attribute(disk, "format"),
        .compression = attribute(file, "compression"),
        .parent = attribute(disk, "parentRef"),
        .capacity_bytes = parse_capacity(disk),
        .chunked = chunk && *chunk,
    };
    g_array_append_val(to, d);
    return true;
}

static bool collect(xmlNode *envelope, GArray *to, const char *archive, GError **error)
{
    if (!envelope || !is_named(envelope, "Envelope"))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the description is no OVF envelope",
                           archive);
    xmlNode *section = find_element(envelope->children, "DiskSection");
    for (xmlNode *d = section ? find_element(section->children, "Disk") : NULL; d;
         d = find_element(d->next, "Disk"))
        if (!add_disk(envelope, d, to, archive, error))
            return false;
    return true;
}

static void refuse_document_type(void *ctx, const xmlChar *name, const xmlChar *id,
                                 const xmlChar *system)
{
    xmlStopParser(ctx);
}

GArray *ovf_parse(const char *xml, size_t len, const char *archive, GError **error)
{
    xmlParserCtxt *ctx = xmlNewParserCtxt();
    if (!ctx) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory for the description", archive);
        return NULL;
    }
    ctx->sax->internalSubset = refuse_document_type;
    xmlDoc *doc = xmlCtxtReadMemory(ctx, xml, (int)len, NULL, NULL,
                                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    bool stopped = ctx->disableSAX;
    xmlFreeParserCtxt(ctx);
    GArray *disks = g_array_new(FALSE, FALSE, sizeof(struct ovf_disk));
    g_array_set_clear_func(disks, disk_clear);
    bool ok =
        doc && !stopped
            ? collect(xmlDocGetRootElement(doc), disks, archive, error)
            : ruche_error(error, RUCHE_ERR_INVALID,
                          "%s: the description is not well-formed XML, or has a document type",
                          archive);
    xmlFreeDoc(doc);
    if (ok)
        return disks;
    g_array_unref(disks);
    return NULL;
}
