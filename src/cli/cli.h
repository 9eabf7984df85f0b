/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche`, the command that a person types: words of a command line to requests of ruched's REST interface.
 *
 * A command is one CLI_COMMAND() row in a cmd_*.c; parsing, --help, the manual page and the shells' completion
 * derive from it.
 *
 * Exit status   0 done; 1 it failed, with one sentence on standard error; 2 the command line is wrong.
 */
#pragma once

#include "base/error.h"
#include "base/linkset.h"

#include <json-glib/json-glib.h>
#include <stdbool.h>

#define CLI_MAX_OPTIONS 24

struct cli_option {
    const char *name;     /* "memory": --memory */
    const char *argument; /* "SIZE"; "yes|no": one of these words; NULL: a switch */
    const char *help;
    bool many;            /* may be given again */
};

/* What shells offer for the command's arguments. */
enum cli_complete { COMPLETE_NONE, COMPLETE_MACHINE, COMPLETE_FILE, COMPLETE_IMAGE, COMPLETE_COMMAND, COMPLETE_SHELL, COMPLETE_NETWORK, COMPLETE_FILTER };

struct rest; /* rest.h */

struct cli {
    const struct cli_command *command;
    char **args;                       /* NULL-ended; after the options */
    unsigned arg_count;
    GPtrArray *values[CLI_MAX_OPTIONS]; /* by option's row: texts; NULL: not given */
    bool json;
    bool tty;                          /* standard output is a terminal */
    struct rest *rest;
};

struct cli_command {
    const char *name, *other_name; /* "list", "ls" */
    const char *arguments;         /* "NAME [NEW-NAME]" */
    const char *summary;           /* one line */
    const char *text;              /* more, for --help and the manual; may be NULL */
    const struct cli_option *options; /* ends with a row without a name; NULL: none */
    unsigned min_args, max_args;
    bool local;                    /* needs no manager */
    bool raw_args;                 /* options end at the first argument: what follows is another program's */
    enum cli_complete complete;
    int (*run)(struct cli *c);
};
LINKSET_DECLARE(cli_commands);
#define CLI_COMMAND(ident, ...)                                                                    \
    static const struct cli_command cli_row_##ident = { __VA_ARGS__ };                         \
    LINKSET_ENTRY(cli_commands, cli_row_##ident)

const struct cli_command *const *cli_command_list(void); /* sorted, NULL-ended */
const struct cli_command *cli_command_find(const char *name);

/* Of an option that was given: its (last) text, else NULL; a switch: "". */
const char *cli_value(const struct cli *c, const char *name);
char **cli_values(const struct cli *c, const char *name); /* all, NULL-ended, borrowed texts; g_free() */
bool cli_has(const struct cli *c, const char *name);
bool cli_yes(const struct cli *c, const char *name); /* it was given, as "yes" */

/* Says "ruche: ..." on standard error; returns 1. Takes the error. */
int cli_fail(GError *error);

char *cli_read_file(const char *path, GError **error); /* "-": standard input */
/* cmd_domain.c: a text in the editor; what was changed is given to `define`, else kept in its file. */
int cli_edit(struct cli *c, const char *xml, int (*define)(struct cli *c, const char *xml));
/* cmd_live.c: the terminal is a machine's console until Ctrl-]. */
int cli_console(struct cli *c, const char *name, bool force);
/* cmd_ssh.c: the key of a person who has none, which only `ruche ssh` uses; it may not be there. */
char *cli_own_key(void);

/* help.c */
void cli_help(void);
void cli_command_help(const struct cli_command *cmd);
