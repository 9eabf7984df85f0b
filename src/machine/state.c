/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See state.h.
 *
 * Format    Little-endian. Magic, version; the head: pairs of texts that must be the same in both
 * machines; sections: name, type, length, bytes: the clock, the accelerator, each vCPU, each device
 * in machine order, each backend that has a state. A text is its length in 16 bits and its bytes; an
 * empty name ends the head, and the sections.
 */
#include "machine/state.h"

#include "machine/backends.h"

#include <inttypes.h>
#include <stdio.h>

#define MAGIC       "RuchSt\r\n"
#define MAGIC_BYTES 8
#define VERSION     1u
#define MAX_TEXT    4096
#define MAX_NAME    256

/* --- texts --- */

static void put_text(GByteArray *out, const char *text)
{
    uint16_t len = (uint16_t)min_u64(strlen(text), MAX_TEXT);
    g_byte_array_append(out, (const uint8_t *)&len, sizeof(len));
    g_byte_array_append(out, (const uint8_t *)text, len);
}

static bool get_text(struct cur *c, char *ret, size_t size)
{
    uint16_t len = cur_le16(c);
    if (len >= size)
        c->bad = true;
    const uint8_t *p = cur_take(c, len);
    if (p)
        memcpy(ret, p, len);
    ret[p ? len : 0] = 0;
    return !c->bad;
}

static bool cut_off(const char *where, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "the machine's state is cut off in %s", where);
}

/* --- head: what must be alike --- */

static char *say_board(const struct machine *m)
{
    return g_strdup(m->board->name);
}

static char *say_accel(const struct machine *m)
{
    return g_strdup(m->accel->ops->name);
}

static char *say_ram(const struct machine *m)
{
    return g_strdup_printf("%" PRIu64, m->config.ram_bytes);
}

static char *say_topology(const struct machine *m)
{
    const struct cpu_topology *t = &m->config.topology;
    return g_strdup_printf("%u sockets, %u dies, %u cores, %u threads", t->sockets, t->dies,
                           t->cores, t->threads);
}

/* A digit for each that can be. */
static char *say_vcpus(const struct machine *m)
{
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < m->vcpu_count; i++)
        g_string_append_c(s, m->vcpus[i]->present ? '1' : '0');
    return g_string_free(s, false);
}

/* The leaves of CPUID that say what programs may use. */
static char *say_cpu(const struct machine *m)
{
    static const uint32_t leaves[][2] = {
        {0, 0},   {1, 0},          {7, 0},          {7, 1},          {0xd, 0},
        {0xd, 1}, {0x80000001, 0}, {0x80000007, 0}, {0x80000008, 0}, {0x40000001, 0},
    };
    GString *s = g_string_new(NULL);
    for (size_t i = 0; m->cpu_model && i < ARRAY_COUNT(leaves); i++) {
        uint32_t r[4] = {0};
        cpu_model_cpuid(m->cpu_model, &m->config.topology, 0, leaves[i][0], leaves[i][1], r);
        g_string_append_printf(s, "%s%x:%x.%x.%x.%x", i ? " " : "", leaves[i][0], r[0], r[1], r[2],
                               r[3]);
    }
    return g_string_free(s, false);
}

static const struct {
    const char *name;
    char *(*say)(const struct machine *m);
} head_rows[] = {
    {"board", say_board},       {"accelerator", say_accel}, {"RAM in bytes", say_ram},
    {"topology", say_topology}, {"vCPUs", say_vcpus},       {"CPU features", say_cpu},
};

static void save_head(const struct machine *m, GByteArray *out)
{
    uint32_t version = VERSION;
    g_byte_array_append(out, (const uint8_t *)MAGIC, MAGIC_BYTES);
    g_byte_array_append(out, (const uint8_t *)&version, sizeof(version));
    for (size_t i = 0; i < ARRAY_COUNT(head_rows); i++) {
        g_autofree char *text = head_rows[i].say(m);
        put_text(out, head_rows[i].name);
        put_text(out, text);
    }
    put_text(out, "");
}

