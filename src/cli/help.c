/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Help, the manual page and the shells' completion: all from the commands' table. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_option global_options[] = {
    { "connect", "WHERE", "system, session, a socket's path or an https URL; also RUCHE_CONNECT", false },
    { "json", NULL, "answers as JSON", false },
    { "help", NULL, "what a command does", false },
    { 0 },
};

static void print_options(const struct cli_option *options)
{
    for (; options && options->name; options++) {
        g_autofree char *left = g_strdup_printf("--%s%s%s", options->name, options->argument ? " " : "",
                                                options->argument ? options->argument : "");
        printf("  %-24s %s%s\n", left, options->help, options->many ? " (may be given again)" : "");
    }
}

void cli_help(void)
{
    puts("ruche: virtual machines of this host\n\nusage: ruche COMMAND [OPTIONS] [ARGUMENTS]\n");
    for (const struct cli_command *const *c = cli_command_list(); *c; c++)
        printf("  %-12s %s\n", (*c)->name, (*c)->summary);
    puts("\nEvery command has:");
    print_options(global_options);
    puts("\n'ruche COMMAND --help' tells more. Two to begin with: 'ruche launch debian --name web', 'ruche ssh web'.");
}

void cli_command_help(const struct cli_command *cmd)
{
    printf("usage: ruche %s%s%s%s\n\n%s.\n", cmd->name, cmd->options ? " [OPTIONS]" : "", cmd->arguments ? " " : "",
           cmd->arguments ? cmd->arguments : "", cmd->summary);
    if (cmd->other_name)
        printf("Also called '%s'.\n", cmd->other_name);
    if (cmd->text)
        printf("\n%s\n", cmd->text);
    if (cmd->options)
        puts("\noptions:");
    print_options(cmd->options);
}

static int run_help(struct cli *c)
{
    const struct cli_command *cmd = c->arg_count ? cli_command_find(c->args[0]) : NULL;
    if (c->arg_count && !cmd) {
        fprintf(stderr, "ruche: '%s' is no command\n", c->args[0]);
        return 2;
    }
    if (cmd)
        cli_command_help(cmd);
    else
        cli_help();
    return 0;
}
CLI_COMMAND(help, .name = "help", .arguments = "[COMMAND]", .summary = "What there is, or what a command does", .max_args = 1, .local = true,
            .complete = COMPLETE_COMMAND, .run = run_help);

/* ---- manual page ---- */

static void roff_text(const char *text)
{
    for (bool start = true; *text; start = *text++ == '\n')
        if (*text == '\\' || *text == '-')
            printf("\\%c", *text);
        else if (start && (*text == '.' || *text == '\''))
            printf("\\&%c", *text);
        else
            putchar(*text);
}

static void roff_options(const struct cli_option *options)
{
    for (; options && options->name; options++) {
        printf(".TP\n.B \\-\\-");
        roff_text(options->name);
        if (options->argument)
            printf(" \\fI%s\\fR", options->argument);
        putchar('\n');
        roff_text(options->help);
        putchar('\n');
    }
}

static int run_manual(struct cli *c)
{
    puts(".TH RUCHE 1 \"\" \"Ruche " RUCHE_VERSION "\"\n.SH NAME\nruche \\- virtual machines of this host\n.SH SYNOPSIS\n"
         ".B ruche\n.I COMMAND\n[options] [arguments]\n.SH COMMANDS");
    for (const struct cli_command *const *cmd = cli_command_list(); *cmd; cmd++) {
        printf(".SS ruche %s %s\n", (*cmd)->name, (*cmd)->arguments ? (*cmd)->arguments : "");
        roff_text((*cmd)->summary);
        puts(".");
        if ((*cmd)->text) {
            roff_text((*cmd)->text);
            putchar('\n');
        }
        roff_options((*cmd)->options);
    }
    puts(".SH OPTIONS\nEvery command has these.");
    roff_options(global_options);
    puts(".SH EXIT STATUS\n0: done. 1: it failed, with one sentence on standard error. 2: the command line is wrong.\n"
         ".SH SEE ALSO\nruched(8), ruche\\-img(1), ruche\\-vmm(1), virsh(1)");
    return 0;
}
CLI_COMMAND(manual, .name = "manual", .summary = "Prints the manual page (roff)", .local = true, .run = run_manual);

