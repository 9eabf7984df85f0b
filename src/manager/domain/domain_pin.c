/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which host CPUs the threads of a machine may use: in the description, on what runs, or both.
 *
 * Thread    The loop thread; all that changes waits.
 */
#include "manager/domain/domain_priv.h"

#include <stdlib.h>
#include <string.h>

#define CPUS_MAX 4096 /* the highest host CPU that a set may name */

/* Where the pin of one of these stands: an element of <cputune>, and what it is numbered by. */
static const struct {
    const char *element, *attribute;
} places[] = {
    [PIN_VCPU] = {"vcpupin", "@vcpu"},
    [PIN_EMULATOR] = {"emulatorpin", NULL},
    [PIN_IOTHREAD] = {"iothreadpin", "@iothread"},
};

struct pin {
    enum domain_pin kind;
    unsigned number;
    const uint8_t *map;
    unsigned len;
};

static bool map_has(const uint8_t *map, unsigned len, unsigned cpu)
{
    return cpu / 8 < len && (map[cpu / 8] >> (cpu % 8) & 1);
}

/* Bits as "0-3,7"; "" when none is set. */
static char *map_text(const uint8_t *map, unsigned len)
{
    GString *s = g_string_new(NULL);
    for (unsigned cpu = 0; cpu < len * 8; cpu++) {
        unsigned first = cpu;
        if (!map_has(map, len, cpu))
            continue;
        while (map_has(map, len, cpu + 1))
            cpu++;
        g_string_append_printf(s, first == cpu ? "%s%u" : "%s%u-%u", s->len ? "," : "", first, cpu);
    }
    return g_string_free(s, false);
}

/* "0-3,^2,7" into bits; what has no room is left out. The text is checked already. */
static void map_read(const char *text, uint8_t *map, unsigned len)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", CPUS_MAX);
    for (char **p = parts; *p; p++) {
        const char *t = g_strstrip(*p);
        bool not = *t == '^';
        char *end;
        unsigned long first = strtoul(t + not, &end, 10),
                      last = *end == '-' ? strtoul(end + 1, NULL, 10) : first;
        for (unsigned long cpu = first; cpu <= last && cpu < (unsigned long)len * 8; cpu++)
            map[cpu / 8] =
                (uint8_t)(not ? map[cpu / 8] & ~(1u << (cpu % 8)) : map[cpu / 8] | 1u << (cpu % 8));
    }
}

static struct xml_node *find_pin(struct xml_node *domain, enum domain_pin kind, unsigned number)
{
    struct xml_node *tune = xml_find(domain, "cputune");
    struct xml_node *pin = tune ? xml_find(tune, places[kind].element) : NULL;
    while (pin && places[kind].attribute &&
           xml_get_u64(pin, places[kind].attribute, G_MAXUINT64) != number)
        pin = xml_next(pin);
    return pin;
}

static bool is_there(const struct xml_node *domain, const struct pin *p, GError **error)
{
    uint64_t vcpus = xml_get_u64(domain, "vcpu", 1);
    if (p->kind == PIN_VCPU && p->number >= vcpus)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "vcpu %u is out of range of persistent cpu count %" G_GUINT64_FORMAT,
                           p->number, vcpus);
    return p->kind != PIN_IOTHREAD || domain_def_has_iothread(domain, p->number) ||
           ruche_error(error, RUCHE_ERR_INVALID, "there is no I/O thread %u to pin", p->number);
}

static bool edit_pin(struct xml_node *domain, void *opaque, GError **error)
{
    const struct pin *p = opaque;
    g_autofree char *cpus = map_text(p->map, p->len);
    if (!is_there(domain, p, error))
        return false;
    struct xml_node *pin = find_pin(domain, p->kind, p->number),
                    *tune = xml_find(domain, "cputune");
    if (!tune)
        tune = xml_add(domain, "cputune");
    if (!pin) {
        pin = xml_add(tune, places[p->kind].element);
        if (places[p->kind].attribute)
            xml_set_f(pin, places[p->kind].attribute, "%u", p->number);
    }
    xml_set(pin, "@cpuset", cpus);
    return true;
}

static bool live_pin(struct vm *v, void *opaque, GError **error)
{
    const struct pin *p = opaque;
    return vm_pin(v, p->kind, p->number, p->map, p->len, error);
}

