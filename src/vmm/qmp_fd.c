/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: descriptors that a client sends along with a command: into numbered sets, or under a name.
 */
#include "vmm/hotplug.h"

#include "base/fd.h"
#include "base/fdset.h"

#include <string.h>

#define NAMED_MAX 256

static int sent_fd(struct vmm *v, GError **error)
{
    int fd = qmp_take_fd(v->qmp);
    if (fd < 0)
        ruche_error(error, RUCHE_ERR_INVALID, "No file descriptor supplied via SCM_RIGHTS");
    return fd;
}

/* ---- sets ---- */

static JsonNode *add_fd(void *opaque, JsonObject *args, GError **error)
{
    int64_t set = json_object_get_int_member_with_default(args, "fdset-id", -1);
    bool given = json_object_has_member(args, "fdset-id");
    if (given && (set < 0 || set > G_MAXINT)) {
        ruche_error(error, RUCHE_ERR_INVALID, "'fdset-id' is a number from 0 to %d", G_MAXINT);
        return NULL;
    }
    int fd = sent_fd(opaque, error);
    if (fd < 0)
        return NULL;
    int r = fdset_add((int)set, fd);
    if (r < 0) {
        fd_close_keep_errno(fd);
        ruche_error_errno(error, -r, "descriptor set %d", (int)set);
        return NULL;
    }
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "fdset-id", r);
    json_object_set_int_member(o, "fd", fd);
    return qmp_object(o);
}
static const struct qmp_arg add_fd_args[] = {
    {"fdset-id", QMP_INT, true, "The set; a new one when missing"},
    {"opaque", QMP_STRING, true, "Accepted"},
    {0},
};
static const struct qmp_command add_fd_cmd = {
    .name = "add-fd",
    .summary = "The descriptor sent along can be opened as /dev/fdset/N",
    .args = add_fd_args,
    .call = add_fd,
};
QMP_COMMAND(add_fd_cmd);

static JsonNode *remove_fd(void *opaque, JsonObject *args, GError **error)
{
    int64_t set = json_object_get_int_member(args, "fdset-id"),
            fd = json_object_get_int_member_with_default(args, "fd", -1);
    if (set < 0 || set > G_MAXINT || fd < -1 || fd > G_MAXINT ||
        fdset_remove((int)set, (int)fd) < 0)
        ruche_error(error, RUCHE_ERR_NOT_FOUND,
                    "File descriptor named 'fdset-id:%" G_GINT64_FORMAT "' not found", set);
    return NULL;
}
static const struct qmp_arg remove_fd_args[] = {
    {"fdset-id", QMP_INT, false, "The set"},
    {"fd", QMP_INT, true, "One of its descriptors; all when missing"},
    {0},
};
static const struct qmp_command remove_fd_cmd = {
    .name = "remove-fd",
    .summary = "Close descriptors of a set",
    .args = remove_fd_args,
    .call = remove_fd,
};
QMP_COMMAND(remove_fd_cmd);

struct listing {
    JsonArray *sets, *fds;
    int set;
};

static void list_fd(int set, int fd, void *opaque)
{
    struct listing *l = opaque;
    if (!l->fds || set != l->set) {
        JsonObject *o = json_object_new();
        l->fds = json_array_new();
        l->set = set;
        json_object_set_int_member(o, "fdset-id", set);
        json_object_set_array_member(o, "fds", l->fds);
        json_array_add_object_element(l->sets, o);
    }
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "fd", fd);
    json_array_add_object_element(l->fds, o);
}

static JsonNode *query_fdsets(void *opaque, JsonObject *args, GError **error)
{
    struct listing l = {.sets = json_array_new()};
    fdset_foreach(list_fd, &l);
    return qmp_array(l.sets);
}
static const struct qmp_command query_fdsets_cmd = {
    .name = "query-fdsets",
    .summary = "Sets of descriptors",
    .call = query_fdsets,
};
QMP_COMMAND(query_fdsets_cmd);

/* ---- names ---- */

static void close_named(gpointer fd)
{
    fd_close_keep_errno(GPOINTER_TO_INT(fd) - 1);
}

static JsonNode *getfd(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *name = json_object_get_string_member(args, "fdname");
    int fd = sent_fd(v, error);
    if (fd < 0)
        return NULL;
    if (!v->named_fds)
        v->named_fds = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, close_named);
    if (g_ascii_isdigit(name[0]) || g_hash_table_size(v->named_fds) >= NAMED_MAX) {
        fd_close_keep_errno(fd);
        ruche_error(error, RUCHE_ERR_INVALID,
                    g_ascii_isdigit(name[0])
                        ? "Parameter 'fdname' expects a name not starting with a digit"
                        : "too many named descriptors");
        return NULL;
    }
    g_hash_table_replace(v->named_fds, g_strdup(name), GINT_TO_POINTER(fd + 1));
    return NULL;
}
static const struct qmp_arg fdname_args[] = {
    {"fdname", QMP_STRING, false, "Its name, which does not begin with a digit"},
    {0},
};
static const struct qmp_command getfd_cmd = {
    .name = "getfd",
    .summary = "Keep the descriptor sent along under a name",
    .args = fdname_args,
    .call = getfd,
};
QMP_COMMAND(getfd_cmd);

static JsonNode *closefd(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *name = json_object_get_string_member(args, "fdname");
    if (!v->named_fds || !g_hash_table_remove(v->named_fds, name))
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "File descriptor named '%s' not found", name);
    return NULL;
}
static const struct qmp_command closefd_cmd = {
    .name = "closefd",
    .summary = "Close a descriptor that has a name",
    .args = fdname_args,
    .call = closefd,
};
QMP_COMMAND(closefd_cmd);

int hotplug_take_fd(struct vmm *v, const char *name, GError **error)
{
    gpointer key, fd;
    if (!v->named_fds || !g_hash_table_steal_extended(v->named_fds, name, &key, &fd)) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "File descriptor named '%s' has not been found",
                    name);
        return -1;
    }
    g_free(key);
    return GPOINTER_TO_INT(fd) - 1;
}
