/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Definitions made of others: devices in, out and replaced; metadata; another name. */
#include "manager/domain/def_internal.h"
#include "manager/uuid.h"

static xmlDoc *copy_of(struct domain_def *d)
{
    return xmlCopyDoc(domain_def_tree(d)->doc, 1);
}

/* ---- devices ---- */

static bool same_at(const xmlNode *a, const xmlNode *b, const char *path)
{
    const char *x = xml_get(a, path), *y = xml_get(b, path);
    return x && y && !strcmp(x, y);
}

/* Everything that `want` says, `have` says too: attributes, text and elements. */
static bool says_all(const xmlNode *have, const xmlNode *want)
{
    for (const xmlAttr *a = want->properties; a; a = a->next) {
        g_autofree char *path = g_strdup_printf("@%s", (const char *)a->name);
        if (g_strcmp0(xml_get(have, path), xml_get(want, path)) != 0)
            return false;
    }
    if (*xml_get(want, "") && !element_from(want->children) &&
        strcmp(xml_get(have, ""), xml_get(want, "")) != 0)
        return false;
    FOREACH_ELEMENT (c, want) {
        bool found = false;
        FOREACH_NAMED (h, have, (const char *)c->name)
            found = found || says_all(h, c);
        if (!found)
            return false;
    }
    return true;
}

/* Is `have` the device that `want` names? */
static bool is_meant(const xmlNode *have, const xmlNode *want)
{
    if (!is_named(have, (const char *)want->name))
        return false;
    if (xml_get(want, "alias@name") && xml_get(have, "alias@name") &&
        !same_at(have, want, "alias@name"))
        return false;
    if (is_named(want, "disk"))
        return same_at(have, want, "target@dev");
    if (is_named(want, "interface")) {
        const xmlNode *a = xml_find(want, "address"), *b = xml_find(have, "address");
        return (!xml_get(want, "mac@address") || same_at(have, want, "mac@address")) &&
               (!a || !b || says_all(b, a));
    }
    if (is_named(want, "controller"))
        return same_at(have, want, "@type") && same_at(have, want, "@index");
    if (is_named(want, "graphics"))
        return same_at(have, want, "@type");
    if (is_named(want, "memballoon") || is_named(want, "watchdog"))
        return true;
    return says_all(have, want);
}

static xmlNode *find_meant(xmlNode *devices, const xmlNode *want, GError **error)
{
    xmlNode *found = NULL;
    FOREACH_NAMED (c, devices, (const char *)want->name) {
        if (!is_meant(c, want))
            continue;
        if (found && is_named(want, "interface")) {
            ruche_error(error, MANAGER_ERR_CONFIG,
                        "several interfaces fit what is given; add a MAC or PCI address");
            return NULL;
        }
        found = found ? found : c;
    }
    if (found)
        return found;
    const char *id =
        is_named(want, "disk") ? xml_get(want, "target@dev") : xml_get(want, "mac@address");
    ruche_error(error, MANAGER_ERR_CONFIG, "there is no %s%s%s%s that fits what is given",
                (const char *)want->name, id ? " '" : "", id ? id : "", id ? "'" : "");
    return NULL;
}

/* Takes out the twin of the first serial port, or of the first console. */
static void drop_twin(xmlNode *devices, const xmlNode *gone)
{
    bool serial = is_named(gone, "serial");
    xmlNode *console = xml_find(devices, "console");
    if ((serial || is_named(gone, "console")) && console &&
        xml_is(console, "target@type", "serial")) {
        xmlNode *twin = serial ? (same_at(console, gone, "target@port") ? console : NULL)
                               : xml_find(devices, "serial");
        if (twin && twin != gone) {
            xmlUnlinkNode(twin);
            xmlFreeNode(twin);
        }
    }
}

/* What a new text leaves out of a device's place stays as it was. */
static void inherit(xmlNode *fresh, const xmlNode *old)
{
    static const char *const kept[] = {"address", "alias", "mac", "target", "model"};
    bool interface = is_named(old, "interface");
    for (size_t i = 0; i < (interface ? 5 : 2); i++)
        if (!xml_find(fresh, kept[i]) && xml_find(old, kept[i]))
            xmlAddChild(fresh, xmlDocCopyNode(xml_find(old, kept[i]), fresh->doc, 1));
    if (is_named(old, "disk"))
        set_missing(fresh, "target@bus", xml_get_or(old, "target@bus", "virtio"));
}

static bool has_same_mac(const xmlNode *devices, const xmlNode *n)
{
    FOREACH_NAMED (c, devices, "interface")
        if (c != n && same_at(c, n, "mac@address"))
            return true;
    return false;
}

