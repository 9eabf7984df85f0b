/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The human monitor: a few words over the QMP commands. */
#include "vmm/monitor.h"

#include <string.h>

struct hmp_command {
    const char *name, *args, *help;
    void (*run)(struct vmm *v, const char *args, GString *out);
};

static const struct hmp_command commands[], infos[];

/* Runs a QMP command; an error becomes text. NULL then. */
static JsonNode *ask(struct vmm *v, const char *command, GString *out)
{
    g_autoptr(GError) error = NULL;
    JsonNode *node = qmp_execute(v->qmp, command, NULL, &error);
    if (!node)
        g_string_append_printf(out, "Error: %s\n", error->message);
    return node;
}

static void simple(struct vmm *v, const char *command, GString *out)
{
    JsonNode *node = ask(v, command, out);
    g_clear_pointer(&node, json_node_unref);
}

static void do_quit(struct vmm *v, const char *args, GString *out)
{
    simple(v, "quit", out);
}

static void do_cont(struct vmm *v, const char *args, GString *out)
{
    simple(v, "cont", out);
}

static void do_stop(struct vmm *v, const char *args, GString *out)
{
    simple(v, "stop", out);
}

static void do_reset(struct vmm *v, const char *args, GString *out)
{
    simple(v, "system_reset", out);
}

static void do_powerdown(struct vmm *v, const char *args, GString *out)
{
    simple(v, "system_powerdown", out);
}

static void do_nmi(struct vmm *v, const char *args, GString *out)
{
    simple(v, "inject-nmi", out);
}

static void print_list(const struct hmp_command *list, const char *before, GString *out)
{
    for (const struct hmp_command *c = list; c->name; c++) {
        g_autofree char *left = g_strdup_printf("%s%s%s%s", before, c->name, c->args ? " " : "",
                                                c->args ? c->args : "");
        g_string_append_printf(out, "  %-22s %s\n", left, c->help);
    }
}

static void do_help(struct vmm *v, const char *args, GString *out)
{
    print_list(commands, "", out);
    print_list(infos, "info ", out);
}

/* ---- info ---- */

static const char *str(JsonObject *o, const char *name)
{
    return json_object_get_string_member_with_default(o, name, "");
}

static void info_status(struct vmm *v, const char *args, GString *out)
{
    enum run_state s = v->machine->state;
    g_string_append_printf(out, "VM status: %s%s%s%s\n", s == RUN_RUNNING ? "running" : "paused",
                           s == RUN_RUNNING || s == RUN_PAUSED ? "" : " (",
                           s == RUN_RUNNING || s == RUN_PAUSED ? "" : run_state_name(s),
                           s == RUN_RUNNING || s == RUN_PAUSED ? "" : ")");
}

static void info_version(struct vmm *v, const char *args, GString *out)
{
    g_string_append(out, RUCHE_VERSION "\n");
}

static void info_name(struct vmm *v, const char *args, GString *out)
{
    g_string_append_printf(out, "%s\n", v->options.name ? v->options.name : "");
}

static void info_kvm(struct vmm *v, const char *args, GString *out)
{
    g_string_append_printf(out, "accelerator: %s\n",
                           v->accel_note ? v->accel_note : v->machine->accel->ops->name);
}

static void info_cpus(struct vmm *v, const char *args, GString *out)
{
    for (unsigned i = 0; i < v->machine->vcpu_count; i++) {
        const struct vcpu *c = v->machine->vcpus[i];
        if (!c->present)
            continue;
        g_string_append_printf(out, "  CPU #%u: thread_id=%d%s\n", i, c->thread_id,
                               c->halted ? " (halted)" : "");
    }
}

static void info_block(struct vmm *v, const char *args, GString *out)
{
    g_autoptr(JsonNode) node = ask(v, "query-block", out);
    JsonArray *list = node ? json_node_get_array(node) : NULL;
    for (guint i = 0; list && i < json_array_get_length(list); i++) {
        JsonObject *b = json_array_get_object_element(list, i);
        JsonObject *in = json_object_has_member(b, "inserted")
                             ? json_object_get_object_member(b, "inserted")
                             : NULL;
        g_string_append_printf(
            out, "%s (%s): %s (%s%s)\n    Attached to:      %s\n", str(b, "device"),
            in ? str(in, "node-name") : "", in ? str(in, "file") : "", in ? str(in, "drv") : "",
            in && json_object_get_boolean_member_with_default(in, "ro", FALSE) ? ", read-only" : "",
            str(b, "qdev"));
    }
}

