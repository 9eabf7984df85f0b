/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of domains: from text to definition and back. See def.h. */
#include "manager/domain/def_internal.h"

#include <stdlib.h>

struct domain_def *domain_def_parse(const char *text, size_t len, unsigned def_flags,
                                    GError **error)
{
    struct xml_node *doc = xml_parse(text, len, "domain", error);
    return doc ? domain_def_from_doc(doc, def_flags, error) : NULL;
}

struct domain_def *domain_def_own(const char *text, size_t len, GError **error)
{
    struct xml_node *doc = xml_parse(text, len, "domain", error);
    if (!doc)
        return NULL;
    struct domain_def *d = g_new0(struct domain_def, 1);
    *d = (struct domain_def){.refs = 1, .doc = doc, .text = g_strndup(text, len)};
    def_summary(&d->s, doc);
    return d;
}

struct domain_def *domain_def_ref(struct domain_def *d)
{
    d->refs++;
    return d;
}

void domain_def_unref(struct domain_def *d)
{
    if (!d || --d->refs)
        return;
    def_summary_done(&d->s);
    g_free(d->text);
    xml_free(d->doc);
    g_free(d);
}

struct xml_node *domain_def_tree(struct domain_def *d)
{
    if (!d->doc)
        d->doc = xml_parse(d->text, strlen(d->text), "domain", NULL);
    g_assert(d->doc); /* the text is our own */
    return d->doc;
}

void domain_def_shrink(struct domain_def *d)
{
    g_clear_pointer(&d->doc, xml_free);
}

/* What we fill in obeys the same tables as what came from outside: they are applied twice, the
 * second time to put in order what was added. */
struct domain_def *domain_def_from_doc(struct xml_node *root, unsigned def_flags, GError **error)
{
    def_strip(root, def_flags);
    if (!schema_apply(root, &schema_domain, def_flags, error) ||
        !def_complete(root, def_flags, error) || !def_devices(root, def_flags, error) ||
        !def_controllers(root, error) || !def_addresses(root, error) || !def_check(root, error)) {
        xml_free(root);
        return NULL;
    }
    if (def_flags & DEF_LIVE)
        def_aliases(root);
    if (!schema_apply(root, &schema_domain, def_flags & ~DEF_VALIDATE, error)) {
        xml_free(root);
        return NULL;
    }
    struct domain_def *d = g_new0(struct domain_def, 1);
    *d = (struct domain_def){.refs = 1, .doc = root, .text = xml_format(root, 0)};
    def_summary(&d->s, root);
    return d;
}

static bool has_secrets(const char *text)
{
    return strstr(text, " passwd='") || strstr(text, " passwdValidTo='") ||
           strstr(text, "<cookies>");
}

/* Disks that are volumes of a pool: what they were found to be stands beside that. */
static bool has_found(const char *text)
{
    return strstr(text, " type='volume'");
}

static char *without(const char *text, unsigned flags)
{
    auto_xml *root = xml_parse(text, strlen(text), "domain", NULL);
    schema_drop(root, &schema_domain, flags);
    return xml_format(root, 0);
}

/* The text of a definition as it would be if the machine did not run. */
static char *inactive_text(const struct domain_def *d)
{
    if (!strstr(d->text, "<alias "))
        return g_strdup(d->text);
    auto_domain_def *plain = domain_def_parse(d->text, strlen(d->text), DEF_STORED, NULL);
    return g_strdup(plain ? plain->text : d->text);
}

char *domain_def_format(struct domain_def *d, unsigned format_flags, int id)
{
    g_autofree char *text =
        format_flags & DEF_FORMAT_INACTIVE ? inactive_text(d) : g_strdup(d->text);
    unsigned drop = (format_flags & DEF_FORMAT_SECURE || !has_secrets(text) ? 0 : F_SECRET) |
                    (has_found(text) ? F_FOUND : 0);
    if (drop) {
        char *open = without(text, drop);
        g_free(text);
        text = open;
    }
    if (id < 0)
        return g_steal_pointer(&text);
    size_t head = strcspn(text, " >"); /* "<domain", then its type, or a name space */
    if (g_str_has_prefix(text + head, " type='"))
        head += strlen(" type='") + strcspn(text + head + strlen(" type='"), "'") + 1;
    return g_strdup_printf("%.*s id='%d'%s", (int)head, text, id, text + head);
}
