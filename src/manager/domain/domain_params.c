/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tunables by name (schedinfo, memtune, blkiotune, numatune, domiftune, blkdeviotune): where each
 * stands in the description, by a table. What runs is asked and changed by vm_get_params() and
 * vm_set_params().
 *
 * Spec      libvirt's typed parameters at 9.0.0.
 * Thread    The loop thread; all here waits.
 */
#include "manager/domain/domain_priv.h"

#include <string.h>

struct row {
    const char *name;
    enum param_type type;
    const char *path;      /* below the group's element */
    const char *otherwise; /* what it is where nothing is written */
};

static const struct row scheduler_rows[] = {
    {"cpu_shares", PARAM_ULLONG, "cputune/shares", "1024"},
    {"vcpu_period", PARAM_ULLONG, "cputune/period", "0"},
    {"vcpu_quota", PARAM_LLONG, "cputune/quota", "0"},
    {"emulator_period", PARAM_ULLONG, "cputune/emulator_period", "0"},
    {"emulator_quota", PARAM_LLONG, "cputune/emulator_quota", "0"},
    {"global_period", PARAM_ULLONG, "cputune/global_period", "0"},
    {"global_quota", PARAM_LLONG, "cputune/global_quota", "0"},
    {"iothread_period", PARAM_ULLONG, "cputune/iothread_period", "0"},
    {"iothread_quota", PARAM_LLONG, "cputune/iothread_quota", "0"},
    {0},
};
static const struct row memory_rows[] = {
    {"hard_limit", PARAM_ULLONG, "memtune/hard_limit", "9007199254740991"},
    {"soft_limit", PARAM_ULLONG, "memtune/soft_limit", "9007199254740991"},
    {"swap_hard_limit", PARAM_ULLONG, "memtune/swap_hard_limit", "9007199254740991"},
    {0},
};
static const struct row blkio_rows[] = {
    {"weight", PARAM_UINT, "blkiotune/weight", "0"},
    {"device_weight", PARAM_STRING, "weight", ""},
    {"device_read_iops_sec", PARAM_STRING, "read_iops_sec", ""},
    {"device_write_iops_sec", PARAM_STRING, "write_iops_sec", ""},
    {"device_read_bytes_sec", PARAM_STRING, "read_bytes_sec", ""},
    {"device_write_bytes_sec", PARAM_STRING, "write_bytes_sec", ""},
    {0},
};
static const struct row numa_rows[] = {
    {"numa_nodeset", PARAM_STRING, "numatune/memory@nodeset", ""},
    {"numa_mode", PARAM_INT, "numatune/memory@mode", "strict"},
    {0},
};
static const struct row interface_rows[] = {
    {"inbound.average", PARAM_UINT, "bandwidth/inbound@average", "0"},
    {"inbound.peak", PARAM_UINT, "bandwidth/inbound@peak", "0"},
    {"inbound.burst", PARAM_UINT, "bandwidth/inbound@burst", "0"},
    {"inbound.floor", PARAM_UINT, "bandwidth/inbound@floor", "0"},
    {"outbound.average", PARAM_UINT, "bandwidth/outbound@average", "0"},
    {"outbound.peak", PARAM_UINT, "bandwidth/outbound@peak", "0"},
    {"outbound.burst", PARAM_UINT, "bandwidth/outbound@burst", "0"},
    {0},
};
#define IOTUNE(name)                                                                               \
    {                                                                                              \
        name, PARAM_ULLONG, "iotune/" name, "0"                                                    \
    }
static const struct row blockio_rows[] = {
    IOTUNE("total_bytes_sec"),
    IOTUNE("read_bytes_sec"),
    IOTUNE("write_bytes_sec"),
    IOTUNE("total_iops_sec"),
    IOTUNE("read_iops_sec"),
    IOTUNE("write_iops_sec"),
    IOTUNE("total_bytes_sec_max"),
    IOTUNE("read_bytes_sec_max"),
    IOTUNE("write_bytes_sec_max"),
    IOTUNE("total_iops_sec_max"),
    IOTUNE("read_iops_sec_max"),
    IOTUNE("write_iops_sec_max"),
    IOTUNE("size_iops_sec"),
    {"group_name", PARAM_STRING, "iotune/group_name", ""},
    IOTUNE("total_bytes_sec_max_length"),
    IOTUNE("read_bytes_sec_max_length"),
    IOTUNE("write_bytes_sec_max_length"),
    IOTUNE("total_iops_sec_max_length"),
    IOTUNE("read_iops_sec_max_length"),
    IOTUNE("write_iops_sec_max_length"),
    {0},
};

