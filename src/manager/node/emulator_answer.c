/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an emulator says about itself: its lines of QMP, cut down to what we keep; and the structure
 * made of that.
 *
 * Spec      QEMU's query-version, query-target, query-machines, query-cpu-definitions,
 *           qom-list-types.
 * Trust     The emulator is a program of this host; its answer, or the cache's copy of it, may
 *           still be anything: types are checked, and what has the wrong one is left out.
 */
#include "manager/node/emulator.h"

#include <string.h>

enum { ROWS_MAX = 4096 };

/* The answers come in the order of the questions (emulator.c); each is known by what it holds. */
static const char *classify(JsonNode *value)
{
    if (JSON_NODE_HOLDS_OBJECT(value)) {
        JsonObject *o = json_node_get_object(value);
        return json_object_has_member(o, "qemu")   ? "version"
               : json_object_has_member(o, "arch") ? "target"
                                                   : NULL;
    }
    if (!JSON_NODE_HOLDS_ARRAY(value) || !json_array_get_length(json_node_get_array(value)))
        return NULL;
    JsonNode *first = json_array_get_element(json_node_get_array(value), 0);
    if (!JSON_NODE_HOLDS_OBJECT(first))
        return NULL;
    JsonObject *o = json_node_get_object(first);
    return json_object_has_member(o, "cpu-max")    ? "machines"
           : json_object_has_member(o, "typename") ? "cpus"
           : json_object_has_member(o, "name")     ? "types"
                                                   : NULL;
}

static const char *text_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING
               ? json_node_get_string(n)
               : NULL;
}

static int64_t number_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_int(n) : 0;
}

static bool flag_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_boolean(n);
}

static JsonObject *object_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

static JsonArray *rows_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
}

/* The name of row i of a list of objects; NULL: none. */
static JsonObject *row_at(JsonArray *rows, unsigned i, const char **ret_name)
{
    JsonNode *n = json_array_get_element(rows, i);
    if (!JSON_NODE_HOLDS_OBJECT(n))
        return NULL;
    *ret_name = text_of(json_node_get_object(n), "name");
    return *ret_name ? json_node_get_object(n) : NULL;
}

static JsonArray *names_only(JsonArray *rows)
{
    JsonArray *names = json_array_new();
    const char *name;
    for (unsigned i = 0; i < json_array_get_length(rows) && i < ROWS_MAX; i++)
        if (row_at(rows, i, &name))
            json_array_add_string_element(names, name);
    return names;
}

static void keep_answer(JsonObject *kept, JsonNode *value)
{
    const char *what = classify(value);
    if (!what)
        return;
    if (!strcmp(what, "types"))
        json_object_set_array_member(kept, what, names_only(json_node_get_array(value)));
    else if (!strcmp(what, "cpus") && json_object_has_member(kept, "cpus"))
        json_object_set_member(kept, "cpus-kvm", json_node_copy(value));
    else
        json_object_set_member(kept, what, json_node_copy(value));
}

JsonObject *emulator_answer_parse(const char *lines, GError **error)
{
    g_autoptr(JsonObject) kept = json_object_new();
    g_auto(GStrv) list = g_strsplit(lines, "\n", 64);
    for (char **line = list; *line; line++) {
        g_autoptr(JsonParser) parser = json_parser_new();
        if (**line != '{' || !json_parser_load_from_data(parser, *line, -1, NULL))
            continue;
        JsonNode *root = json_parser_get_root(parser);
        JsonNode *value = root && JSON_NODE_HOLDS_OBJECT(root)
                              ? json_object_get_member(json_node_get_object(root), "return")
                              : NULL;
        if (value)
            keep_answer(kept, value);
    }
    static const char *const needed[] = {"version", "machines", "types"};
    for (unsigned i = 0; i < ARRAY_COUNT(needed); i++)
        if (!json_object_has_member(kept, needed[i])) {
            ruche_error(error, MANAGER_ERR_MACHINE, "it did not tell its %s", needed[i]);
            return NULL;
        }
    return g_steal_pointer(&kept);
}

/* A name like pc-q35-7.2 stays what it is; q35 is what the newest is called. ruche-vmm lists them
 * the other way round. */
static bool is_versioned(const char *name)
{
    size_t n = name ? strlen(name) : 0;
    return n > 3 && g_ascii_isdigit(name[n - 1]) && strchr(name, '.') && strchr(name, '-');
}

static void add_name(struct emulator_full *f, const char *name)
{
    if (name && !g_ptr_array_find_with_equal_func(f->names, name, g_str_equal, NULL))
        g_ptr_array_add(f->names, (gpointer)name);
}

static void read_machine(struct emulator_full *f, JsonObject *o, const char *name)
{
    const char *alias = text_of(o, "alias");
    bool swap = is_versioned(alias) && !is_versioned(name);
    struct emulator_machine *m = &f->machine_rows[f->machine_count++];
    m->name = g_strdup(swap ? alias : name);
    m->alias = g_strdup(swap ? name : alias);
    m->cpu_max = (unsigned)CLAMP(number_of(o, "cpu-max"), 1, 65535);
    m->is_default = flag_of(o, "is-default");
    m->deprecated = flag_of(o, "deprecated");
    add_name(f, m->name);
    add_name(f, m->alias);
}

