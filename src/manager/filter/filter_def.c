/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of filters: read, checked, and written in their one form.
 *
 * Spec      libvirt's formatnwfilter and nwfilter.rng at 9.0.0.
 * Thread    Any.
 * Trust     XML is hostile: see xml.h; rules are counted.
 */
#include "manager/filter/filter_priv.h"
#include "manager/markup.h"
#include "manager/uuid.h"

#include <string.h>

#define NAME_MAX_BYTES 128
#define VALUE_MAX      256
#define PARAMS_MAX     4096

static const char *const actions[] = {"drop", "accept", "reject", "return", "continue", NULL};
static const char *const directions[] = {"in", "out", "inout", NULL};

/* ---- parameters ---- */

static void free_list(gpointer list)
{
    g_ptr_array_unref(list);
}

GHashTable *filter_params_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_list);
}

void filter_params_add(GHashTable *params, const char *name, const char *value)
{
    GPtrArray *list = g_hash_table_lookup(params, name);
    if (!list) {
        list = g_ptr_array_new_with_free_func(g_free);
        g_hash_table_insert(params, g_strdup(name), list);
    }
    g_ptr_array_add(list, g_strdup(value));
}

static bool only(const char *text, const char *also, size_t max)
{
    for (const char *p = text; *p; p++)
        if (!g_ascii_isalnum(*p) && !strchr(also, *p))
            return false;
    return *text && strlen(text) <= max;
}

bool filter_params_parse(GHashTable *params, const struct xml_node *ref, GError **error)
{
    unsigned count = 0;
    for (const struct xml_node *p = xml_find(ref, "parameter"); p; p = xml_next(p)) {
        const char *name = xml_get_or(p, "@name", ""), *value = xml_get_or(p, "@value", "");
        if (!only(name, "_", 63))
            return ruche_error(
                error, RUCHE_ERR_XML,
                "filterref: parameter '%.80s': names are 1 to 63 letters, digits and '_'", name);
        if (!only(value, "_.:", VALUE_MAX))
            return ruche_error(error, RUCHE_ERR_XML,
                               "filterref: parameter '%s': value '%.80s' is not of letters, "
                               "digits, '_', '.' and ':'",
                               name, value);
        if (++count > PARAMS_MAX)
            return ruche_error(error, RUCHE_ERR_XML, "filterref: more than %d parameters",
                               PARAMS_MAX);
        filter_params_add(params, name, value);
    }
    return true;
}

/* ---- reading ---- */

bool filter_name_check(const char *name, GError **error)
{
    if ((g_ascii_isalpha(*name) || *name == '_') && only(name, "_.-", NAME_MAX_BYTES))
        return true;
    return ruche_error(error, RUCHE_ERR_XML,
                       "filter '%.80s': names are 1 to %d letters, digits, '_', '-' and '.', and "
                       "begin with a letter "
                       "or '_'",
                       name, NAME_MAX_BYTES);
}

static const struct {
    const char *name;
    int priority;
} chains[] = {{"root", 0},    {"stp", -810},  {"mac", -800}, {"vlan", -750},
              {"ipv4", -700}, {"ipv6", -600}, {"arp", -500}, {"rarp", -400}};

static bool read_chain(struct filter_def *d, const char *chain, GError **error)
{
    d->chain = g_strdup(chain);
    if (!strcmp(chain, "root"))
        return true;
    for (size_t i = 1; i < G_N_ELEMENTS(chains); i++)
        if (g_str_has_prefix(chain, chains[i].name) && only(chain, "_.:-", 32)) {
            if (!d->has_priority)
                d->priority = chains[i].priority;
            return true;
        }
    return ruche_error(error, RUCHE_ERR_XML,
                       "filter '%s': chain '%.80s' is not root, and is not stp, mac, vlan, ipv4, "
                       "ipv6, arp or rarp with "
                       "an ending, of 32 bytes together",
                       d->name, chain);
}

static bool read_priority(const char *text, int *ret, GError **error)
{
    char *end;
    gint64 v = g_ascii_strtoll(text, &end, 10);
    if (!*text || *end || v < -1000 || v > 1000)
        return ruche_error(error, RUCHE_ERR_XML, "priority '%.80s' is not from -1000 to 1000",
                           text);
    *ret = (int)v;
    return true;
}

static bool read_word(const struct xml_node *n, const char *attr, const char *const *words,
                      unsigned *ret, GError **error)
{
    const char *text = xml_get_or(n, attr, "");
    for (unsigned i = 0; words[i]; i++)
        if (!strcmp(words[i], text)) {
            *ret = i;
            return true;
        }
    g_autofree char *all = g_strjoinv(", ", (char **)words);
    return ruche_error(error, RUCHE_ERR_XML, "rule: %s '%.80s' is not one of %s", attr + 1, text,
                       all);
}

