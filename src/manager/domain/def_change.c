/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Definitions made of others: devices in, out and replaced; metadata; another name. */
#include "manager/domain/def_internal.h"
#include "manager/uuid.h"

static struct xml_node *copy_of(struct domain_def *d)
{
    return xml_copy(domain_def_tree(d));
}

/* ---- devices ---- */

static bool same_at(const struct xml_node *a, const struct xml_node *b, const char *path)
{
    const char *x = xml_get(a, path), *y = xml_get(b, path);
    return x && y && !strcmp(x, y);
}

/* Everything that `want` says, `have` says too: attributes, text and elements. */
static bool says_all(const struct xml_node *have, const struct xml_node *want)
{
    for (const struct xml_attr *a = want->attrs; a; a = a->next) {
        g_autofree char *path = g_strdup_printf("@%s", a->name);
        if (g_strcmp0(xml_get(have, path), xml_get(want, path)) != 0)
            return false;
    }
    if (*xml_get(want, "") && !element_from(want->children) &&
        strcmp(xml_get(have, ""), xml_get(want, "")) != 0)
        return false;
    FOREACH_ELEMENT (c, want) {
        bool found = false;
        FOREACH_NAMED (h, have, c->name)
            found = found || says_all(h, c);
        if (!found)
            return false;
    }
    return true;
}

/* Is `have` the device that `want` names? */
static bool is_meant(const struct xml_node *have, const struct xml_node *want)
{
    if (!is_named(have, want->name))
        return false;
    if (xml_get(want, "alias@name") && xml_get(have, "alias@name") &&
        !same_at(have, want, "alias@name"))
        return false;
    if (is_named(want, "disk"))
        return same_at(have, want, "target@dev");
    if (is_named(want, "interface")) {
        const struct xml_node *a = xml_find(want, "address"), *b = xml_find(have, "address");
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

static struct xml_node *find_meant(struct xml_node *devices, const struct xml_node *want,
                                   GError **error)
{
    struct xml_node *found = NULL;
    FOREACH_NAMED (c, devices, want->name) {
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
                want->name, id ? " '" : "", id ? id : "", id ? "'" : "");
    return NULL;
}

/* Takes out the twin of the first serial port, or of the first console. */
static void drop_twin(struct xml_node *devices, const struct xml_node *gone)
{
    bool serial = is_named(gone, "serial");
    struct xml_node *console = xml_find(devices, "console");
    if ((serial || is_named(gone, "console")) && console &&
        xml_is(console, "target@type", "serial")) {
        struct xml_node *twin = serial ? (same_at(console, gone, "target@port") ? console : NULL)
                                       : xml_find(devices, "serial");
        if (twin && twin != gone) {
            xml_free(twin);
        }
    }
}

/* What a new text leaves out of a device's place stays as it was. */
static void inherit(struct xml_node *fresh, const struct xml_node *old)
{
    static const char *const kept[] = {"address", "alias", "mac", "target", "model"};
    bool interface = is_named(old, "interface");
    for (size_t i = 0; i < (interface ? 5 : 2); i++)
        if (!xml_find(fresh, kept[i]) && xml_find(old, kept[i]))
            xml_append(fresh, xml_copy(xml_find(old, kept[i])));
    if (is_named(old, "disk"))
        set_missing(fresh, "target@bus", xml_get_or(old, "target@bus", "virtio"));
}

static bool has_same_mac(const struct xml_node *devices, const struct xml_node *n)
{
    FOREACH_NAMED (c, devices, "interface")
        if (c != n && same_at(c, n, "mac@address"))
            return true;
    return false;
}

static bool attach(struct xml_node *devices, struct xml_node *fresh, GError **error)
{
    static const char *const single[] = {"memballoon", "watchdog", "vsock", "iommu", "nvram", NULL};
    const struct xml_node *other = xml_find(devices, fresh->name);
    if (is_named(fresh, "memballoon") && other && xml_is(other, "@model", "none"))
        xml_remove(devices, "memballoon");
    else if (other && g_strv_contains(single, fresh->name))
        return ruche_error(error, MANAGER_ERR_CONFIG, "the domain already has a %s", fresh->name);
    if (is_named(fresh, "interface") && has_same_mac(devices, fresh))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "the domain already has an interface with MAC address %s",
                           xml_get(fresh, "mac@address"));
    xml_append(devices, xml_copy(fresh));
    return true;
}

void def_drop_empty_rates(struct xml_node *interface)
{
    static const char *const ways[] = {"bandwidth/inbound", "bandwidth/outbound"};
    for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
        const struct xml_node *way = xml_find(interface, ways[i]);
        if (way && !xml_get(way, "@average") && !xml_get(way, "@floor"))
            xml_remove(interface, ways[i]);
    }
    const struct xml_node *all = xml_find(interface, "bandwidth");
    if (all && !element_from(all->children))
        xml_remove(interface, "bandwidth");
}