static const struct group {
    const char *which; /* up to ':' */
    const struct row *rows;
} groups[] = {
    {"scheduler", scheduler_rows}, {"memory", memory_rows},       {"blkio", blkio_rows},
    {"numa", numa_rows},           {"interface", interface_rows}, {"blockio", blockio_rows},
};

static const struct group *find_group(const char *which, GError **error)
{
    size_t len = strcspn(which, ":");
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++)
        if (strlen(groups[i].which) == len && memcmp(groups[i].which, which, len) == 0)
            return &groups[i];
    ruche_error(error, RUCHE_ERR_UNKNOWN, "'%s' is no group of parameters", which);
    return NULL;
}

static const struct row *find_row(const struct group *g, const char *name)
{
    for (const struct row *r = g->rows; r->name; r++)
        if (strcmp(r->name, name) == 0)
            return r;
    return NULL;
}

static bool check(const struct group *g, const struct param_list *l, GError **error)
{
    struct param_rule rules[32] = {0};
    unsigned n = 0;
    for (const struct row *r = g->rows; r->name && n < G_N_ELEMENTS(rules) - 1; r++)
        rules[n++] = (struct param_rule){r->name, r->type};
    return param_check(l, rules, error);
}

/* The element that the group's paths begin at: <domain>, or the device after the ':'. */
static struct xml_node *group_element(struct xml_node *domain, const char *which, GError **error)
{
    const char *device = strchr(which, ':');
    bool is_disk = g_str_has_prefix(which, "blockio:");
    if (!device)
        return domain;
    device++;
    for (struct xml_node *n = xml_find(domain, is_disk ? "devices/disk" : "devices/interface"); n;
         n = xml_next(n)) {
        if (xml_is(n, "target@dev", device) || (!is_disk && xml_is(n, "mac@address", device)) ||
            (is_disk && xml_is(n, "source@file", device)))
            return n;
    }
    ruche_error(error, RUCHE_ERR_INVALID,
                is_disk ? "missing persistent configuration for disk '%s'"
                        : "can't find interface '%s'",
                device);
    return NULL;
}

/* ---- one value, as text and back ---- */

static const char *const numa_modes[] = {"strict", "preferred", "interleave", "restrictive", NULL};

static char *value_text(const struct param *p)
{
    if (strcmp(p->name, "numa_mode") == 0)
        return g_strdup(p->i >= 0 && p->i < 4 ? numa_modes[p->i] : "strict");
    switch (p->type) {
    case PARAM_STRING:
        return g_strdup(p->s);
    case PARAM_INT:
    case PARAM_LLONG:
        return g_strdup_printf("%" G_GINT64_FORMAT, (gint64)p->i);
    default:
        return g_strdup_printf("%" G_GUINT64_FORMAT, (guint64)p->u);
    }
}

static void add_value(struct param_list *l, const struct row *r, const char *text)
{
    switch (r->type) {
    case PARAM_STRING:
        return param_string(l, r->name, text);
    case PARAM_LLONG:
        return param_llong(l, r->name, g_ascii_strtoll(text, NULL, 10));
    case PARAM_UINT:
        return param_uint(l, r->name, (unsigned)g_ascii_strtoull(text, NULL, 10));
    case PARAM_INT: /* numa_mode, the one with words */
        for (int i = 0; numa_modes[i]; i++)
            if (strcmp(numa_modes[i], text) == 0)
                param_int(l, r->name, i);
        return;
    default:
        return param_ullong(l, r->name, g_ascii_strtoull(text, NULL, 10));
    }
}

/* ---- blkio's devices: "/dev/sda,100,/dev/sdb,200" is an element of each ---- */

static struct xml_node *blkio_device(struct xml_node *domain, const char *path)
{
    struct xml_node *tune = xml_find(domain, "blkiotune");
    for (struct xml_node *n = tune ? xml_find(tune, "device") : NULL; n; n = xml_next(n))
        if (xml_is(n, "path", path))
            return n;
    if (!tune)
        tune = xml_add(domain, "blkiotune");
    struct xml_node *n = xml_add(tune, "device");
    xml_set(n, "path", path);
    return n;
}

static bool set_devices(struct xml_node *domain, const struct row *r, const char *text,
                        GError **error)
{
    g_auto(GStrv) words = g_strsplit(text, ",", 1024);
    for (char **w = words; *w; w += 2) {
        char *end = NULL;
        if (w[0][0] != '/' || !w[1] || !*w[1] || (g_ascii_strtoull(w[1], &end, 10), *end))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "%s: '%s' is not a list of '/dev/NAME,NUMBER'", r->name, text);
        xml_set(blkio_device(domain, w[0]), r->path, w[1]);
    }
    return true;
}

