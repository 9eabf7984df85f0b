/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs on a running machine's disks, as the monitor has them.
 *
 * Spec      QEMU's QMP: block-stream, block-commit, blockdev-mirror, query-jobs, query-block-jobs,
 *           job-*, block-job-*.
 * Names     A job's id says all that its end needs: "ruche-KIND-TARGET-A-B" (numbers of images:
 *           def_chain.h), so that it can be found again. Jobs stay until they are dismissed: none
 *           ends unseen.
 * Trust     Answers are read by type.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"
#include "manager/domain/def_chain.h"

#include <fcntl.h>
#include <string.h>

static const char *const kind_words[] = {[BLOCK_JOB_PULL] = "pull",
                                         [BLOCK_JOB_COPY] = "copy",
                                         [BLOCK_JOB_COMMIT] = "commit",
                                         [BLOCK_JOB_ACTIVE] = "active"};

/* ---- ids ---- */

static char *job_id(const struct vm_block_job *j)
{
    return g_strdup_printf("ruche-%s-%s-%u-%u", kind_words[j->kind], j->target, j->a, j->b);
}

static bool number(const char *text, unsigned *ret)
{
    guint64 v;
    bool ok = g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT, &v, NULL);
    *ret = ok ? (unsigned)v : 0;
    return ok;
}

static bool read_id(const char *id, struct vm_block_job *ret)
{
    g_auto(GStrv) f = g_strsplit(id ? id : "", "-", 6);
    if (g_strv_length(f) != 5 || strcmp(f[0], "ruche") || strlen(f[2]) >= sizeof(ret->target) ||
        !number(f[3], &ret->a) || !number(f[4], &ret->b))
        return false;
    for (unsigned k = BLOCK_JOB_PULL; k < G_N_ELEMENTS(kind_words); k++)
        if (!strcmp(f[1], kind_words[k])) {
            ret->kind = (enum domain_block_job_kind)k;
            g_strlcpy(ret->target, f[2], sizeof(ret->target));
            return true;
        }
    return false;
}

/* ---- what there is ---- */

static struct vm_block_job read_job(JsonObject *o)
{
    struct vm_block_job j = {.kind = BLOCK_JOB_NONE};
    const char *status = vm_json_string(o, "status"), *why = vm_json_string(o, "error");
    if (!read_id(vm_json_string(o, "device"), &j))
        return j;
    j.done = (uint64_t)MAX(vm_json_int(o, "offset", 0), 0);
    j.total = (uint64_t)MAX(vm_json_int(o, "len", 0), 0);
    j.bytes_s = (uint64_t)MAX(vm_json_int(o, "speed", 0), 0);
    j.ready = vm_json_bool(o, "ready") || !g_strcmp0(status, "ready");
    j.over = !g_strcmp0(status, "concluded");
    g_strlcpy(j.why, why ? why : "", sizeof(j.why));
    return j;
}

GArray *vm_block_jobs(struct vm *v, GError **error)
{
    g_autoptr(JsonNode) n = vm_call(v, "query-block-jobs", NULL, error);
    if (!n)
        return NULL;
    GArray *list = g_array_new(FALSE, TRUE, sizeof(struct vm_block_job));
    JsonObject *o;
    for (guint i = 0; i < BLOCK_JOBS_MAX && (o = vm_json_at(vm_json_array(n), i)); i++) {
        struct vm_block_job j = read_job(o);
        if (j.kind)
            g_array_append_val(list, j);
    }
    return list;
}

/* ---- verbs ---- */

bool vm_block_job_do(struct vm *v, const struct vm_block_job *j, enum vm_block_job_verb verb,
                     uint64_t bytes_s, GError **error)
{
    g_autofree char *id = job_id(j);
    switch (verb) {
    case BLOCK_JOB_CANCEL:
        return vm_do(v, "block-job-cancel", vm_json("device", 's', id, NULL), error);
    case BLOCK_JOB_COMPLETE:
        return vm_do(v, "job-complete", vm_json("id", 's', id, NULL), error);
    case BLOCK_JOB_DISMISS:
        v->answers[VM_ASK_NODES].at_us = v->answers[VM_ASK_BLOCKSTATS].at_us =
            0; /* of other nodes */
        return vm_do(v, "job-dismiss", vm_json("id", 's', id, NULL), error);
    default:
        return vm_do(v, "block-job-set-speed",
                     vm_json("device", 's', id, "speed", 'i',
                             (int64_t)MIN(bytes_s, (uint64_t)G_MAXINT64), NULL),
                     error);
    }
}

/* ---- files that are to be written ---- */

static bool is_direct(const struct xml_node *disk)
{
    return xml_is(disk, "driver@cache", "none") || xml_is(disk, "driver@cache", "directsync");
}