static void info_chardev(struct vmm *v, const char *args, GString *out)
{
    g_autoptr(JsonNode) node = ask(v, "query-chardev", out);
    JsonArray *list = node ? json_node_get_array(node) : NULL;
    for (guint i = 0; list && i < json_array_get_length(list); i++) {
        JsonObject *c = json_array_get_object_element(list, i);
        g_string_append_printf(out, "%s: filename=%s\n", str(c, "label"), str(c, "filename"));
    }
}

/* Whatever has no form of its own is shown as the JSON that QMP gives. */
static void pretty(struct vmm *v, const char *command, GString *out)
{
    g_autoptr(JsonNode) node = ask(v, command, out);
    if (!node)
        return;
    g_autofree char *text = json_to_string(node, TRUE);
    g_string_append_printf(out, "%s\n", text);
}

static void info_network(struct vmm *v, const char *args, GString *out)
{
    pretty(v, "x-ruche-query-netdevs", out);
}

static void info_pci(struct vmm *v, const char *args, GString *out)
{
    pretty(v, "query-pci", out);
}

static void info_counters(struct vmm *v, const char *args, GString *out)
{
    pretty(v, "x-ruche-query-counters", out);
}

static void info_stats(struct vmm *v, const char *args, GString *out)
{
    pretty(v, "x-ruche-query-cpu-stats", out);
}

static void info_blockstats(struct vmm *v, const char *args, GString *out)
{
    pretty(v, "query-blockstats", out);
}

static void info_qtree(struct vmm *v, const char *args, GString *out)
{
    for (const struct device *d = v->machine->devices; d; d = d->next) {
        g_string_append_printf(out, "dev: %s, id \"%s\"%s\n", d->type->name, d->id ? d->id : "",
                               d->broken ? " (broken)" : "");
        for (const struct prop *p = d->type->props; p && p->name; p++) {
            g_autofree char *value = device_get(d, p->name);
            g_string_append_printf(out, "  %s = %s\n", p->name, value ? value : "");
        }
    }
}

static const struct hmp_command infos[] = {
    { "status", NULL, "is the machine running?", info_status },
    { "version", NULL, "the program's version", info_version },
    { "name", NULL, "the machine's name", info_name },
    { "kvm", NULL, "which accelerator, and why", info_kvm },
    { "cpus", NULL, "the CPUs and their threads", info_cpus },
    { "cpustats", NULL, "what the CPUs did", info_stats },
    { "block", NULL, "the disks", info_block },
    { "blockstats", NULL, "what the disks did", info_blockstats },
    { "chardev", NULL, "the character backends", info_chardev },
    { "network", NULL, "the network backends", info_network },
    { "pci", NULL, "the PCI devices", info_pci },
    { "counters", NULL, "what the devices counted", info_counters },
    { "qtree", NULL, "all devices and their properties", info_qtree },
    { 0 },
};

/* ---- lines ---- */

static void unknown(const char *what, const char *word, const struct hmp_command *list,
                    GString *out)
{
    const char *names[32];
    size_t n = 0;
    for (const struct hmp_command *c = list; c->name && n < G_N_ELEMENTS(names) - 1; c++)
        names[n++] = c->name;
    names[n] = NULL;
    g_string_append_printf(out, "%s: '%s'%s\n", what, word, suggest_phrase(word, names));
}

static void run_from(struct vmm *v, const struct hmp_command *list, const char *what,
                     const char *text, GString *out)
{
    g_autofree char *word = g_strndup(text, strcspn(text, " "));
    const char *args = text + strlen(word);
    args += strspn(args, " ");
    for (const struct hmp_command *c = list; c->name; c++)
        if (!strcmp(c->name, word)) {
            c->run(v, args, out);
            return;
        }
    unknown(what, word, list, out);
}

static void do_info(struct vmm *v, const char *args, GString *out)
{
    if (*args)
        run_from(v, infos, "unknown info", args, out);
    else
        print_list(infos, "info ", out);
}

static const struct hmp_command commands[] = {
    { "help", NULL, "this text", do_help },
    { "info", "WHAT", "shows one of the things below", do_info },
    { "cont", NULL, "lets the machine run", do_cont },
    { "c", NULL, "lets the machine run", do_cont },
    { "stop", NULL, "stops the machine", do_stop },
    { "system_reset", NULL, "the reset button", do_reset },
    { "system_powerdown", NULL, "the power button", do_powerdown },
    { "nmi", NULL, "a non-maskable interrupt", do_nmi },
    { "quit", NULL, "ends the machine and the program", do_quit },
    { "q", NULL, "ends the machine and the program", do_quit },
    { 0 },
};

char *hmp_run(struct vmm *v, const char *line)
{
    GString *out = g_string_new(NULL);
    line += strspn(line, " \t");
    if (*line)
        run_from(v, commands, "unknown command", line, out);
    return g_string_free(out, FALSE);
}
