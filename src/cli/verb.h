/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that are a family of verbs: `ruche interface VERB [ARGUMENT]`. */
#pragma once

#include "cli/cli.h"
#include "cli/table.h"

/* `args`: what stands behind the verb, NULL-ended. Returns the exit status. */
typedef int cli_verb_fn(struct cli *c, char **args);
struct cli_verb {
    const char *name;
    const char *arguments; /* "POOL VOLUME [SIZE]": those in brackets may be left out; "...": more of the last; "": none */
    cli_verb_fn *run;
    const char *method, *path; /* of a verb without `run`: its request; %s in the path is the argument */
};
/* The verb that the first argument names, among rows up to one without a name. */
int cli_run_verb(struct cli *c, const struct cli_verb *verbs);

/* What a list looks like. */
struct cli_listing {
    const char *member;   /* of the answer */
    const char *headings; /* "NAME STATE" */
    void (*row)(struct table *t, JsonObject *o);
};
/* In all of these %s in the path is an argument. With --json the answer is printed as it is. */
/* A table; with --names, where the command has that option, only names. */
int cli_list(struct cli *c, const struct cli_listing *l, const char *path, const char *argument);
int cli_show(struct cli *c, void (*show)(JsonObject *o), const char *path, char **args); /* at most two */
int cli_print_text(struct cli *c, const char *path, const char *argument);
/* Sends a text as member "xml"; `members` (may be NULL, taken) are the others. */
int cli_send_xml(struct cli *c, const char *xml, JsonObject *members, const char *path);
/* What --autostart says, which has to be given. */
int cli_set_autostart(struct cli *c, const char *path, const char *argument);
/* An answer that only a script looks at; takes it. NULL: the error is told. */
int cli_finish(struct cli *c, JsonObject *o, GError *error);

/* Lines of `info`: "name         text". */
void info_texts(JsonObject *o, const char *const *members); /* NULL ends; those that are there */
void info_flags(JsonObject *o, const char *const *members);
const char *text_or_dash(JsonObject *o, const char *member);
char *texts_joined(JsonObject *o, const char *member); /* of a list, with blanks between; "-": it is empty */