static bool read_value(struct filter_rule *r, const char *name, const char *text, GError **error)
{
    int i = filter_attr_index(r->proto, name);
    struct filter_var v;
    if (i < 0)
        return ruche_error(error, RUCHE_ERR_XML, "%s: there is no attribute '%.80s'",
                           r->proto->name, name);
    if (r->proto->attrs[i].kind == FK_COMMENT || !filter_var_parse(text, &v)) {
        r->values[i] = filter_value_check(r->proto->attrs[i].kind, text, error);
        if (!r->values[i])
            g_prefix_error(error, "%s: %s: ", r->proto->name, name);
        return r->values[i] != NULL;
    }
    r->values[i] = v.index >= 0 ? g_strdup_printf("$%s[%d]", v.name, v.index)
                   : v.iterator ? g_strdup_printf("$%s[@%u]", v.name, v.iterator)
                                : g_strdup_printf("$%s", v.name);
    return true;
}

/* A partner says nothing alone. */
static bool check_partners(const struct filter_rule *r, GError **error)
{
    for (int i = 0; r->proto->attrs[i].name; i++) {
        const struct filter_attr *a = &r->proto->attrs[i];
        int k = a->partner ? filter_attr_index(r->proto, a->partner) : -1;
        if (k >= 0 && r->values[k] && !r->values[i])
            return ruche_error(error, RUCHE_ERR_XML, "%s: %s needs %s", r->proto->name, a->partner,
                               a->name);
    }
    return true;
}

static bool read_proto(struct filter_rule *r, const struct xml_node *n, GError **error)
{
    r->proto = filter_proto_find(n->name);
    if (!r->proto)
        return ruche_error(error, RUCHE_ERR_XML, "rule: there is no protocol '%.80s'", n->name);
    for (const struct xml_attr *a = n->attrs; a; a = a->next) {
        g_autofree char *path = g_strconcat("@", a->name, NULL);
        const char *text = xml_get_or(n, path, "");
        bool match = !strcmp(a->name, "match");
        r->negate |= match && !strcmp(text, "no");
        if (match && strcmp(text, "no") != 0 && strcmp(text, "yes") != 0)
            return ruche_error(error, RUCHE_ERR_XML, "%s: match: '%.80s' is not yes or no",
                               r->proto->name, text);
        if (!match && !read_value(r, a->name, text, error))
            return false;
    }
    return check_partners(r, error);
}

static bool read_rule(struct filter_rule *r, const struct xml_node *n, GError **error)
{
    unsigned action = 0, direction = 0;
    const char *match = xml_get_or(n, "@statematch", "");
    if (!read_word(n, "@action", actions, &action, error) ||
        !read_word(n, "@direction", directions, &direction, error) ||
        !read_priority(xml_get_or(n, "@priority", "500"), &r->priority, error))
        return false;
    r->action = action;
    r->direction = direction;
    r->stateless = !g_ascii_strcasecmp(match, "false") || !strcmp(match, "0");
    bool seen = false;
    for (const struct xml_node *c = n->children; c; c = c->next) {
        if (!xml_is_element(c))
            continue;
        if (seen)
            return ruche_error(error, RUCHE_ERR_XML,
                               "a rule has one protocol; '%.80s' is the second", c->name);
        seen = true;
        if (!read_proto(r, c, error))
            return false;
    }
    return true;
}

static void free_node(gpointer p)
{
    struct filter_node *n = p;
    g_free(n->ref);
    if (n->params)
        g_hash_table_unref(n->params);
    for (unsigned i = 0; i < FILTER_ATTRS_MAX; i++)
        g_free(n->rule.values[i]);
    g_free(n);
}

static bool read_ref(struct filter_node *node, const struct xml_node *n, GError **error)
{
    const char *name = xml_get_or(n, "@filter", "");
    node->ref = g_strdup(name);
    node->params = filter_params_new();
    return filter_name_check(name, error) && filter_params_parse(node->params, n, error);
}

static bool read_uuid(struct filter_def *d, const struct xml_node *root, GError **error)
{
    const char *text = xml_get(root, "uuid");
    d->has_uuid = text != NULL;
    if (!text)
        uuid_random(d->uuid);
    else if (!uuid_parse(text, d->uuid) || !uuid_is_valid(d->uuid))
        return ruche_error(error, RUCHE_ERR_XML, "filter '%s': '%.80s' is not a UUID", d->name,
                           text);
    return true;
}