/* ---- completion ---- */

static void each_command(const char *before, const char *after)
{
    for (const struct cli_command *const *c = cli_command_list(); *c; c++)
        printf("%s%s%s", before, (*c)->name, after);
}

static const char *candidates(enum cli_complete kind)
{
    switch (kind) {
    case COMPLETE_MACHINE:
        return "$(ruche list --all --names 2>/dev/null)";
    case COMPLETE_IMAGE:
        return "$(ruche images 2>/dev/null)";
    case COMPLETE_NETWORK:
        return "list info create delete start stop edit set leases xml $(ruche network list --names 2>/dev/null)";
    case COMPLETE_FILTER:
        return "list info define edit delete xml bindings $(ruche filter list --names 2>/dev/null)";
    case COMPLETE_COMMAND:
        return "$commands";
    case COMPLETE_SHELL:
        return "bash zsh fish";
    default:
        return "";
    }
}

/* bash's own functions; zsh runs them by bashcompinit. */
static void bash_completion(void)
{
    printf("_ruche() {\n    local commands=\"");
    each_command("", " ");
    puts("\"\n    local word=${COMP_WORDS[COMP_CWORD]} options= words=\n"
         "    if [ \"$COMP_CWORD\" = 1 ]; then\n        COMPREPLY=($(compgen -W \"$commands\" -- \"$word\"))\n        return\n    fi\n"
         "    case ${COMP_WORDS[1]} in");
    for (const struct cli_command *const *c = cli_command_list(); *c; c++) {
        printf("    %s) options=\"", (*c)->name);
        for (const struct cli_option *o = (*c)->options; o && o->name; o++)
            printf("--%s ", o->name);
        printf("\"; words=\"%s\" ;;\n", candidates((*c)->complete));
    }
    puts("    esac\n    case $word in\n    -*) COMPREPLY=($(compgen -W \"$options --json --help --connect\" -- \"$word\")) ;;\n"
         "    */*|.*) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
         "    *) COMPREPLY=($(compgen -W \"$words\" -- \"$word\")) ;;\n    esac\n}\ncomplete -o default -F _ruche ruche");
}

static void fish_completion(void)
{
    for (const struct cli_command *const *c = cli_command_list(); *c; c++) {
        printf("complete -c ruche -n __fish_use_subcommand -f -a %s -d '%s'\n", (*c)->name, (*c)->summary);
        for (const struct cli_option *o = (*c)->options; o && o->name; o++)
            printf("complete -c ruche -n '__fish_seen_subcommand_from %s' -l %s%s\n", (*c)->name, o->name, o->argument ? " -r" : "");
        if ((*c)->complete == COMPLETE_MACHINE)
            printf("complete -c ruche -n '__fish_seen_subcommand_from %s' -f -a '(ruche list --all --names 2>/dev/null)'\n", (*c)->name);
    }
}

static int run_completion(struct cli *c)
{
    if (!strcmp(c->args[0], "fish")) {
        fish_completion();
    } else if (!strcmp(c->args[0], "bash") || !strcmp(c->args[0], "zsh")) {
        if (!strcmp(c->args[0], "zsh"))
            puts("autoload -U +X bashcompinit && bashcompinit");
        bash_completion();
    } else {
        fprintf(stderr, "ruche: there is no completion for '%s'; for bash, zsh and fish there is\n", c->args[0]);
        return 2;
    }
    return 0;
}
CLI_COMMAND(completion, .name = "completion", .arguments = "bash|zsh|fish", .summary = "Prints a shell's completion",
            .text = "For bash: ruche completion bash >/etc/bash_completion.d/ruche", .min_args = 1, .max_args = 1, .local = true,
            .complete = COMPLETE_SHELL, .run = run_completion);
