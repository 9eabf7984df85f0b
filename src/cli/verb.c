/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Families of verbs. See verb.h. */
#include "cli/verb.h"

#include "cli/rest.h"

#include <stdio.h>
#include <string.h>

/* ---- answers ---- */

int cli_finish(struct cli *c, JsonObject *o, GError *error)
{
    if (!o)
        return cli_fail(error);
    int status = c->json ? print_json(o) : 0;
    json_object_unref(o);
    return status;
}

static bool wants_names(const struct cli *c)
{
    for (const struct cli_option *o = c->command->options; o && o->name; o++)
        if (!strcmp(o->name, "names"))
            return cli_has(c, "names");
    return false;
}

static void print_list(const struct cli *c, const struct cli_listing *l, JsonArray *list)
{
    struct table t;
    table_init_words(&t, c, l->headings);
    for (unsigned i = 0; i < json_array_get_length(list); i++)
        l->row(&t, json_array_get_object_element(list, i));
    table_print(&t);
}

static void print_names(JsonArray *list)
{
    for (unsigned i = 0; i < json_array_get_length(list); i++)
        puts(text_of(json_array_get_object_element(list, i), "name"));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* paths are rows of tables */
int cli_list(struct cli *c, const struct cli_listing *l, const char *path, const char *argument)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, path, argument);
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, l->member);
    if (wants_names(c))
        print_names(list);
    else
        print_list(c, l, list);
    return 0;
}

int cli_show(struct cli *c, void (*show)(JsonObject *o), const char *path, char **args)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, path, args[0], args[1]);
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    show(o);
    return 0;
}

int cli_print_text(struct cli *c, const char *path, const char *argument)
{
    GError *error = NULL;
    g_autofree char *text = rest_text(c->rest, &error, path, argument);
    if (!text)
        return cli_fail(error);
    fputs(text, stdout);
    return 0;
}

static int send(struct cli *c, const struct cli_verb *v, const char *argument)
{
    GError *error = NULL;
    JsonObject *o = rest_call(c->rest, v->method, NULL, &error, v->path, argument);
    return cli_finish(c, o, error);
}

int cli_set_autostart(struct cli *c, const char *path, const char *argument)
{
    GError *error = NULL;
    if (!cli_has(c, "autostart")) {
        fputs("ruche: give --autostart yes or no\n", stderr);
        return 2;
    }
    JsonObject *body = json_object_new();
    json_object_set_boolean_member(body, "autostart", cli_yes(c, "autostart"));
    JsonObject *o = rest_call(c->rest, "PATCH", body, &error, path, argument);
    return cli_finish(c, o, error);
}

int cli_send_xml(struct cli *c, const char *xml, JsonObject *members, const char *path)
{
    GError *error = NULL;
    JsonObject *body = members ? members : json_object_new();
    json_object_set_string_member(body, "xml", xml);
    JsonObject *o = rest_call(c->rest, "POST", body, &error, path, NULL); /* it has no %s */
    return cli_finish(c, o, error);
}
#pragma GCC diagnostic pop

/* ---- lines ---- */

void info_texts(JsonObject *o, const char *const *members)
{
    for (; *members; members++)
        if (text_of(o, *members))
            printf("%-12s %s\n", *members, text_of(o, *members));
}

void info_flags(JsonObject *o, const char *const *members)
{
    for (; *members; members++)
        printf("%-12s %s\n", *members, yes_no(o, *members));
}

const char *text_or_dash(JsonObject *o, const char *member)
{
    const char *text = text_of(o, member);
    return text && *text ? text : "-";
}

char *texts_joined(JsonObject *o, const char *member)
{
    JsonArray *list = json_object_get_array_member(o, member);
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < json_array_get_length(list); i++)
        g_string_append_printf(s, "%s%s", i ? " " : "", json_array_get_string_element(list, i));
    return g_string_free(s->len ? s : g_string_append(s, "-"), FALSE);
}

/* ---- verbs ---- */

/* Are there as many arguments as the verb takes? */
static bool takes(const struct cli_verb *v, unsigned count)
{
    g_auto(GStrv) words = g_strsplit(v->arguments, " ", 0);
    unsigned most = 0, least = 0;
    bool more = false;
    for (char **w = words; *w && **w && !more; w++) {
        more = !strcmp(*w, "...");
        most += !more;
        least += !more && **w != '[';
    }
    return count >= least && (more || count <= most);
}

int cli_run_verb(struct cli *c, const struct cli_verb *verbs)
{
    const char *words[32] = {NULL};
    for (size_t i = 0; verbs[i].name && i < G_N_ELEMENTS(words) - 1; i++) {
        const struct cli_verb *v = &verbs[i];
        words[i] = v->name;
        if (strcmp(v->name, c->args[0]) != 0)
            continue;
        if (takes(v, c->arg_count - 1))
            return v->run ? v->run(c, c->args + 1) : send(c, v, c->args[1]);
        fprintf(stderr, "ruche: usage: ruche %s %s%s%s\n", c->command->name, v->name, *v->arguments ? " " : "", v->arguments);
        return 2;
    }
    fprintf(stderr, "ruche: %s has no '%s'%s\n", c->command->name, c->args[0], suggest_phrase(c->args[0], words));
    return 2;
}