static bool read_nodes(struct filter_def *d, const struct xml_node *root, GError **error)
{
    for (const struct xml_node *c = root->children; c; c = c->next) {
        const char *name = c->name;
        if (!xml_is_element(c) || !strcmp(name, "uuid"))
            continue;
        bool ref = !strcmp(name, "filterref");
        if (!ref && strcmp(name, "rule") != 0)
            return ruche_error(error, RUCHE_ERR_XML, "filter '%s': there is no element <%.80s>",
                               d->name, name);
        if (d->nodes->len == FILTER_NODES_MAX)
            return ruche_error(error, RUCHE_ERR_XML, "filter '%s' has more than %d rules", d->name,
                               FILTER_NODES_MAX);
        struct filter_node *node = g_new0(struct filter_node, 1);
        g_ptr_array_add(d->nodes, node);
        if (!(ref ? read_ref(node, c, error) : read_rule(&node->rule, c, error))) {
            g_prefix_error(error, "filter '%s': ", d->name);
            return false;
        }
    }
    return true;
}

struct filter_def *filter_def_parse(const char *xml, GError **error)
{
    size_t len = strlen(xml);
    if (len > FILTER_TEXT_MAX) {
        ruche_error(error, RUCHE_ERR_XML, "a filter of %zu bytes; the limit is %u", len,
                    FILTER_TEXT_MAX);
        return NULL;
    }
    auto_xml *root = xml_parse(xml, len, "filter", error);
    if (!root)
        return NULL;
    struct filter_def *d = g_new0(struct filter_def, 1);
    const char *priority = xml_get(root, "@priority");
    d->nodes = g_ptr_array_new_with_free_func(free_node);
    d->name = g_strdup(xml_get_or(root, "@name", ""));
    d->has_priority = priority != NULL;
    if (filter_name_check(d->name, error) &&
        (!priority || read_priority(priority, &d->priority, error)) &&
        read_chain(d, xml_get_or(root, "@chain", "root"), error) && read_uuid(d, root, error) &&
        read_nodes(d, root, error))
        return d;
    filter_def_free(d);
    return NULL;
}

void filter_def_free(struct filter_def *d)
{
    if (!d)
        return;
    g_free(d->name);
    g_free(d->chain);
    g_ptr_array_unref(d->nodes);
    g_free(d);
}

/* ---- writing ---- */

static void write_ref(GString *s, const struct filter_node *n)
{
    g_autoptr(GList) names = g_list_sort(g_hash_table_get_keys(n->params), (GCompareFunc)strcmp);
    markup_add(s, "  <filterref filter='%s'", n->ref);
    g_string_append(s, names ? ">\n" : "/>\n");
    for (GList *l = names; l; l = l->next) {
        const GPtrArray *list = g_hash_table_lookup(n->params, l->data);
        for (unsigned i = 0; i < list->len; i++)
            markup_add(s, "    <parameter name='%s' value='%s'/>\n", (const char *)l->data,
                       (const char *)list->pdata[i]);
    }
    if (names)
        g_string_append(s, "  </filterref>\n");
}

static void write_rule(GString *s, const struct filter_rule *r)
{
    markup_add(s, "  <rule action='%s' direction='%s' priority='%d'", actions[r->action],
               directions[r->direction], r->priority);
    if (r->stateless)
        g_string_append(s, " statematch='false'");
    if (!r->proto) {
        g_string_append(s, "/>\n");
        return;
    }
    markup_add(s, ">\n    <%s", r->proto->name);
    if (r->negate)
        g_string_append(s, " match='no'");
    for (int i = 0; r->proto->attrs[i].name; i++)
        if (r->values[i])
            markup_add(s, " %s='%s'", r->proto->attrs[i].name, r->values[i]);
    g_string_append(s, "/>\n  </rule>\n");
}

char *filter_def_format(const struct filter_def *d)
{
    GString *s = g_string_new(NULL);
    char uuid[UUID_TEXT_BYTES];
    uuid_format(d->uuid, uuid);
    markup_add(s, "<filter name='%s' chain='%s'", d->name, d->chain);
    if (strcmp(d->chain, "root") != 0 || d->has_priority)
        markup_add(s, " priority='%d'", d->priority);
    markup_add(s, ">\n  <uuid>%s</uuid>\n", uuid);
    for (unsigned i = 0; i < d->nodes->len; i++) {
        const struct filter_node *n = d->nodes->pdata[i];
        if (n->ref)
            write_ref(s, n);
        else
            write_rule(s, &n->rule);
    }
    g_string_append(s, "</filter>\n");
    return g_string_free(s, FALSE);
}
