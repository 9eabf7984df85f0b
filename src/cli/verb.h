/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that are a family of verbs: `ruche interface VERB [ARGUMENT]`. */
#pragma once

#include "cli/cli.h"

struct cli_verb {
    const char *name;
    const char *argument; /* "NAME": it takes one; NULL: none */
    int (*run)(struct cli *c);
    const char *method, *path; /* of a verb without `run`: its request; the path has %s for the argument */
};
/* The verb that the first argument names, among rows up to one without a name. */
int cli_run_verb(struct cli *c, const struct cli_verb *verbs);
/* An answer that only a script looks at; takes it. NULL: the error is told. */
int cli_finish(struct cli *c, JsonObject *o, GError *error);
/* The text behind a path with %s for the second argument, as it is. */
int cli_print_text(struct cli *c, const char *path);
