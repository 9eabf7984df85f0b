/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of filters with the rules that become of them, and frames that tell a machine's address: the first byte
 * chooses. */
#include "manager/filter/filter_learn.h"
#include "manager/filter/filter_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static GHashTable *defs; /* those that come with the program, by name */

static void load(void)
{
    defs = g_hash_table_new(g_str_hash, g_str_equal);
    for (unsigned i = 0; filter_builtin[i]; i++) {
        struct filter_def *d = filter_def_parse(filter_builtin[i], NULL);
        g_hash_table_insert(defs, d->name, d);
    }
}

static const struct filter_def *find(const char *name, void *opaque)
{
    const struct filter_def *d = opaque;
    return !strcmp(d->name, name) ? d : g_hash_table_lookup(defs, name);
}

/* What nft reads outside of quotes: one command a line, every set closed where it was opened. */
static void check_rules(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++) {
        bool quoted = false, hook = g_str_has_prefix(*l, "\t\ttype filter hook ");
        int open = 0;
        for (const char *p = *l; *p; p++) {
            if ((unsigned char)*p < ' ' && *p != '\t')
                __builtin_trap();
            quoted ^= *p == '"';
            open += quoted ? 0 : (*p == '{') - (*p == '}');
            if (!quoted && (*p == '#' || (*p == ';' && !hook)))
                __builtin_trap();
        }
        if (quoted || (g_str_has_prefix(*l, "\t\t") && open))
            __builtin_trap();
    }
}

static void compile(struct filter_def *d)
{
    static const char *const params[][2] = {
        { "IP", "192.0.2.7" }, { "IP", "192.0.2.8" }, { "IPV6", "2001:db8::7" }, { "PORT", "22" }, { "WORD", "NEW" }, { "CTRL_IP_LEARNING", "any" } };
    g_autoptr(GHashTable) table = filter_params_new();
    for (size_t i = 0; i < G_N_ELEMENTS(params); i++)
        filter_params_add(table, params[i][0], params[i][1]);
    struct filter_target t = {.ifname = "vnet0",
                              .filter = d->name,
                              .mac = "52:54:00:12:34:56",
                              .bridge = "br0",
                              .params = table,
                              .find = find,
                              .opaque = d};
    struct filter_program p = { 0 };
    if (!filter_compile(&t, &p, NULL))
        return;
    check_rules(p.text);
    filter_program_done(&p);
}

/* What was accepted is accepted again as it is printed, and stays the same. */
static void fuzz_description(const char *text)
{
    struct filter_def *d = filter_def_parse(text, NULL);
    if (!d)
        return;
    g_autofree char *first = filter_def_format(d);
    struct filter_def *again = filter_def_parse(first, NULL);
    if (!again)
        __builtin_trap();
    g_autofree char *second = filter_def_format(again);
    if (strcmp(first, second) != 0)
        __builtin_trap();
    compile(d);
    filter_def_free(d);
    filter_def_free(again);
}

static void fuzz_frame(const uint8_t *data, size_t size)
{
    struct filter_learner_of of = { .how = data[0] & 1 ? FILTER_LEARN_DHCP : FILTER_LEARN_ANY, .mac = { 0x52, 0x54, 0, 0, 0, 0x0a } };
    struct filter_sighting s = filter_sight(&of, data + 1, size - 1, data[0] & 2);
    if (s.kind && (!s.ip[0] || s.ip[0] >= 224))
        __builtin_trap();
    if (s.kind == FILTER_SEEN_LEASED && !(data[0] & 2)) /* no machine says so of itself */
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!defs)
        load();
    if (size < 2)
        return 0;
    if (data[0] == 'f') {
        g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
        fuzz_description(text);
    } else {
        fuzz_frame(data, size);
    }
    return 0;
}