/* Of what runs it is an event. */
static void tell(struct domain *d, const struct pin *p, const char *cpus)
{
    struct param_list l = {0};
    if (p->kind == PIN_EMULATOR)
        param_string(&l, "cputune.emulatorpin", cpus);
    else
        param_string_at(&l, cpus, "cputune.%s%u", places[p->kind].element, p->number);
    domain_emit_tunable(d, &l);
}

static bool pin(const struct caller *who, struct domain *d, struct pin *p, unsigned affect,
                GError **error)
{
    const struct domain_edit edit = {.fn = edit_pin, .live = live_pin, .opaque = p};
    g_autofree char *cpus = map_text(p->map, p->len);
    if (!*cpus)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': an empty list of CPUs to pin to",
                           d->name);
    if (!domain_affect(d, affect, 0, &affect, error) ||
        !domain_change(who, d, "pin threads of", affect, 0, &edit, error))
        return false;
    if (affect & AFFECT_LIVE)
        tell(d, p, cpus);
    return true;
}

bool domain_pin_vcpu(const struct caller *who, struct domain *d, int vcpu, const uint8_t *cpumap,
                     unsigned len, unsigned affect, GError **error)
{
    struct pin p = {vcpu < 0 ? PIN_EMULATOR : PIN_VCPU, vcpu < 0 ? 0 : (unsigned)vcpu, cpumap,
                    MIN(len, CPUS_MAX / 8)};
    return pin(who, d, &p, affect, error);
}

bool domain_pin_iothread(const struct caller *who, struct domain *d, unsigned id,
                         const uint8_t *cpumap, unsigned len, unsigned affect, GError **error)
{
    struct pin p = {PIN_IOTHREAD, id, cpumap, MIN(len, CPUS_MAX / 8)};
    return pin(who, d, &p, affect, error);
}

/* ---- what there is ---- */

/* What a pin says, else what <vcpu cpuset> says of all, else every CPU of the host. */
static void read_pin(struct xml_node *domain, enum domain_pin kind, unsigned number, uint8_t *map,
                     unsigned len)
{
    const struct xml_node *pin = find_pin(domain, kind, number);
    const char *set = pin ? xml_get(pin, "@cpuset") : NULL, *all = xml_get(domain, "vcpu@cpuset");
    g_autofree char *host = g_strdup_printf("0-%u", g_get_num_processors() - 1);
    map_read(set ? set : all ? all : host, map, len);
}

int domain_get_pins(const struct caller *who, struct domain *d, bool emulator, unsigned affect,
                    uint8_t *maps, unsigned count, unsigned len, GError **error)
{
    unsigned which;
    if (!domain_allowed(who, d, RIGHT_READ, "read", error) ||
        !domain_affect(d, affect, 0, &which, error))
        return -1;
    struct domain_def *def = which & AFFECT_CONFIG ? d->def : d->live;
    struct xml_node *tree = domain_def_tree(def);
    unsigned rows = emulator ? 1 : MIN(count, def->s.vcpus);
    memset(maps, 0, (size_t)count * len);
    for (unsigned i = 0; i < MIN(rows, count); i++)
        read_pin(tree, emulator ? PIN_EMULATOR : PIN_VCPU, i, maps + (size_t)i * len, len);
    domain_def_shrink(def);
    return (int)rows;
}

bool domain_get_iothreads(const struct caller *who, struct domain *d, unsigned affect, unsigned len,
                          GArray **ret_ids, uint8_t **ret_maps, GError **error)
{
    unsigned which;
    if (!domain_allowed(who, d, RIGHT_READ, "read", error) ||
        !domain_affect(d, affect, 0, &which, error))
        return false;
    struct domain_def *def = which & AFFECT_CONFIG ? d->def : d->live;
    struct xml_node *tree = domain_def_tree(def);
    GArray *ids = domain_def_iothreads(tree);
    uint8_t *maps = g_malloc0((size_t)ids->len * len + 1);
    for (guint i = 0; i < ids->len; i++)
        read_pin(tree, PIN_IOTHREAD, g_array_index(ids, unsigned, i), maps + (size_t)i * len, len);
    domain_def_shrink(def);
    *ret_ids = ids;
    *ret_maps = maps;
    return true;
}
