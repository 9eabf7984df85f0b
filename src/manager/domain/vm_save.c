/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's state as a stream, to and from a descriptor; its memory as a core file, and pieces of
 * it.
 *
 * Spec      QEMU's QMP: getfd, migrate, migrate-incoming, query-migrate, dump-guest-memory,
 *           query-dump, memsave, pmemsave.
 * Trust     Answers are read by type; what a machine writes goes through a descriptor of ours.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FD_NAME       "ruche-state"
#define SETTLE_MS     50
#define SETTLE_ROUNDS 1200

/* ---- saving, restoring ---- */

bool vm_state_speed(struct vm *v, uint64_t bytes_s, GError **error)
{
    int64_t most = (int64_t)MIN(bytes_s, (uint64_t)G_MAXINT64);
    return vm_do(v, "migrate-set-parameters", vm_json("max-bandwidth", 'i', most, NULL), error);
}

/* The descriptor is the machine's then, under FD_NAME. */
static bool give(struct vm *v, int fd, GError **error)
{
    return vm_do_fd(v, "getfd", vm_json("fdname", 's', FD_NAME, NULL), fd, error);
}

static bool begin(struct vm *v, const char *command, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (vm_do(v, command, vm_json("uri", 's', "fd:" FD_NAME, NULL), error))
        return true;
    vm_do(keep, "closefd", vm_json("fdname", 's', FD_NAME, NULL), NULL);
    return false;
}

bool vm_state_send(struct vm *v, int fd, uint64_t bytes_s, GError **error)
{
    v->stream = VM_STREAM_OUT;
    return vm_state_speed(v, bytes_s, error) && give(v, fd, error) && begin(v, "migrate", error);
}

/* A machine that cannot read it ends, and says why in its log. */
bool vm_state_receive(struct vm *v, int fd, GError **error)
{
    g_autofree char *log = vm_log_path(v->name);
    struct stat st = {0};
    v->log_from = stat(log, &st) == 0 ? st.st_size : 0;
    v->stream = VM_STREAM_IN;
    return give(v, fd, error) && begin(v, "migrate-incoming", error);
}

bool vm_state_cancel(struct vm *v, GError **error)
{
    return v->stream == VM_STREAM_DUMP || vm_do(v, "migrate_cancel", NULL, error);
}

static const struct {
    const char *word;
    enum vm_stream_state state;
} stream_words[] = {
    {"completed", VM_STREAM_DONE},
    {"failed", VM_STREAM_FAILED},
    {"cancelled", VM_STREAM_FAILED},
};

static enum vm_stream_state word_state(const char *word)
{
    for (size_t i = 0; i < G_N_ELEMENTS(stream_words); i++)
        if (!g_strcmp0(word, stream_words[i].word))
            return stream_words[i].state;
    return !word || !strcmp(word, "none") ? VM_STREAM_NONE : VM_STREAM_RUNS;
}

static uint64_t count(JsonObject *o, const char *name)
{
    return (uint64_t)MAX(vm_json_int(o, name, 0), 0);
}

static bool poll_migration(struct vm *v, struct vm_progress *ret, GError **error)
{
    g_autoptr(JsonNode) n = vm_call(v, "query-migrate", NULL, error);
    JsonObject *o = vm_json_object(n), *ram = vm_json_sub(o, "ram");
    if (!n)
        return false;
    *ret = (struct vm_progress){.state = word_state(vm_json_string(o, "status")),
                                .total = count(ram, "total"),
                                .done = count(ram, "transferred"),
                                .remaining = count(ram, "remaining"),
                                .constant = count(ram, "duplicate"),
                                .normal = count(ram, "normal"),
                                .page_bytes = count(ram, "page-size"),
                                .bytes_s = count(ram, "mbps") * 125000,
                                .setup_ms = count(o, "setup-time")};
    const char *why = vm_json_string(o, "error-desc");
    if (ret->state == VM_STREAM_FAILED)
        return ruche_error(error, MANAGER_ERR_MACHINE,
                           "machine '%s': its state could not be moved%s%s", v->name,
                           why ? ": " : "", why ? why : "");
    return true;
}