static char *get_devices(struct xml_node *domain, const struct row *r)
{
    GString *s = g_string_new(NULL);
    for (struct xml_node *n = xml_find(domain, "blkiotune/device"); n; n = xml_next(n)) {
        const char *value = xml_get(n, r->path);
        if (value)
            g_string_append_printf(s, "%s%s,%s", s->len ? "," : "", xml_get_or(n, "path", ""),
                                   value);
    }
    return g_string_free(s, false);
}

/* ---- the operations ---- */

struct setting {
    const char *which;
    const struct group *group;
    const struct param_list *list;
};

static bool edit(struct xml_node *domain, void *opaque, GError **error)
{
    const struct setting *s = opaque;
    struct xml_node *at = group_element(domain, s->which, error);
    for (unsigned i = 0; at && i < s->list->count; i++) {
        const struct param *p = &s->list->rows[i];
        const struct row *r = find_row(s->group, p->name);
        g_autofree char *text = value_text(p);
        if (g_str_has_prefix(r->name, "device_")) {
            if (!set_devices(domain, r, text, error))
                return false;
        } else if (strcmp(text, r->otherwise) == 0) {
            xml_remove(at, r->path);
        } else {
            xml_set(at, r->path, text);
            if (s->group->rows == memory_rows) {
                g_autofree char *unit = g_strconcat(r->path, "@unit", NULL);
                xml_set(at, unit, "KiB");
            }
        }
    }
    if (at && s->group->rows == interface_rows)
        def_drop_empty_rates(at);
    return at != NULL;
}

static bool live(struct vm *v, void *opaque, GError **error)
{
    const struct setting *s = opaque;
    return vm_set_params(v, s->which, s->list, error);
}

/* As libvirt names them: "cputune.cpu_shares", "blkdeviotune.total_bytes_sec" of "blkdeviotune.disk". */
static void tell(struct domain *d, const struct setting *s)
{
    bool disk = g_str_has_prefix(s->which, "blockio:");
    struct param_list l = {0};
    if (!disk && strcmp(s->which, "scheduler") != 0)
        return;
    if (disk)
        param_string(&l, "blkdeviotune.disk", s->which + strlen("blockio:"));
    for (unsigned i = 0; i < s->list->count; i++) {
        const struct param *p = &s->list->rows[i];
        g_autofree char *name = g_strconcat(disk ? "blkdeviotune." : "cputune.", p->name, NULL);
        if (p->type == PARAM_STRING)
            param_string(&l, name, p->s);
        else if (p->type == PARAM_LLONG)
            param_llong(&l, name, p->i);
        else
            param_ullong(&l, name, p->u);
    }
    domain_emit_tunable(d, &l);
}

bool domain_set_params(const struct caller *who, struct domain *d, const char *which,
                       const struct param_list *l, unsigned affect, GError **error)
{
    struct setting s = {.which = which, .group = find_group(which, error), .list = l};
    const struct domain_edit e = {.fn = edit, .live = live, .opaque = &s};
    if (!s.group || !check(s.group, l, error) || !domain_affect(d, affect, 0, &affect, error) ||
        !domain_change(who, d, "tune", affect, 0, &e, error))
        return false;
    if (affect & AFFECT_LIVE)
        tell(d, &s);
    return true;
}

static bool get_config(struct domain_def *def, const struct group *g, const char *which,
                       struct param_list *ret, GError **error)
{
    struct xml_node *domain = domain_def_tree(def), *at = group_element(domain, which, error);
    for (const struct row *r = g->rows; at && r->name; r++) {
        g_autofree char *devices =
            g_str_has_prefix(r->name, "device_") ? get_devices(domain, r) : NULL;
        add_value(ret, r, devices ? devices : xml_get_or(at, r->path, r->otherwise));
    }
    domain_def_shrink(def);
    return at != NULL;
}

bool domain_get_params(const struct caller *who, struct domain *d, const char *which,
                       unsigned affect, struct param_list *ret, GError **error)
{
    const struct group *g = find_group(which, error);
    unsigned where;
    if (!g || !domain_allowed(who, d, RIGHT_READ, "read", error) ||
        !domain_affect(d, affect, 0, &where, error))
        return false;
    if (where == (AFFECT_LIVE | AFFECT_CONFIG))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': either what runs or what is defined can be asked for, not both",
                           d->name);
    if (where & AFFECT_CONFIG)
        return get_config(d->def, g, which, ret, error);
    struct vm_use *u = domain_use(d, error);
    bool ok = u && vm_get_params(u->vm, which, ret, error);
    if (u)
        domain_use_end(u);
    return ok;
}