static void set_cache(JsonObject *o, const struct xml_node *disk)
{
    const char *mode = xml_get_or(disk, "driver@cache", "default");
    if (strcmp(mode, "default"))
        json_object_set_object_member(o, "cache",
                                      vm_json("direct", 'b', is_direct(disk), "no-flush", 'b',
                                              !strcmp(mode, "unsafe"), NULL));
}

static int64_t set_of_path(const char *path)
{
    return path && g_str_has_prefix(path, "/dev/fdset/")
               ? g_ascii_strtoll(path + strlen("/dev/fdset/"), NULL, 10)
               : -1;
}

static int64_t find_set(struct vm *v, const char *node, GError **error)
{
    g_autofree char *file = g_strconcat(node, "-file", NULL);
    g_autoptr(JsonNode) n =
        vm_call(v, "query-named-block-nodes", vm_json("flat", 'b', TRUE, NULL), error);
    JsonObject *o;
    for (guint i = 0; n && (o = vm_json_at(vm_json_array(n), i)); i++)
        if (!g_strcmp0(vm_json_string(o, "node-name"), file))
            return set_of_path(vm_json_string(o, "file"));
    return -1;
}

/* QEMU leaves the locks of a descriptor that it does not use any more: those it has for reading
 * only go with it. */
static void drop_readers(struct vm *v, int64_t set, int64_t kept)
{
    g_autoptr(JsonNode) n = vm_call(v, "query-fdsets", NULL, NULL);
    JsonObject *o, *fd;
    for (guint i = 0; n && (o = vm_json_at(vm_json_array(n), i)); i++)
        for (guint k = 0;
             vm_json_int(o, "fdset-id", -1) == set && (fd = vm_json_at(vm_json_list(o, "fds"), k));
             k++)
            if (vm_json_int(fd, "fd", -1) != kept)
                vm_do(v, "remove-fd",
                      vm_json("fdset-id", 'i', set, "fd", 'i', vm_json_int(fd, "fd", -1), NULL),
                      NULL);
}

/* Open for both from now on, as an image that the guest writes to is from the start
 * (vm_args_disk.c). */
static bool stay_writable(struct vm *v, const char *node, int64_t set, const struct xml_node *disk,
                          bool device, GError **error)
{
    g_autofree char *file = g_strconcat(node, "-file", NULL),
                    *path = g_strdup_printf("/dev/fdset/%" G_GINT64_FORMAT, set);
    JsonObject *o =
        vm_json("node-name", 's', file, "driver", 's', device ? "host_device" : "file", "filename",
                's', path, "aio", 's', xml_get(disk, "driver@io"), "discard", 's',
                xml_get(disk, "driver@discard"), "read-only", 'b', FALSE, NULL);
    JsonArray *list = json_array_new();
    set_cache(o, disk);
    json_array_add_object_element(list, o);
    return vm_do(v, "blockdev-reopen", vm_json("options", 'a', list, NULL), error);
}

/* stay: not only for the time of the job. */
static bool make_writable(struct vm *v, const struct xml_node *disk, const struct xml_node *image,
                          bool stay, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autofree char *node = def_chain_node(disk, image);
    const char *path = def_chain_path(image);
    int64_t set = find_set(v, node, error);
    if (set < 0)
        return !error || !*error; /* not a file that we pass */
    autofd fd =
        open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (is_direct(disk) ? O_DIRECT : 0));
    if (fd < 0)
        return ruche_error_errno(error, errno, "'%s' cannot be opened for writing", path);
    g_autoptr(JsonNode) n =
        vm_call_fd(keep, "add-fd", vm_json("fdset-id", 'i', set, NULL), fd, error);
    if (!n || keep->ours)
        return n != NULL;
    drop_readers(keep, set, vm_json_int(vm_json_object(n), "fd", -1));
    return !stay || stay_writable(keep, node, set, disk, xml_is(image, "@type", "block"), error);
}

/* ---- pull and commit ---- */

bool vm_block_pull(struct vm *v, struct xml_node *disk, const struct vm_block_job *j,
                   GError **error)
{
    struct xml_node *base = j->b ? def_chain_at(disk, j->b) : NULL;
    g_autofree char *id = job_id(j), *node = def_chain_node(disk, disk),
                    *below = base ? def_chain_node(disk, base) : NULL;
    return vm_do(v, "block-stream",
                 vm_json("job-id", 's', id, "device", 's', node, "base-node", 's', below,
                         "backing-file", 's', base ? def_chain_path(base) : NULL, "speed", 'i',
                         (int64_t)j->bytes_s, "auto-dismiss", 'b', FALSE, NULL),
                 error);
}