static bool poll_dump(struct vm *v, struct vm_progress *ret, GError **error)
{
    g_autoptr(JsonNode) n = vm_call(v, "query-dump", NULL, error);
    JsonObject *o = vm_json_object(n);
    if (!n)
        return false;
    *ret = (struct vm_progress){.state = word_state(vm_json_string(o, "status")),
                                .total = count(o, "total"),
                                .done = count(o, "completed")};
    ret->remaining = ret->total - MIN(ret->done, ret->total);
    return ret->state != VM_STREAM_FAILED ||
           ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s': its memory could not be written",
                       v->name);
}

/* A machine that ends instead has said why. */
static bool explain(struct vm *v, GError **error)
{
    g_autofree char *tail = vm_log_tail(v->name, (off_t)v->log_from);
    if (tail && error && *error)
        g_prefix_error(error, "machine '%s' cannot take the state that was saved: %s: ", v->name,
                       tail);
    return false;
}

bool vm_state_poll(struct vm *v, struct vm_progress *ret, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (v->stream == VM_STREAM_DUMP)
        return poll_dump(v, ret, error);
    return poll_migration(v, ret, error) || (keep->stream == VM_STREAM_IN && explain(keep, error));
}

static bool is_over(struct vm *v, enum vm_stream kind)
{
    struct vm_progress p = {0};
    g_autoptr(GError) error = NULL;
    v->stream = kind;
    return !vm_state_poll(v, &p, &error) ? !g_error_matches(error, RUCHE_ERROR, MANAGER_ERR_TIMEOUT)
                                         : p.state != VM_STREAM_RUNS;
}

bool vm_state_settle(struct vm *v, GError **error)
{
    auto_vm *keep = vm_ref(v);
    vm_do(v, "migrate_cancel", NULL, NULL);
    for (int i = 0; i < SETTLE_ROUNDS; i++) {
        if (is_over(keep, VM_STREAM_OUT) && is_over(keep, VM_STREAM_DUMP))
            return true;
        task_sleep_ms(SETTLE_MS);
    }
    return ruche_error(error, MANAGER_ERR_TIMEOUT, "machine '%s' does not stop writing its state",
                       keep->name);
}

/* ---- core files ---- */

bool vm_dump_memory(struct vm *v, int fd, const char *format, GError **error)
{
    v->stream = VM_STREAM_DUMP;
    return give(v, fd, error) && vm_do(v, "dump-guest-memory",
                                       vm_json("paging", 'b', FALSE, "protocol", 's', "fd:" FD_NAME,
                                               "detach", 'b', TRUE, "format", 's', format, NULL),
                                       error);
}

/* ---- pieces of memory ---- */

static bool read_all(struct vm *v, int fd, uint8_t *ret, size_t len, GError **error)
{
    ssize_t n = pread(fd, ret, len, 0);
    return n == (ssize_t)len ||
           ruche_error(error, MANAGER_ERR_MACHINE,
                       "machine '%s' wrote %zd of %zu bytes of its memory", v->name, n, len);
}

/* It opens files by name: our descriptor has one in its own /proc. */
bool vm_peek_memory(struct vm *v, bool physical, uint64_t from, uint8_t *ret, size_t len,
                    GError **error)
{
    auto_vm *keep = vm_ref(v);
    autofd fd = memfd_create("peek", MFD_CLOEXEC);
    if (fd < 0 || fchmod(fd, 0666) < 0)
        return ruche_error_errno(error, errno, "memory for a piece of '%s'", v->name);
    g_autoptr(JsonNode) n = vm_call_fd(v, "add-fd", NULL, fd, error);
    JsonObject *o = vm_json_object(n);
    if (!n)
        return false;
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", (int)vm_json_int(o, "fd", -1));
    bool ok = vm_do(
        v, physical ? "pmemsave" : "memsave",
        vm_json("val", 'i', (int64_t)from, "size", 'i', (int64_t)len, "filename", 's', path, NULL),
        error);
    vm_do(keep, "remove-fd", vm_json("fdset-id", 'i', vm_json_int(o, "fdset-id", 0), NULL), NULL);
    return ok && read_all(keep, fd, ret, len, error);
}