static bool attach(xmlNode *devices, xmlNode *fresh, GError **error)
{
    static const char *const single[] = {"memballoon", "watchdog", "vsock", "iommu", "nvram", NULL};
    const xmlNode *other = xml_find(devices, (const char *)fresh->name);
    if (is_named(fresh, "memballoon") && other && xml_is(other, "@model", "none"))
        xml_remove(devices, "memballoon");
    else if (other && g_strv_contains(single, (const char *)fresh->name))
        return ruche_error(error, MANAGER_ERR_CONFIG, "the domain already has a %s",
                           (const char *)fresh->name);
    if (is_named(fresh, "interface") && has_same_mac(devices, fresh))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "the domain already has an interface with MAC address %s",
                           xml_get(fresh, "mac@address"));
    xmlAddChild(devices, xmlDocCopyNode(fresh, devices->doc, 1));
    return true;
}

void def_drop_empty_rates(xmlNode *interface)
{
    static const char *const ways[] = {"bandwidth/inbound", "bandwidth/outbound"};
    for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
        const xmlNode *way = xml_find(interface, ways[i]);
        if (way && !xml_get(way, "@average") && !xml_get(way, "@floor"))
            xml_remove(interface, ways[i]);
    }
    const xmlNode *all = xml_find(interface, "bandwidth");
    if (all && !element_from(all->children))
        xml_remove(interface, "bandwidth");
}

/* The device's text, checked by its own row. */
static xmlDoc *parse_device(const char *text, unsigned def_flags, GError **error)
{
    xmlDoc *doc = xml_parse(text, strlen(text), NULL, error);
    if (!doc)
        return NULL;
    xmlNode *n = xmlDocGetRootElement(doc);
    const struct schema_row *row = schema_row_of(schema_devices, n);
    if (!row || is_named(n, "emulator")) {
        ruche_error(error, MANAGER_ERR_XML, "<%.64s> is not a device", (const char *)n->name);
    } else if (schema_apply(n, row, def_flags, error)) {
        /* given by a run, which a stored description knows nothing of */
        if (!(def_flags & DEF_LIVE) && !g_str_has_prefix(xml_get_or(n, "alias@name", "ua-"), "ua-"))
            xml_remove(n, "alias");
        return doc;
    }
    xmlFreeDoc(doc);
    return NULL;
}

/* The element of a definition that `like` became: the same place among those of its name, or the
 * last. */
static xmlNode *find_made(xmlNode *devices, const char *name, int place)
{
    xmlNode *n = xml_find(devices, name);
    for (; n && place && xml_next(n); place--)
        n = xml_next(n);
    return n;
}

static int place_among(const xmlNode *n)
{
    int place = 0;
    for (const xmlNode *s = n->prev; s; s = s->prev)
        place += s->type == XML_ELEMENT_NODE && is_named(s, (const char *)n->name);
    return place;
}

static bool change_tree(xmlNode *devices, enum def_device_action action, xmlNode *device,
                        int *place, GError **error)
{
    if (action == DEF_ATTACH) {
        *place = INT32_MAX;
        return attach(devices, device, error);
    }
    xmlNode *old = find_meant(devices, device, error);
    if (!old)
        return false;
    *place = place_among(old);
    if (action == DEF_DETACH) {
        drop_twin(devices, old);
        xmlUnlinkNode(old);
    } else {
        inherit(device, old);
        xmlReplaceNode(old, xmlDocCopyNode(device, devices->doc, 1));
    }
    xmlFreeNode(old);
    return true;
}

static unsigned count_controllers(struct domain_def *d)
{
    unsigned count = 0;
    FOREACH_NAMED (c, devices_of(domain_def_tree(d)), "controller")
        count++;
    return count;
}

/* A controller or root port that a device would need cannot come into a running machine beside it.
 */
static bool fits_running(struct domain_def *before, struct domain_def *after, const char *name,
                         GError **error)
{
    if (!strcmp(name, "controller") || count_controllers(after) == count_controllers(before))
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "the running machine has no free port for the %s; machines get more by "
                       "<controller type='pci' model='pcie-root-port'/> before they start",
                       name);
}

struct domain_def *domain_def_device(struct domain_def *d, enum def_device_action action,
                                     const char *device_xml, unsigned def_flags,
                                     xmlNode **ret_device, GError **error)
{
    g_autoptr(xmlDoc) device = parse_device(device_xml, def_flags, error);
    if (!device)
        return NULL;
    g_autofree char *name = g_strdup((const char *)xmlDocGetRootElement(device)->name);
    xmlDoc *doc = copy_of(d);
    int place = 0;
    if (!change_tree(devices_of(xmlDocGetRootElement(doc)), action, xmlDocGetRootElement(device),
                     &place, error)) {
        xmlFreeDoc(doc);
        return NULL;
    }
    struct domain_def *made = domain_def_from_doc(doc, def_flags & ~DEF_VALIDATE, error);
    if (made && def_flags & DEF_LIVE && action == DEF_ATTACH && !fits_running(d, made, name, error))
        g_clear_pointer(&made, domain_def_unref);
    if (made && ret_device)
        *ret_device =
            find_made(devices_of(domain_def_tree(action == DEF_DETACH ? d : made)), name, place);
    return made;
}