bool vm_block_commit(struct vm *v, struct xml_node *disk, const struct vm_block_job *j,
                     GError **error)
{
    auto_vm *keep = vm_ref(v);
    struct xml_node *top = def_chain_at(disk, j->a), *base = def_chain_at(disk, j->b),
                    *above = def_chain_above(disk, top);
    g_autofree char *id = job_id(j), *root = def_chain_node(disk, disk),
                    *from = def_chain_node(disk, top), *to = def_chain_node(disk, base);
    if (!make_writable(keep, disk, base, top == disk, error) ||
        (above && above != disk && !make_writable(keep, disk, above, false, error)))
        return false;
    return vm_do(keep, "block-commit",
                 vm_json("job-id", 's', id, "device", 's', root, "top-node", 's', from, "base-node",
                         's', to, "backing-file", 's', above ? def_chain_path(base) : NULL, "speed",
                         'i', (int64_t)j->bytes_s, "auto-dismiss", 'b', FALSE, NULL),
                 error);
}

/* ---- copy ---- */

static bool add_target(struct vm *v, const struct xml_node *disk, const struct vm_block_copy *c,
                       const char *node, const char *below, GError **error)
{
    g_autofree char *file = g_strconcat(node, "-file", NULL);
    autofd fd = open(c->path,
                     O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (is_direct(disk) ? O_DIRECT : 0));
    if (fd < 0)
        return ruche_error_errno(error, errno, "'%s' cannot be opened for writing", c->path);
    JsonObject *image =
        vm_json("node-name", 's', node, "driver", 's', c->format, "file", 's', file, "backing", 's',
                below, "discard", 's', xml_get(disk, "driver@discard"), NULL);
    set_cache(image, disk);
    if (!below && strcmp(c->format, "raw"))
        json_object_set_null_member(image, "backing");
    g_autoptr(JsonNode) n = vm_call_fd(v, "add-fd", NULL, fd, error);
    g_autofree char *path = g_strdup_printf("/dev/fdset/%" G_GINT64_FORMAT,
                                            vm_json_int(vm_json_object(n), "fdset-id", -1));
    JsonObject *storage =
        vm_json("node-name", 's', file, "driver", 's', c->device ? "host_device" : "file",
                "filename", 's', path, "discard", 's', xml_get(disk, "driver@discard"), NULL);
    set_cache(storage, disk);
    if (!n || !vm_do(v, "blockdev-add", storage, error)) {
        json_object_unref(image);
        if (!n)
            json_object_unref(storage);
        return false;
    }
    if (vm_do(v, "blockdev-add", image, error))
        return true;
    vm_do(v, "blockdev-del", vm_json("node-name", 's', file, NULL), NULL);
    return false;
}

bool vm_block_copy(struct vm *v, struct xml_node *disk, const struct vm_block_job *j,
                   const struct vm_block_copy *c, GError **error)
{
    auto_vm *keep = vm_ref(v);
    struct xml_node *below = c->shallow ? def_chain_next(disk) : NULL;
    g_autofree char *id = job_id(j), *from = def_chain_node(disk, disk),
                    *to = g_strdup_printf("disk-%s-%u", j->target, j->b),
                    *back = below ? def_chain_node(disk, below) : NULL;
    if (!add_target(keep, disk, c, to, back, error))
        return false;
    JsonObject *args = vm_json("job-id", 's', id, "device", 's', from, "target", 's', to, "sync",
                               's', c->shallow && below ? "top" : "full", "speed", 'i',
                               (int64_t)j->bytes_s, "auto-dismiss", 'b', FALSE, "copy-mode", 's',
                               c->write_blocking ? "write-blocking" : NULL, NULL);
    if (c->granularity)
        json_object_set_int_member(args, "granularity", (gint64)c->granularity);
    if (c->buf_size)
        json_object_set_int_member(args, "buf-size", (gint64)c->buf_size);
    if (vm_do(keep, "blockdev-mirror", args, error))
        return true;
    vm_block_forget(keep, j->target, j->b);
    return false;
}

/* QEMU's jobs leave tables in its memory, where an end by force would lose them. */
void vm_block_flush(struct vm *v, const char *target, unsigned image)
{
    if (v->ours)
        return;
    g_autofree char *node =
        image ? g_strdup_printf("disk-%s-%u", target, image) : g_strconcat("disk-", target, NULL);
    g_autofree char *line = g_strdup_printf("qemu-io %s flush", node);
    vm_do(v, "human-monitor-command", vm_json("command-line", 's', line, NULL), NULL);
}

void vm_block_forget(struct vm *v, const char *target, unsigned image)
{
    auto_vm *keep = vm_ref(v);
    g_autofree char *node =
        image ? g_strdup_printf("disk-%s-%u", target, image) : g_strconcat("disk-", target, NULL);
    g_autoptr(JsonNode) all =
        vm_call(keep, "query-named-block-nodes", vm_json("flat", 'b', TRUE, NULL), NULL);
    vm_delete_image(keep, vm_json_array(all), node);
}
