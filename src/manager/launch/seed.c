/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's first words to itself: the NoCloud seed, an ISO image with two files.
 *
 * Spec      cloud-init's NoCloud data source: volume "cidata", files meta-data and user-data, which are YAML; JSON is YAML,
 *           and nothing that somebody typed can break out of it. Without a network-config the guest's first card asks for
 *           its address, whatever the guest configures cards with.
 * Thread    The loop thread, in a task.
 */
#include "manager/launch/image.h"

#include "base/util.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <string.h>

static char *to_text(JsonObject *o, const char *first_line)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, o);
    g_autofree char *json = json_to_string(node, TRUE);
    return g_strconcat(first_line, json, "\n", NULL);
}

static JsonObject *user_of(const struct launch_request *r)
{
    JsonObject *user = json_object_new();
    JsonArray *keys = json_array_new();
    json_object_set_string_member(user, "name", r->user);
    json_object_set_string_member(user, "shell", "/bin/bash");
    json_object_set_string_member(user, "sudo", "ALL=(ALL) NOPASSWD:ALL");
    json_object_set_boolean_member(user, "lock_passwd", r->password == NULL);
    if (r->password)
        json_object_set_string_member(user, "plain_text_passwd", r->password);
    for (char **key = r->ssh_keys; key && *key; key++)
        json_array_add_string_element(keys, *key);
    json_object_set_array_member(user, "ssh_authorized_keys", keys);
    return user;
}

static char *user_data_of(const struct launch_request *r, const char *name)
{
    if (r->user_data)
        return g_strdup(r->user_data);
    JsonObject *o = json_object_new();
    JsonArray *users = json_array_new();
    json_object_set_string_member(o, "hostname", name);
    json_object_set_boolean_member(o, "manage_etc_hosts", TRUE);
    json_object_set_boolean_member(o, "ssh_pwauth", r->password != NULL);
    json_array_add_object_element(users, user_of(r));
    json_object_set_array_member(o, "users", users);
    return to_text(o, "#cloud-config\n");
}

static char *meta_data_of(const char *name)
{
    uint8_t uuid[16];
    char text[UUID_TEXT_BYTES];
    uuid_random(uuid);
    uuid_format(uuid, text);
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "instance-id", text);
    json_object_set_string_member(o, "local-hostname", name);
    return to_text(o, "");
}

static bool put_file(const char *dir, const char *name, char *text, GError **error)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    bool good = g_file_set_contents(path, text, -1, NULL) ||
                ruche_error(error, RUCHE_ERR_IO, "%s could not be written", path);
    g_free(text);
    return good;
}

static void remove_files(const char *dir)
{
    static const char *const names[] = { "meta-data", "user-data" };
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);
        g_unlink(path);
    }
    g_rmdir(dir);
}

bool launch_seed_make(const struct launch_request *r, const char *name, const char *path, GError **error)
{
    g_autofree char *dir = g_strconcat(path, ".d", NULL);
    if (g_mkdir(dir, 0700) < 0 && errno != EEXIST)
        return ruche_error_errno(error, errno, "%s could not be made", dir);
    const char *const argv[] = { "xorriso", "-as", "mkisofs", "-quiet", "-o", path, "-V", "cidata", "-J", "-r", dir, NULL };
    bool good = put_file(dir, "meta-data", meta_data_of(name), error) &&
                put_file(dir, "user-data", user_data_of(r, name), error) &&
                task_run_program(argv, NULL, 1 << 20, 60000, NULL, error);
    remove_files(dir);
    return good;
}