/* ---- metadata ---- */

static xmlNode *find_ns(const xmlNode *metadata, const char *uri)
{
    if (metadata)
        FOREACH_ELEMENT (c, metadata)
            if (c->ns && !xmlStrcmp(c->ns->href, (const xmlChar *)uri))
                return c;
    return NULL;
}

/* Elements of `text` in the namespace `uri`, under `prefix`, in place of those that were there. */
static bool set_element(xmlNode *domain, const char *text, const char *prefix, const char *uri,
                        GError **error)
{
    xmlNode *old = find_ns(xml_find(domain, "metadata"), uri);
    if (old) {
        xmlUnlinkNode(old);
        xmlFreeNode(old);
    }
    if (!text)
        return old ||
               ruche_error(error, MANAGER_ERR_NO_METADATA, "there is no metadata of '%s'", uri);
    if (!prefix || !*prefix ||
        prefix[strspn(prefix, G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "_-.")])
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "metadata needs a prefix of letters and digits for '%s'", uri);
    g_autoptr(xmlDoc) doc = xml_parse(text, strlen(text), NULL, error);
    if (!doc)
        return false;
    xmlNode *metadata = xml_find(domain, "metadata");
    if (!metadata)
        metadata = add_element(domain, "metadata");
    xmlNode *n = xmlAddChild(metadata, xmlDocCopyNode(xmlDocGetRootElement(doc), domain->doc, 1));
    xmlNs *ns = xmlNewNs(n, (const xmlChar *)uri, (const xmlChar *)prefix);
    if (!ns) /* the prefix is declared by the text itself */
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "metadata uses the prefix '%s' for another namespace", prefix);
    xmlSetNs(n, ns);
    return true;
}

struct domain_def *domain_def_set_metadata(struct domain_def *d, int type, const char *text,
                                           const char *prefix, const char *uri, GError **error)
{
    static const char *const names[] = {"description", "title"};
    if (type < 0 || type > 2 || (type == 2 && (!uri || !*uri))) {
        ruche_error(error, MANAGER_ERR_ARGUMENT, "metadata of type %d is not there, or needs a URI",
                    type);
        return NULL;
    }
    xmlDoc *doc = copy_of(d);
    xmlNode *root = xmlDocGetRootElement(doc);
    bool ok = true;
    if (type == 2)
        ok = set_element(root, text, prefix, uri, error);
    else if (text && *text)
        xml_set(root, names[type], text);
    else
        xml_remove(root, names[type]);
    if (ok)
        return domain_def_from_doc(doc, DEF_STORED | (strstr(d->text, "<alias ") ? DEF_LIVE : 0),
                                   error);
    xmlFreeDoc(doc);
    return NULL;
}

char *domain_def_get_metadata(struct domain_def *d, int type, const char *uri, GError **error)
{
    const xmlNode *root = domain_def_tree(d);
    const char *text = type == 0   ? xml_get(root, "description")
                       : type == 1 ? xml_get(root, "title")
                                   : NULL;
    xmlNode *n = type == 2 && uri ? find_ns(xml_find(root, "metadata"), uri) : NULL;
    if (text)
        return g_strdup(text);
    if (n) {
        g_autoptr(xmlDoc) doc = xmlNewDoc((const xmlChar *)"1.0");
        xmlNode *copy = xmlDocCopyNode(n, doc, 1);
        xmlDocSetRootElement(doc, copy);
        xmlNs *ns = copy->ns;
        copy->ns = NULL; /* as libvirt gives it: without its own prefix */
        for (xmlNs **link = &copy->nsDef; *link; link = &(*link)->next)
            if (*link == ns) {
                *link = ns->next;
                break;
            }
        char *out = xml_format(copy, 0);
        copy->ns = ns;
        ns->next = copy->nsDef;
        copy->nsDef = ns;
        return g_strchomp(out);
    }
    static const char *const names[] = {"description", "title", "element"};
    ruche_error(error, MANAGER_ERR_NO_METADATA, "the domain has no metadata: %s",
                type >= 0 && type <= 2 ? names[type] : "type");
    return NULL;
}

struct domain_def *domain_def_rename(struct domain_def *d, const char *name, const uint8_t *uuid,
                                     GError **error)
{
    if (!def_check_name(name, error))
        return NULL;
    xmlDoc *doc = copy_of(d);
    xmlNode *root = xmlDocGetRootElement(doc);
    xml_set(root, "name", name);
    char text[UUID_TEXT_BYTES];
    if (uuid) {
        uuid_format(uuid, text);
        xml_set(root, "uuid", text);
    }
    return domain_def_from_doc(doc, DEF_STORED | (strstr(d->text, "<alias ") ? DEF_LIVE : 0),
                               error);
}