static bool check_head(const struct machine *m, struct cur *c, GError **error)
{
    char name[MAX_NAME], has[MAX_TEXT + 1];
    const uint8_t *magic = cur_take(c, MAGIC_BYTES);
    uint32_t version = cur_le32(c);
    if (!magic || memcmp(magic, MAGIC, MAGIC_BYTES))
        return ruche_error(error, RUCHE_ERR_INVALID, "this is not the state of a machine");
    if (version != VERSION)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "the machine's state has version %u, and this program knows %u", version,
                           VERSION);
    for (size_t i = 0; i < ARRAY_COUNT(head_rows); i++) {
        g_autofree char *want = head_rows[i].say(m);
        if (!get_text(c, name, sizeof(name)) || !get_text(c, has, sizeof(has)))
            return cut_off("its head", error);
        if (strcmp(name, head_rows[i].name))
            return ruche_error(error, RUCHE_ERR_INVALID, "the machine's state lacks '%s'",
                               head_rows[i].name);
        if (strcmp(has, want))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "the state is of a machine with %s '%s', and this one has '%s'",
                               name, has, want);
    }
    return (get_text(c, name, sizeof(name)) && !*name) || cut_off("its head", error);
}

/* --- sections --- */

static void put_section(GByteArray *out, const char *name, const char *type,
                        const GByteArray *bytes)
{
    uint32_t len = bytes->len;
    put_text(out, name);
    put_text(out, type);
    g_byte_array_append(out, (const uint8_t *)&len, sizeof(len));
    g_byte_array_append(out, bytes->data, len);
}

/* What follows a section's name. */
static bool get_body(struct cur *c, const char *name, const char *type, struct cur *ret,
                     GError **error)
{
    char has_type[MAX_NAME];
    if (!get_text(c, has_type, sizeof(has_type)))
        return cut_off(name, error);
    if (strcmp(has_type, type))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the machine's state: '%s' is a %s, and in this machine a %s", name,
                           has_type, type);
    uint32_t len = cur_le32(c);
    const uint8_t *p = cur_take(c, len);
    *ret = cur_of(p, len);
    return p || cut_off(name, error);
}

/* The next section, which must be this one. */
static bool get_section(struct cur *c, const char *name, const char *type, struct cur *ret,
                        GError **error)
{
    char has_name[MAX_NAME];
    if (!get_text(c, has_name, sizeof(has_name)))
        return cut_off(name, error);
    if (strcmp(has_name, name))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the machine's state has %s%s%s where this machine has '%s' (%s)",
                           *has_name ? "'" : "its end", has_name, *has_name ? "'" : "", name, type);
    return get_body(c, name, type, ret, error);
}

static bool all_read(const struct cur *c, const char *name, GError **error)
{
    return !c->left ||
           ruche_error(error, RUCHE_ERR_INVALID, "the machine's state: %zu bytes too many in '%s'",
                       c->left, name);
}

/* Paths of devices without an id count by how many a process has made; here they count within their
 * type. */
static void device_name(const struct device *d, char *ret, size_t size)
{
    unsigned n = 0;
    if (d->id) {
        snprintf(ret, size, "device %.200s", d->id);
        return;
    }
    for (const struct device *x = d->machine->devices; x && x != d; x = x->next)
        n += x->type == d->type && !x->id;
    snprintf(ret, size, "device %.200s[%u]", d->type->name, n);
}

/* --- clock --- */

struct saved_clock {
    int64_t now_ns;
};

static const struct state_field clock_fields[] = {
    STATE(struct saved_clock, now_ns, .max = CLOCK_MAX_NS), {0}};

static void save_clock(struct machine *m, GByteArray *out)
{
    const struct saved_clock s = {clock_now_ns(&m->clock)};
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    state_fields_save(clock_fields, &s, bytes);
    put_section(out, "clock", "clock", bytes);
}