/* The default comes first: some clients take the first. */
static void read_machines(struct emulator_full *f, JsonArray *rows)
{
    unsigned count = MIN(json_array_get_length(rows), ROWS_MAX);
    f->machine_rows = g_new0(struct emulator_machine, count);
    for (int defaults = 1; defaults >= 0; defaults--)
        for (unsigned i = 0; i < count; i++) {
            const char *name;
            JsonObject *o = row_at(rows, i, &name);
            if (o && flag_of(o, "is-default") == defaults && strcmp(name, "none") != 0)
                read_machine(f, o, name);
        }
}

static bool cpu_usable(JsonArray *rows, const char *wanted)
{
    for (unsigned i = 0; rows && i < json_array_get_length(rows) && i < ROWS_MAX; i++) {
        const char *name;
        JsonObject *o = row_at(rows, i, &name);
        if (!o || strcmp(name, wanted) != 0)
            continue;
        JsonArray *missing = rows_of(o, "unavailable-features");
        return !missing || !json_array_get_length(missing);
    }
    return false;
}

static void read_cpus(struct emulator_full *f, JsonArray *rows, JsonArray *rows_kvm)
{
    unsigned count = rows ? MIN(json_array_get_length(rows), ROWS_MAX) : 0;
    f->cpus = g_new0(struct emulator_cpu, count);
    for (unsigned i = 0; i < count; i++) {
        const char *name;
        JsonObject *o = row_at(rows, i, &name);
        if (!o)
            continue;
        f->cpus[f->cpu_count++] = (struct emulator_cpu){
            .name = g_strdup(name),
            .usable = cpu_usable(rows, name),
            .usable_kvm = cpu_usable(rows_kvm ? rows_kvm : rows, name),
            .deprecated = flag_of(o, "deprecated"),
        };
    }
}

/* QEMU's words for processors, and libvirt's. */
static const char *arch_word(const char *target)
{
    static const char *const words[][2] = {{"i386", "i686"}, {"arm", "armv7l"}, {"sh4eb", "sh4eb"}};
    for (unsigned i = 0; i < ARRAY_COUNT(words); i++)
        if (!strcmp(words[i][0], target))
            return words[i][1];
    return target;
}

static GHashTable *read_types(JsonArray *rows)
{
    GHashTable *types = g_hash_table_new(g_str_hash, g_str_equal);
    for (unsigned i = 0; i < json_array_get_length(rows) && i < ROWS_MAX; i++) {
        JsonNode *n = json_array_get_element(rows, i);
        if (JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING)
            g_hash_table_add(types, (gpointer)json_node_get_string(n));
    }
    return types;
}

/* A machine may be asked for by names that query-machines does not list. */
static void add_other_names(struct emulator_full *f)
{
    if (f->e.ours && emulator_machine(f, "q35"))
        add_name(f, "pc");
    g_ptr_array_add(f->names, NULL);
    f->e.machines = (const char *const *)f->names->pdata;
}

struct emulator_full *emulator_from_answer(const char *path, JsonObject *answer, GError **error)
{
    JsonObject *version = object_of(answer, "version"), *target = object_of(answer, "target");
    JsonArray *machines = rows_of(answer, "machines"), *types = rows_of(answer, "types");
    JsonObject *number = version ? object_of(version, "qemu") : NULL;
    if (!number || !machines || !types) {
        ruche_error(error, MANAGER_ERR_MACHINE, "emulator '%s': its description is incomplete",
                    path);
        return NULL;
    }
    const char *package = text_of(version, "package"),
               *arch = target ? text_of(target, "arch") : NULL;
    struct emulator_full *f = g_new0(struct emulator_full, 1);
    f->e.path = g_strdup(path);
    f->e.ours = package && g_str_has_prefix(package, "ruche-vmm");
    f->e.arch = g_strdup(arch_word(arch ? arch : "x86_64"));
    f->e.version = (unsigned)(number_of(number, "major") * 1000000 +
                              number_of(number, "minor") * 1000 + number_of(number, "micro"));
    f->names = g_ptr_array_new();
    read_machines(f, machines);
    read_cpus(f, rows_of(answer, "cpus"), rows_of(answer, "cpus-kvm"));
    g_autoptr(GHashTable) set = read_types(types);
    f->e.words = emulator_words(f->e.ours, set);
    add_other_names(f);
    return f;
}

const struct emulator_machine *emulator_machine(const struct emulator_full *f, const char *name)
{
    if (name && f->e.ours && !strcmp(name, "pc"))
        name = "q35";
    for (unsigned i = 0; i < f->machine_count; i++) {
        const struct emulator_machine *m = &f->machine_rows[i];
        if (name ? !strcmp(m->name, name) || !g_strcmp0(m->alias, name) : m->is_default)
            return m;
    }
    return name || !f->machine_count ? NULL : &f->machine_rows[0];
}

void emulator_full_free(struct emulator_full *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < f->machine_count; i++) {
        g_free(f->machine_rows[i].name);
        g_free(f->machine_rows[i].alias);
    }
    for (unsigned i = 0; i < f->cpu_count; i++)
        g_free(f->cpus[i].name);
    g_free(f->machine_rows);
    g_free(f->cpus);
    g_ptr_array_free(f->names, TRUE);
    g_hash_table_unref(f->e.words);
    g_free(f->e.path);
    g_free(f->e.arch);
    g_free(f);
}
