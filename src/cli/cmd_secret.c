/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche secret VERB`: passwords and keys of images and pools. A value is never an argument: others see those. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/verb.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { VALUE_MAX = 64 << 10 };

static const struct cli_option options[] = {
    { "file", "FILE", "define: libvirt's secret XML in place of the other options; set-value: the value; -: standard input", false },
    { "type", "TYPE", "define: volume, ceph, iscsi, tls or vtpm", false },
    { "usage", "NAME", "define: the path, target or name that it is for", false },
    { "description", "TEXT", "define: for those who read the list", false },
    { "private", NULL, "define: its value is never given back", false },
    { "ephemeral", NULL, "define: kept in memory only", false },
    { 0 },
};

static void row(struct table *t, JsonObject *s)
{
    table_add(t, text_of(s, "uuid"), text_of(s, "type"), text_or_dash(s, "usage"), yes_no(s, "has_value"), yes_no(s, "private"),
              yes_no(s, "ephemeral"));
}

static int run_list(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "secrets", "UUID TYPE USAGE VALUE PRIVATE EPHEMERAL", row };
    return cli_list(c, &listing, "/secrets", NULL);
}

static int run_xml(struct cli *c, char **args)
{
    return cli_print_text(c, "/secrets/%s/xml", args[0]);
}

static char *make_xml(const struct cli *c, GError **error)
{
    static const struct {
        const char *type, *element;
    } elements[] = { { "volume", "volume" }, { "iscsi", "target" }, { "ceph", "name" }, { "tls", "name" }, { "vtpm", "name" } };
    const char *type = cli_value(c, "type"), *usage = cli_value(c, "usage"), *element = NULL;
    for (size_t i = 0; type && i < G_N_ELEMENTS(elements); i++)
        if (!strcmp(elements[i].type, type))
            element = elements[i].element;
    if (!element || !usage) {
        ruche_error(error, RUCHE_ERR_INVALID, "give --type volume, ceph, iscsi, tls or vtpm, and --usage with what it is for");
        return NULL;
    }
    return g_markup_printf_escaped("<secret ephemeral='%s' private='%s'><description>%s</description><usage type='%s'><%s>%s</%s></usage></secret>",
                                   cli_has(c, "ephemeral") ? "yes" : "no", cli_has(c, "private") ? "yes" : "no",
                                   cli_has(c, "description") ? cli_value(c, "description") : "", type, element, usage, element);
}

static int run_define(struct cli *c, char **args)
{
    GError *error = NULL;
    const char *file = cli_value(c, "file");
    g_autofree char *xml = file ? cli_read_file(file, &error) : make_xml(c, &error);
    if (!xml)
        return cli_fail(error);
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "xml", xml);
    g_autoptr(JsonObject) o = rest_call(c->rest, "POST", body, &error, "/secrets");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    puts(text_of(o, "uuid"));
    return 0;
}

/* What is asked for on a terminal is not shown; a line's end is not part of it. Of a file every byte is. */
static bool read_value(const struct cli *c, char value[VALUE_MAX + 1], size_t *ret_len, GError **error)
{
    const char *file = cli_value(c, "file");
    if (!file && isatty(STDIN_FILENO)) {
        char *typed = getpass("Value: ");
        if (!typed)
            return ruche_error(error, RUCHE_ERR_IO, "there is no terminal to ask for the value");
        *ret_len = strlen(typed);
        bool fits = *ret_len <= VALUE_MAX;
        if (fits)
            memcpy(value, typed, *ret_len);
        explicit_bzero(typed, *ret_len);
        return fits || ruche_error(error, RUCHE_ERR_INVALID, "a value has at most %d bytes", VALUE_MAX);
    }
    FILE *f = file && strcmp(file, "-") != 0 ? fopen(file, "re") : stdin;
    if (!f)
        return ruche_error_errno(error, errno, "cannot open '%s'", file);
    setvbuf(f, NULL, _IONBF, 0);
    *ret_len = fread(value, 1, VALUE_MAX + 1, f);
    bool ok = !ferror(f);
    if (f != stdin)
        fclose(f);
    if (!ok)
        return ruche_error(error, RUCHE_ERR_IO, "the value cannot be read");
    return *ret_len <= VALUE_MAX || ruche_error(error, RUCHE_ERR_INVALID, "a value has at most %d bytes", VALUE_MAX);
}

static int run_set_value(struct cli *c, char **args)
{
    GError *error = NULL;
    char value[VALUE_MAX + 1];
    size_t len = 0;
    if (!read_value(c, value, &len, &error))
        return cli_fail(error);
    char *text = len ? g_base64_encode((const guchar *)value, len) : g_strdup("");
    explicit_bzero(value, sizeof(value));
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "base64", text);
    explicit_bzero(text, strlen(text));
    g_free(text);
    JsonObject *o = rest_call(c->rest, "PUT", body, &error, "/secrets/%s/value", args[0]);
    return cli_finish(c, o, error);
}

static const struct cli_verb verbs[] = {
    { "list", "", run_list, NULL, NULL },
    { "define", "", run_define, NULL, NULL },
    { "xml", "UUID", run_xml, NULL, NULL },
    { "delete", "UUID", NULL, "DELETE", "/secrets/%s" },
    { "set-value", "UUID", run_set_value, NULL, NULL },
    { 0 },
};

static int run_secret(struct cli *c)
{
    return cli_run_verb(c, verbs);
}
CLI_COMMAND(secret, .name = "secret", .arguments = "list|define|delete|set-value|xml [UUID]",
            .summary = "Passwords and keys of images and pools",
            .text = "ruche secret define --type volume --usage /images/a.qcow2 makes a secret and prints its UUID; ruche secret "
                    "set-value UUID reads its value from the terminal, standard input or --file.",
            .options = options, .min_args = 1, .max_args = 2, .run = run_secret);
