/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that change what a machine has: figures, and devices. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

#include <stdio.h>
#include <string.h>

/* ---- set ---- */

static const struct cli_option set_options[] = {
    { "memory", "SIZE", "what the guest has: now, and at the next start", false },
    { "max-memory", "SIZE", "what it may have, at the next start", false },
    { "cpus", "COUNT", "vCPUs, at the next start", false },
    { "autostart", "yes|no", "start it with the host", false },
    { "title", "TEXT", "a short description", false },
    { "description", "TEXT", "a long description", false },
    { 0 },
};
static const char *const set_members[] = { "memory", "max_memory", "vcpus", "autostart", "title", "description" };

static int run_set(struct cli *c)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    for (size_t i = 0; i < G_N_ELEMENTS(set_members); i++) {
        const char *value = cli_value(c, set_options[i].name);
        if (!value)
            continue;
        if (!strcmp(set_members[i], "autostart"))
            value = cli_yes(c, "autostart") ? "true" : "false";
        json_object_set_string_member(body, set_members[i], value);
    }
    g_autoptr(JsonObject) o = rest_call(c->rest, "PATCH", body, &error, "/domains/%s", c->args[0]);
    if (!o)
        return cli_fail(error);
    return c->json ? print_json(o) : 0;
}
CLI_COMMAND(set, .name = "set", .arguments = "NAME", .summary = "Changes what a machine has", .options = set_options, .min_args = 1, .max_args = 1,
            .complete = COMPLETE_MACHINE, .run = run_set);

static const struct cli_option attach_options[] = {
    { "disk", "PATH", "an image", false },
    { "format", "FORMAT", "of the image: raw, qcow2 ...", false },
    { "target", "DEV", "the disk's name in the guest; the next free one", false },
    { "network", "WHICH", "user, bridge:NAME, network:NAME", false },
    { "mac", "ADDRESS", "of the interface", false },
    { "xml", "FILE", "any device as libvirt's XML", false },
    { "live", NULL, "in the running machine", false },
    { "config", NULL, "from the next start on", false },
    { 0 },
};

/* The first of vda to vdz that no disk has. */
static char *free_target(JsonObject *domain)
{
    JsonArray *disks = json_object_get_array_member(domain, "disks");
    char target[] = "vda";
    for (; target[2] <= 'z'; target[2]++) {
        bool taken = false;
        for (unsigned i = 0; i < json_array_get_length(disks); i++)
            taken |= g_strcmp0(text_of(json_array_get_object_element(disks, i), "target"), target) == 0;
        if (!taken)
            return g_strdup(target);
    }
    return NULL;
}

static char *disk_xml(struct cli *c, GError **error)
{
    if (!cli_has(c, "format")) {
        ruche_error(error, RUCHE_ERR_INVALID, "--disk needs --format: a guest could make its raw disk look like another format");
        return NULL;
    }
    g_autofree char *path = g_canonicalize_filename(cli_value(c, "disk"), NULL), *target = g_strdup(cli_value(c, "target"));
    if (!target) {
        g_autoptr(JsonObject) domain = rest_call(c->rest, "GET", NULL, error, "/domains/%s", c->args[0]);
        if (!domain || !(target = free_target(domain)))
            return NULL;
    }
    return g_markup_printf_escaped("<disk type='file' device='disk'><driver name='qemu' type='%s'/><source file='%s'/>"
                                   "<target dev='%s' bus='virtio'/></disk>", cli_value(c, "format"), path, target);
}

static char *interface_xml(struct cli *c)
{
    const char *network = cli_value(c, "network"), *colon = strchr(network, ':'), *mac = cli_value(c, "mac");
    g_autofree char *type = g_strndup(network, colon ? (size_t)(colon - network) : strlen(network));
    g_autofree char *source = colon ? g_markup_printf_escaped("<source %s='%s'/>", type, colon + 1) : g_strdup("");
    g_autofree char *address = mac ? g_markup_printf_escaped("<mac address='%s'/>", mac) : g_strdup("");
    g_autofree char *open = g_markup_printf_escaped("<interface type='%s'>", type);
    return g_strconcat(open, address, source, "<model type='virtio'/></interface>", NULL);
}

static int send_device(struct cli *c, const char *xml)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "xml", xml);
    json_object_set_boolean_member(body, "live", cli_has(c, "live"));
    json_object_set_boolean_member(body, "config", cli_has(c, "config"));
    g_autoptr(JsonObject) o = rest_call(c->rest, "POST", body, &error, "/domains/%s/%s", c->args[0], c->command->name);
    return o ? 0 : cli_fail(error);
}

static int run_attach(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = NULL;
    if (cli_has(c, "disk") + cli_has(c, "network") + cli_has(c, "xml") != 1) {
        fputs("ruche: give one of --disk, --network and --xml\n", stderr);
        return 2;
    }
    xml = cli_has(c, "xml") ? cli_read_file(cli_value(c, "xml"), &error) : cli_has(c, "disk") ? disk_xml(c, &error) : interface_xml(c);
    return xml ? send_device(c, xml) : cli_fail(error);
}
CLI_COMMAND(attach, .name = "attach", .arguments = "NAME", .summary = "Adds a disk, an interface or another device", .options = attach_options,
            .min_args = 1, .max_args = 1, .complete = COMPLETE_MACHINE, .run = run_attach);

static const struct cli_option detach_options[] = {
    { "disk", "DEV", "the disk's name in the guest: vdb", false },
    { "mac", "ADDRESS", "of the interface", false },
    { "xml", "FILE", "any device as libvirt's XML", false },
    { "live", NULL, "from the running machine", false },
    { "config", NULL, "from the next start on", false },
    { 0 },
};

/* The interface's type is part of its description: it is looked up. */
static char *interface_of(struct cli *c, GError **error)
{
    g_autoptr(JsonObject) domain = rest_call(c->rest, "GET", NULL, error, "/domains/%s", c->args[0]);
    JsonArray *list = domain ? json_object_get_array_member(domain, "interfaces") : NULL;
    for (unsigned i = 0; list && i < json_array_get_length(list); i++) {
        JsonObject *nic = json_array_get_object_element(list, i);
        if (!g_ascii_strcasecmp(text_of(nic, "mac"), cli_value(c, "mac")))
            return g_markup_printf_escaped("<interface type='%s'><mac address='%s'/></interface>", text_of(nic, "type"), text_of(nic, "mac"));
    }
    if (domain)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "machine '%s' has no interface %s", c->args[0], cli_value(c, "mac"));
    return NULL;
}

static int run_detach(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = NULL;
    if (cli_has(c, "disk") + cli_has(c, "mac") + cli_has(c, "xml") != 1) {
        fputs("ruche: give one of --disk, --mac and --xml\n", stderr);
        return 2;
    }
    if (cli_has(c, "disk"))
        xml = g_markup_printf_escaped("<disk type='file' device='disk'><target dev='%s'/></disk>", cli_value(c, "disk"));
    else
        xml = cli_has(c, "xml") ? cli_read_file(cli_value(c, "xml"), &error) : interface_of(c, &error);
    return xml ? send_device(c, xml) : cli_fail(error);
}
CLI_COMMAND(detach, .name = "detach", .arguments = "NAME", .summary = "Takes a device away", .options = detach_options, .min_args = 1, .max_args = 1,
            .complete = COMPLETE_MACHINE, .run = run_detach);
