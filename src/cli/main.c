/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche`: finds the command, reads its options, runs it. */
#include "cli/cli.h"
#include "cli/rest.h"

#include "base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct cli_command *const *)a)->name, (*(const struct cli_command *const *)b)->name);
}

const struct cli_command *const *cli_command_list(void)
{
    static const struct cli_command **list;
    if (!list) {
        GPtrArray *a = g_ptr_array_new();
        LINKSET_FOREACH (cli_commands, struct cli_command, cmd)
            g_ptr_array_add(a, (void *)cmd);
        qsort(a->pdata, a->len, sizeof(void *), by_name);
        g_ptr_array_add(a, NULL);
        list = (const struct cli_command **)g_ptr_array_free(a, FALSE);
    }
    return list;
}

const struct cli_command *cli_command_find(const char *name)
{
    for (const struct cli_command *const *c = cli_command_list(); *c; c++)
        if (!strcmp((*c)->name, name) || ((*c)->other_name && !strcmp((*c)->other_name, name)))
            return *c;
    return NULL;
}

static int option_row(const struct cli_command *cmd, const char *name)
{
    for (int i = 0; cmd->options && cmd->options[i].name; i++)
        if (!strcmp(cmd->options[i].name, name))
            return i;
    return -1;
}

const char *cli_value(const struct cli *c, const char *name)
{
    int row = option_row(c->command, name);
    g_assert(row >= 0);
    const GPtrArray *v = c->values[row];
    return v ? v->pdata[v->len - 1] : NULL;
}

char **cli_values(const struct cli *c, const char *name)
{
    int row = option_row(c->command, name);
    g_assert(row >= 0);
    const GPtrArray *v = c->values[row];
    char **list = g_new0(char *, (v ? v->len : 0) + 1);
    for (unsigned i = 0; v && i < v->len; i++)
        list[i] = v->pdata[i];
    return list;
}

bool cli_has(const struct cli *c, const char *name)
{
    return cli_value(c, name) != NULL;
}

bool cli_yes(const struct cli *c, const char *name)
{
    return !g_strcmp0(cli_value(c, name), "yes");
}

int cli_fail(GError *error)
{
    fprintf(stderr, "ruche: %s\n", error->message);
    g_error_free(error);
    return 1;
}

char *cli_read_file(const char *path, GError **error)
{
    char *text = NULL;
    g_file_get_contents(!strcmp(path, "-") ? "/dev/stdin" : path, &text, NULL, error);
    return text;
}

/* ---- the command line ---- */

struct globals {
    const char *connect;
    bool json, help;
};

static int wrong(const char *format, ...) G_GNUC_PRINTF(1, 2);
static int wrong(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *text = g_strdup_vprintf(format, ap);
    va_end(ap);
    fprintf(stderr, "ruche: %s\n", text);
    return 2;
}

static const char *suggest_option(const struct cli_command *cmd, const char *name)
{
    const char *words[CLI_MAX_OPTIONS + 1] = { NULL };
    for (int i = 0; cmd->options && cmd->options[i].name; i++)
        words[i] = cmd->options[i].name;
    return suggest_phrase(name, words);
}

/* Options that every command has. How many words were used, 0: it is none of these. */
static int take_global(struct globals *g, char **words)
{
    if (!strcmp(words[0], "--json"))
        g->json = true;
    else if (!strcmp(words[0], "--help") || !strcmp(words[0], "-h"))
        g->help = true;
    else if (!strcmp(words[0], "--connect") && words[1])
        return g->connect = words[1], 2;
    else if (g_str_has_prefix(words[0], "--connect="))
        g->connect = words[0] + strlen("--connect=");
    else
        return 0;
    return 1;
}

/* Is it one of the words that the option takes, where these are told? */
static bool is_word(const struct cli_option *o, const char *value)
{
    g_auto(GStrv) words = o->argument && strchr(o->argument, '|') ? g_strsplit(o->argument, "|", 0) : NULL;
    return !words || g_strv_contains((const char *const *)words, value);
}

/* "--name", "--name value", "--name=value". How many words were used; 0: *ret_status. */
static int take_option(struct cli *c, char **words, int *ret_status)
{
    const char *equals = strchr(words[0], '=');
    g_autofree char *name = g_strndup(words[0] + 2, equals ? (size_t)(equals - words[0] - 2) : strlen(words[0] + 2));
    int row = option_row(c->command, name);
    if (row < 0)
        return *ret_status = wrong("%s has no option '--%s'%s", c->command->name, name, suggest_option(c->command, name)), 0;
    const struct cli_option *o = &c->command->options[row];
    const char *value = equals ? equals + 1 : o->argument ? words[1] : "";
    if (!value || (equals && !o->argument))
        return *ret_status = wrong(o->argument ? "--%s needs %s" : "--%s takes no %s", name, o->argument ? o->argument : "value"), 0;
    if (!is_word(o, value))
        return *ret_status = wrong("--%s takes %s, not '%s'", name, o->argument, value), 0;
    if (!c->values[row])
        c->values[row] = g_ptr_array_new();
    else if (!o->many)
        return *ret_status = wrong("--%s is given twice", name), 0;
    g_ptr_array_add(c->values[row], (char *)value);
    return o->argument && !equals ? 2 : 1;
}

static int parse(struct cli *c, struct globals *g, char **words)
{
    GPtrArray *args = g_ptr_array_new();
    bool options = true;
    int status = 0;
    while (*words && !status) {
        int used = options ? take_global(g, words) : 0;
        if (!used && options && !strcmp(*words, "--"))
            options = false, used = 1;
        else if (!used && options && words[0][0] == '-' && words[0][1] == '-')
            used = take_option(c, words, &status);
        else if (!used && options && words[0][0] == '-' && words[0][1])
            status = wrong("'%s' is no option of %s; options begin with '--'", *words, c->command->name);
        else if (!used) {
            g_ptr_array_add(args, *words);
            options = options && !c->command->raw_args;
            used = 1;
        }
        words += used;
    }
    c->arg_count = args->len;
    g_ptr_array_add(args, NULL);
    c->args = (char **)g_ptr_array_free(args, FALSE);
    return status;
}

static int check_count(const struct cli *c)
{
    if (c->arg_count >= c->command->min_args && (c->arg_count <= c->command->max_args || c->command->raw_args))
        return 0;
    return wrong("usage: ruche %s %s", c->command->name, c->command->arguments ? c->command->arguments : "");
}

static int run(struct cli *c, const struct globals *g)
{
    GError *error = NULL;
    c->json = g->json;
    c->tty = isatty(1);
    if (!c->command->local && !(c->rest = rest_new(g->connect ? g->connect : g_getenv("RUCHE_CONNECT"), &error)))
        return cli_fail(error);
    int status = c->command->run(c);
    rest_free(c->rest);
    return status;
}

static int run_command(const struct cli_command *cmd, struct globals *g, char **words)
{
    struct cli c = { .command = cmd };
    int status = parse(&c, g, words);
    if (!status && g->help)
        cli_command_help(cmd);
    else if (!status)
        status = check_count(&c);
    if (!status && !g->help)
        status = run(&c, g);
    for (size_t i = 0; i < G_N_ELEMENTS(c.values); i++)
        g_clear_pointer(&c.values[i], g_ptr_array_unref);
    g_free(c.args);
    return status;
}

static const char *suggest_command(const char *name)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    for (const struct cli_command *const *c = cli_command_list(); *c; c++)
        g_ptr_array_add(words, (void *)(*c)->name);
    g_ptr_array_add(words, NULL);
    return suggest_phrase(name, (const char *const *)words->pdata);
}

int main(int argc, char **argv)
{
    struct globals g = { 0 };
    char **words = argv + 1;
    for (int used; *words && (used = take_global(&g, words)); words += used)
        ;
    if (!*words) {
        cli_help();
        return g.help ? 0 : 2;
    }
    if (!strcmp(*words, "--version"))
        *words = (char *)"version";
    const struct cli_command *cmd = cli_command_find(*words);
    if (!cmd)
        return wrong("'%s' is no command%s; 'ruche help' lists them", *words, suggest_command(*words));
    return run_command(cmd, &g, words + 1);
}