static bool load_clock(struct machine *m, struct cur *c, GError **error)
{
    struct saved_clock s = {0};
    struct cur in;
    if (!get_section(c, "clock", "clock", &in, error) ||
        !state_fields_load(clock_fields, &s, "the clock", &in, error) ||
        !all_read(&in, "clock", error))
        return false;
    clock_set_stopped_ns(&m->clock, s.now_ns);
    return true;
}

/* --- accelerator and vCPUs --- */

static bool save_accel(struct machine *m, GByteArray *out, GError **error)
{
    const struct accel_ops *ops = m->accel->ops;
    g_autoptr(GByteArray) common = g_byte_array_new();
    if (!ops->vcpu_save)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "accelerator '%s' cannot save its vCPUs",
                           ops->name);
    if (ops->save && !ops->save(m->accel, common, error))
        return false;
    put_section(out, "accelerator", ops->name, common);
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        char name[32];
        if (!m->vcpus[i]->present)
            continue;
        snprintf(name, sizeof(name), "vcpu %u", i);
        if (!ops->vcpu_save(m->vcpus[i], bytes, error))
            return false;
        put_section(out, name, ops->name, bytes);
    }
    return true;
}

static bool load_accel(struct machine *m, struct cur *c, GError **error)
{
    const struct accel_ops *ops = m->accel->ops;
    struct cur in;
    if (!ops->vcpu_load)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "accelerator '%s' cannot load vCPUs",
                           ops->name);
    if (!get_section(c, "accelerator", ops->name, &in, error) ||
        (ops->load && !ops->load(m->accel, &in, error)) || !all_read(&in, "accelerator", error))
        return false;
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        char name[32];
        if (!m->vcpus[i]->present)
            continue;
        snprintf(name, sizeof(name), "vcpu %u", i);
        if (!get_section(c, name, ops->name, &in, error) ||
            !ops->vcpu_load(m->vcpus[i], &in, error) || !all_read(&in, name, error))
            return false;
    }
    return true;
}

/* --- devices --- */

static void save_devices(const struct machine *m, GByteArray *out)
{
    for (struct device *d = m->devices; d; d = d->next) {
        char name[MAX_NAME];
        g_autoptr(GByteArray) bytes = device_state_save(d);
        device_name(d, name, sizeof(name));
        put_section(out, name, d->type->name, bytes);
    }
}

static bool lacks_one(GHashTable *left, GError **error)
{
    GHashTableIter it;
    gpointer name = NULL;
    g_hash_table_iter_init(&it, left);
    g_hash_table_iter_next(&it, &name, NULL);
    return ruche_error(error, RUCHE_ERR_INVALID, "the machine's state lacks '%s'", (char *)name);
}

/* By name: what was plugged in at run time stood last there, and may stand anywhere here. */
static bool load_devices(struct machine *m, struct cur *c, GError **error)
{
    g_autoptr(GHashTable) left = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    char name[MAX_NAME];
    for (struct device *d = m->devices; d; d = d->next) {
        device_name(d, name, sizeof(name));
        g_hash_table_insert(left, g_strdup(name), d);
    }
    while (g_hash_table_size(left)) {
        struct cur in;
        if (!get_text(c, name, sizeof(name)))
            return cut_off("its devices", error);
        struct device *d = g_hash_table_lookup(left, name);
        if (!d)
            return g_str_has_prefix(name, "device ")
                       ? ruche_error(error, RUCHE_ERR_INVALID,
                                     "the machine's state has '%s', which this machine does not "
                                     "have",
                                     name)
                       : lacks_one(left, error);
        if (!get_body(c, name, d->type->name, &in, error) ||
            !device_state_load(d, in.p, in.left, error))
            return false;
        g_hash_table_remove(left, name);
    }
    return true;
}

/* --- backends --- */

struct backend_walk {
    const struct backend_state *ops;
    enum backend_kind kind;
    GByteArray *out;
    GError **error;
    bool failed;
};

