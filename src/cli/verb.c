/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Families of verbs. See verb.h. */
#include "cli/verb.h"

#include "cli/rest.h"
#include "cli/table.h"

#include <stdio.h>
#include <string.h>

int cli_finish(struct cli *c, JsonObject *o, GError *error)
{
    if (!o)
        return cli_fail(error);
    int status = c->json ? print_json(o) : 0;
    json_object_unref(o);
    return status;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* paths are rows of tables */
int cli_print_text(struct cli *c, const char *path)
{
    GError *error = NULL;
    g_autofree char *text = rest_text(c->rest, &error, path, c->args[1]);
    if (!text)
        return cli_fail(error);
    fputs(text, stdout);
    return 0;
}

static int send(struct cli *c, const struct cli_verb *v)
{
    GError *error = NULL;
    JsonObject *o = rest_call(c->rest, v->method, NULL, &error, v->path, c->args[1]);
    return cli_finish(c, o, error);
}
#pragma GCC diagnostic pop

int cli_run_verb(struct cli *c, const struct cli_verb *verbs)
{
    const char *words[32] = {NULL};
    for (size_t i = 0; verbs[i].name && i < G_N_ELEMENTS(words) - 1; i++) {
        const struct cli_verb *v = &verbs[i];
        words[i] = v->name;
        if (strcmp(v->name, c->args[0]) != 0)
            continue;
        if (c->arg_count == 1u + (v->argument != NULL))
            return v->run ? v->run(c) : send(c, v);
        fprintf(stderr, "ruche: usage: ruche %s %s%s%s\n", c->command->name, v->name, v->argument ? " " : "",
                v->argument ? v->argument : "");
        return 2;
    }
    fprintf(stderr, "ruche: %s has no '%s'%s\n", c->command->name, c->args[0], suggest_phrase(c->args[0], words));
    return 2;
}