/* The device's text, checked by its own row. */
static struct xml_node *parse_device(const char *text, unsigned def_flags, GError **error)
{
    struct xml_node *n = xml_parse(text, strlen(text), NULL, error);
    if (!n)
        return NULL;
    const struct schema_row *row = schema_row_of(schema_devices, n);
    if (!row || is_named(n, "emulator")) {
        ruche_error(error, RUCHE_ERR_XML, "<%.64s> is not a device", n->name);
    } else if (schema_apply(n, row, def_flags, error)) {
        /* given by a run, which a stored description knows nothing of */
        if (!(def_flags & DEF_LIVE) && !g_str_has_prefix(xml_get_or(n, "alias@name", "ua-"), "ua-"))
            xml_remove(n, "alias");
        return n;
    }
    xml_free(n);
    return NULL;
}

/* The element of a definition that `like` became: the same place among those of its name, or the
 * last. */
static struct xml_node *find_made(struct xml_node *devices, const char *name, int place)
{
    struct xml_node *n = xml_find(devices, name);
    for (; n && place && xml_next(n); place--)
        n = xml_next(n);
    return n;
}

static int place_among(const struct xml_node *n)
{
    int place = 0;
    for (const struct xml_node *s = n->prev; s; s = s->prev)
        place += xml_is_element(s) && is_named(s, n->name);
    return place;
}

static bool change_tree(struct xml_node *devices, enum def_device_action action,
                        struct xml_node *device, int *place, GError **error)
{
    if (action == DEF_ATTACH) {
        *place = INT32_MAX;
        return attach(devices, device, error);
    }
    struct xml_node *old = find_meant(devices, device, error);
    if (!old)
        return false;
    *place = place_among(old);
    if (action == DEF_DETACH) {
        drop_twin(devices, old);
        xml_free(old);
    } else {
        inherit(device, old);
        xml_replace(old, xml_copy(device));
    }
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
                                     struct xml_node **ret_device, GError **error)
{
    auto_xml *device = parse_device(device_xml, def_flags, error);
    if (!device)
        return NULL;
    g_autofree char *name = g_strdup(device->name);
    struct xml_node *doc = copy_of(d);
    int place = 0;
    if (!change_tree(devices_of(doc), action, device, &place, error)) {
        xml_free(doc);
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

static struct xml_node *find_ns(const struct xml_node *metadata, const char *uri)
{
    if (metadata)
        FOREACH_ELEMENT (c, metadata)
            if (c->ns && !strcmp(c->ns->uri, uri))
                return c;
    return NULL;
}

/* Elements of `text` in the namespace `uri`, under `prefix`, in place of those that were there. */
static bool set_element(struct xml_node *domain, const char *text, const char *prefix,
                        const char *uri, GError **error)
{
    struct xml_node *old = find_ns(xml_find(domain, "metadata"), uri);
    if (old) {
        xml_free(old);
    }
    if (!text)
        return old ||
               ruche_error(error, MANAGER_ERR_NO_METADATA, "there is no metadata of '%s'", uri);
    if (!prefix || !*prefix ||
        prefix[strspn(prefix, G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "_-.")])
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "metadata needs a prefix of letters and digits for '%s'", uri);
    auto_xml *doc = xml_parse(text, strlen(text), NULL, error);
    if (!doc)
        return false;
    struct xml_node *metadata = xml_find(domain, "metadata");
    if (!metadata)
        metadata = add_element(domain, "metadata");
    struct xml_node *n = xml_append(metadata, xml_copy(doc));
    struct xml_ns *ns = xml_declare(n, prefix, uri);
    if (!ns) /* the prefix is declared by the text itself */
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "metadata uses the prefix '%s' for another namespace", prefix);
    xml_set_ns(n, ns);
    return true;
}

/* Its text will be read again: prefix and URI may be none, an element may be too
 * deep where it stands now. */
static struct domain_def *readable(struct domain_def *made, GError **error)
{
    auto_xml *again = made ? xml_parse(made->text, strlen(made->text), "domain", error) : NULL;
    if (again)
        return made;
    domain_def_unref(made);
    return NULL;
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
    struct xml_node *root = copy_of(d);
    bool ok = true;
    if (type == 2)
        ok = set_element(root, text, prefix, uri, error);
    else if (text && *text)
        xml_set(root, names[type], text);
    else
        xml_remove(root, names[type]);
    unsigned flags = DEF_STORED | (strstr(d->text, "<alias ") ? DEF_LIVE : 0);
    if (ok)
        return readable(domain_def_from_doc(root, flags, error), error);
    xml_free(root);
    return NULL;
}

char *domain_def_get_metadata(struct domain_def *d, int type, const char *uri, GError **error)
{
    const struct xml_node *root = domain_def_tree(d);
    const char *text = type == 0   ? xml_get(root, "description")
                       : type == 1 ? xml_get(root, "title")
                                   : NULL;
    struct xml_node *n = type == 2 && uri ? find_ns(xml_find(root, "metadata"), uri) : NULL;
    if (text)
        return g_strdup(text);
    if (n) {
        auto_xml *copy = xml_copy(n);
        xml_leave_ns(copy); /* as libvirt gives it: without its own prefix */
        return g_strchomp(xml_format(copy, 0));
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
    struct xml_node *root = copy_of(d);
    xml_set(root, "name", name);
    char text[UUID_TEXT_BYTES];
    if (uuid) {
        uuid_format(uuid, text);
        xml_set(root, "uuid", text);
    }
    return domain_def_from_doc(root, DEF_STORED | (strstr(d->text, "<alias ") ? DEF_LIVE : 0),
                               error);
}
