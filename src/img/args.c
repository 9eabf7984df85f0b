/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines by table: one row of a verb gives the option's parsing, its limits and its line of
 * help.
 *
 * Trust     The user's words; every number has limits, every word its list.
 */
#include "base/units.h"
#include "img/img.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

const char *const output_words[] = {"human", "json", NULL};
const char *const onoff_words[] = {"off", "on", NULL};

#define ROWS_MAX  48
#define LONG_BASE 256 /* getopt's values of long options: LONG_BASE + row */

static bool is_row(const struct arg *a)
{
    return a->letter || a->name;
}

static bool takes_value(const struct arg *a)
{
    return a->metavar;
}

/* "-f" or "--format", as the user may call it. */
static const char *arg_label(const struct arg *a)
{
    static __thread char buf[64];
    if (a->letter)
        snprintf(buf, sizeof(buf), "-%c", a->letter);
    else
        snprintf(buf, sizeof(buf), "--%s", a->name);
    return buf;
}

static bool set_number(const struct arg *a, const char *text, uint64_t *ret, GError **error)
{
    uint64_t v;
    if (a->kind == ARG_SIZE ? !units_parse_size(text, 1, &v) : !units_parse_u64(text, &v))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: '%s' is not a %s", arg_label(a), text,
                           a->kind == ARG_SIZE ? "size; use a number with K, M, G, T, P or E"
                                               : "number");
    if (v < a->min || (a->max && v > a->max))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: %s is out of range; it takes %" PRIu64 " to %" PRIu64, arg_label(a),
                           text, a->min, a->max);
    *ret = v;
    return true;
}

static bool set_word(const struct arg *a, const char *text, int *ret, GError **error)
{
    for (int i = 0; a->words[i]; i++) {
        if (!strcmp(a->words[i], text)) {
            *ret = i;
            return true;
        }
    }
    g_autofree char *all = g_strjoinv(", ", (char **)a->words);
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "%s: '%s' is none of %s%s", arg_label(a), text,
                       all, suggest_phrase(text, a->words));
}

static bool set_value(const struct arg *a, char *text, void *options, GError **error)
{
    void *at = (char *)options + a->offset;
    switch (a->kind) {
    case ARG_FLAG:
        *(bool *)at = true;
        return true;
    case ARG_TEXT:
        *(const char **)at = text;
        return true;
    case ARG_LIST:
        if (!*(GPtrArray **)at)
            *(GPtrArray **)at = g_ptr_array_new();
        g_ptr_array_add(*(GPtrArray **)at, text);
        return true;
    case ARG_ACTION:
        if (!*(GArray **)at)
            *(GArray **)at = g_array_new(false, false, sizeof(struct arg_action));
        g_array_append_vals(*(GArray **)at, &(struct arg_action){.arg = a, .value = text}, 1);
        return true;
    case ARG_WORD:
        return set_word(a, text, at, error);
    case ARG_NUMBER:
    case ARG_SIZE:
        return set_number(a, text, at, error);
    }
    return false;
}

/* getopt's two descriptions of the table. */
struct getopt_tables {
    char letters[2 * ROWS_MAX + 2];
    struct option names[ROWS_MAX + 1];
    const char *words[ROWS_MAX + 1]; /* names to suggest */
};

static void make_tables(const struct verb *v, struct getopt_tables *t)
{
    unsigned letters = 0, names = 0;
    t->letters[letters++] = ':'; /* a missing value is told from an unknown option */
    for (const struct arg *a = v->args; is_row(a) && a - v->args < ROWS_MAX; a++) {
        if (a->letter) {
            t->letters[letters++] = a->letter;
            if (takes_value(a))
                t->letters[letters++] = ':';
        }
        if (a->name) {
            t->words[names] = a->name;
            t->names[names++] = (struct option){
                .name = a->name, .has_arg = takes_value(a), .val = LONG_BASE + (int)(a - v->args)};
        }
    }
    t->letters[letters] = 0;
    t->words[names] = NULL;
    t->names[names] = (struct option){0};
}

static const struct arg *row_of(const struct verb *v, int val)
{
    if (val >= LONG_BASE)
        return &v->args[val - LONG_BASE];
    for (const struct arg *a = v->args; is_row(a); a++) {
        if (a->letter == val)
            return a;
    }
    return NULL;
}