static void save_backend(const char *id, void *backend, void *opaque)
{
    struct backend_walk *w = opaque;
    const char *type = w->ops->type(backend);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    if (w->failed || !type)
        return;
    w->failed = !w->ops->save(backend, bytes, w->error);
    if (w->failed)
        return;
    g_autofree char *name = g_strdup_printf("%s %.200s", backend_kind_name(w->kind), id);
    put_section(w->out, name, type, bytes);
}

static bool save_backends(struct machine *m, GByteArray *out, GError **error)
{
    struct backend_walk w = {.out = out, .error = error};
    for (w.kind = 0; w.kind < N_BACKEND_KINDS && !w.failed; w.kind++) {
        w.ops = m->backend_state[w.kind];
        if (w.ops)
            backend_foreach(m, w.kind, save_backend, &w);
    }
    return !w.failed;
}

/* The backend that a section's name says, of this machine. */
static void *named_backend(struct machine *m, const char *name, const struct backend_state **ret_ops)
{
    for (enum backend_kind k = 0; k < N_BACKEND_KINDS; k++) {
        const char *kind = backend_kind_name(k);
        size_t len = strlen(kind);
        *ret_ops = m->backend_state[k];
        if (*ret_ops && m->backends[k] && !strncmp(name, kind, len) && name[len] == ' ')
            return g_hash_table_lookup(m->backends[k], name + len + 1);
    }
    return NULL;
}

/* To the end. What a state does not have begins anew: older ones have none of these. */
static bool load_backends(struct machine *m, struct cur *c, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_direct_hash, g_direct_equal);
    char name[MAX_NAME];
    while (get_text(c, name, sizeof(name)) && *name) {
        const struct backend_state *ops;
        void *backend = named_backend(m, name, &ops);
        struct cur in;
        if (!backend || !g_hash_table_add(seen, backend))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "the machine's state has '%s', which this machine does not have", name);
        const char *type = ops->type(backend);
        if (!get_body(c, name, type ? type : "backend without a state", &in, error) ||
            !ops->load(backend, &in, error) || !all_read(&in, name, error))
            return false;
    }
    return !c->bad || cut_off("its end", error);
}

/* --- all of it --- */

GByteArray *machine_state_save(struct machine *m, GError **error)
{
    g_assert(!machine_is_running(m));
    for (struct device *d = m->devices; d; d = d->next) {
        device_stopped(d, true);
        if (!device_state_prepare(d, error))
            return NULL;
    }
    g_autoptr(GByteArray) out = g_byte_array_new();
    save_head(m, out);
    save_clock(m, out);
    if (!save_accel(m, out, error))
        return NULL;
    save_devices(m, out);
    if (!save_backends(m, out, error))
        return NULL;
    put_text(out, "");
    return g_steal_pointer(&out);
}

/* What is loaded is on top of the state after power-on. */
static void begin_anew(struct machine *m)
{
    if (m->accel->ops->clock_stopped)
        m->accel->ops->clock_stopped(m->accel, true);
    for (struct device *d = m->devices; d; d = d->next) {
        device_stopped(d, true);
        device_reset(d);
    }
    for (unsigned i = 0; i < m->vcpu_count; i++)
        if (m->vcpus[i]->present)
            m->accel->ops->vcpu_reset(m->vcpus[i]);
    m->powered_on = true;
}

bool machine_state_load(struct machine *m, const uint8_t *data, size_t len, GError **error)
{
    struct cur c = cur_of(data, len);
    g_assert(!machine_is_running(m));
    if (!check_head(m, &c, error))
        return false;
    begin_anew(m);
    if (!load_clock(m, &c, error) || !load_accel(m, &c, error) || !load_devices(m, &c, error) ||
        !load_backends(m, &c, error))
        return false;
    if (!all_read(&c, "its end", error))
        return false;
    for (struct device *d = m->devices; d; d = d->next)
        if (!device_state_loaded(d, error))
            return false;
    return true;
}