static bool refuse(const struct verb *v, const struct getopt_tables *t, int got, const char *word,
                   GError **error)
{
    if (got == ':')
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: option '%s' needs a value", v->name,
                           word);
    if (!strncmp(word, "--", 2)) {
        g_autofree char *name = g_strndup(word + 2, strcspn(word + 2, "="));
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "%s: unknown option '%s'%s", v->name, word,
                           suggest_phrase(name, t->words));
    }
    return ruche_error(error, RUCHE_ERR_UNKNOWN,
                       "%s: unknown option '-%c'; 'ruche-img %s --help' lists them", v->name,
                       optopt, v->name);
}

static bool check_count(const struct verb *v, unsigned count, GError **error)
{
    if (count >= v->min_operands && count <= v->max_operands)
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "%s takes %s, not %u operand%s; 'ruche-img %s --help' says more", v->name,
                       v->operands, count, count == 1 ? "" : "s", v->name);
}

bool args_parse(const struct verb *v, int argc, char **argv, void *options, unsigned *ret_count,
                GError **error)
{
    struct getopt_tables t;
    make_tables(v, &t);
    unsigned bare = v->bare_last && argc > 1;
    char *last = argv[argc - 1];
    argc -= (int)bare;
    opterr = 0;
    optind = 1;
    int got;
    while ((got = getopt_long(argc, argv, t.letters, t.names, NULL)) != -1) {
        const struct arg *a = got == ':' || got == '?' ? NULL : row_of(v, got);
        if (!a)
            return refuse(v, &t, got, argv[optind - 1], error);
        if (!set_value(a, optarg, options, error))
            return false;
    }
    unsigned count = (unsigned)(argc - optind);
    if (!check_count(v, count + bare, error))
        return false;
    memmove(argv + 1, argv + optind, count * sizeof(*argv));
    if (bare)
        argv[1 + count] = last;
    *ret_count = count + bare;
    return true;
}

void args_clear(const struct verb *v, void *options)
{
    for (const struct arg *a = v->args; a && is_row(a); a++) {
        void *at = (char *)options + a->offset;
        if (a->kind == ARG_LIST)
            g_clear_pointer((GPtrArray **)at, g_ptr_array_unref);
        else if (a->kind == ARG_ACTION)
            g_clear_pointer((GArray **)at, g_array_unref);
    }
}

void args_print_help(const struct verb *v)
{
    printf("usage: ruche-img %s [options] %s\n%s\n\n", v->name, v->operands, v->summary);
    for (const struct arg *a = v->args; a && is_row(a); a++) {
        char left[64];
        int n = a->letter ? snprintf(left, sizeof(left), "-%c%s", a->letter, a->name ? ", " : "")
                          : snprintf(left, sizeof(left), "    ");
        if (a->name)
            n += snprintf(left + n, sizeof(left) - (size_t)n, "--%s", a->name);
        if (a->metavar)
            snprintf(left + n, sizeof(left) - (size_t)n, "%s%s", a->name ? "=" : " ", a->metavar);
        printf("  %-28s %s\n", left, a->help);
    }
    if (v->notes)
        printf("\n%s", v->notes);
}

char *args_join(GPtrArray *list)
{
    if (!list)
        return NULL;
    GString *all = g_string_new(NULL);
    for (guint i = 0; i < list->len; i++)
        g_string_append_printf(all, "%s%s", i ? "," : "", (const char *)list->pdata[i]);
    return g_string_free(all, false);
}

bool args_wants_help(GPtrArray *list)
{
    for (guint i = 0; list && i < list->len; i++) {
        g_auto(GStrv) words = g_strsplit(list->pdata[i], ",", -1);
        if (g_strv_contains((const char *const *)words, "help") ||
            g_strv_contains((const char *const *)words, "?"))
            return true;
    }
    return false;
}

bool args_size(const char *what, const char *text, uint64_t *ret, GError **error)
{
    if (units_parse_size(text, 1, ret))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "%s: '%s' is not a size below 8 EiB; use a number with K, M, G, T, P or E",
                       what, text);
}
