/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files replaced as a whole, several at a time.
 *
 * Group     Changes that come while others are being written down are taken together: one write of
 * the log promises them all. The files follow a moment later (store_follow.h), and are synced later
 * still, all at once, before the log's space is used again.
 * Outside   Of the log's folder, and for a text that is too long for the log, the text is synced
 * before it gets its name, and the folder after.
 */
#include "manager/store.h"

#include "base/log.h"
#include "manager/error.h"
#include "manager/store_file.h"
#include "manager/store_follow.h"
#include "manager/store_log.h"
#include "manager/task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH_MAX = 64, SETTLE_AFTER_S = 5 };

/* One change that somebody waits for. */
struct change {
    struct store_file file;
    const char *relative; /* in the log's folder; NULL: written directly */
    unsigned follows;     /* the kind of what is due at its path; 0: nothing is */
    bool promised;        /* its record is in the log */
    struct fiber *waiter;
    struct change *next;
};

static bool outcome(const struct store_file *f, GError **error)
{
    return !f->err || ruche_error_errno(error, f->err, "%s: %s", f->path, f->step);
}

static void write_directly(struct store_file *f)
{
    store_file_prepare(f);
    if (!f->err)
        store_file_sync(f);
    if (!f->err)
        store_file_place(f);
    if (!f->err)
        store_file_sync_folder(f);
}

bool store_write_blocking(const char *path, const char *text, mode_t mode, GError **error)
{
    struct store_file f = {.kind = STORE_WRITE, .path = path, .text = text, .mode = mode};
    write_directly(&f);
    return outcome(&f, error);
}

bool store_write_volatile(const char *path, const char *text, mode_t mode, GError **error)
{
    struct store_file f = {.kind = STORE_WRITE, .path = path, .text = text, .mode = mode};
    store_file_prepare(&f);
    if (!f.err)
        store_file_place(&f);
    return outcome(&f, error);
}

/* ---- on the worker ---- */

static struct store_record record_of(const struct change *c)
{
    return (struct store_record){.kind = c->file.kind,
                                 .mode = c->file.mode,
                                 .path = c->relative,
                                 .text = c->file.text,
                                 .old_ns = c->file.old_ns};
}

/* What is not there, and does not follow either, need not be removed. */
static bool is_needed(struct change *c)
{
    store_file_foresee(&c->file);
    bool is_there = c->follows ? c->follows != STORE_REMOVE : c->file.old_ns != 0;
    return !c->file.err && (c->file.kind != STORE_REMOVE || is_there);
}

static void promise_work(void *opaque)
{
    struct store_record records[BATCH_MAX];
    struct change *list = opaque;
    unsigned count = 0;
    if (!list->relative) { /* alone */
        write_directly(&list->file);
        return;
    }
    for (struct change *c = list; c; c = c->next) {
        c->promised = is_needed(c);
        if (c->promised)
            records[count++] = record_of(c);
    }
    int err = count ? store_log_put(records, count) : 0;
    count = 0;
    for (struct change *c = list; c; c = c->next) {
        if (!c->promised)
            continue;
        c->file.time_ns = records[count++].time_ns; /* what is later is an edit by hand */
        c->promised = !err;
        c->file.err = err;
        c->file.step = "write to the log";
    }
}

static void settle_work(void *opaque)
{
    *(int *)opaque = store_log_settle();
}

/* ---- the log's two areas ---- */

static struct {
    bool runs;   /* files of the other area are being synced */
    int err;     /* the last time it failed so; then it must be done before we can go on */
    bool wanted; /* the area that is being filled is to be settled soon */
    guint timer; /* when that becomes so */
    struct task_event *end; /* the writer waits for it */
} settling;

static void ensure_writer(void);

static gboolean settle_soon(gpointer opaque)
{
    settling.timer = 0;
    settling.wanted = true;
    ensure_writer();
    return G_SOURCE_REMOVE;
}

static void plan_settling(void)
{
    if (!settling.timer && (settling.err || !store_log_is_empty()))
        settling.timer = g_timeout_add_seconds(SETTLE_AFTER_S, settle_soon, NULL);
}

static void settle(void *opaque)
{
    int err = store_follow_wait();
    if (!err)
        task_work_long(settle_work, &err);
    if (err && err != settling.err)
        log_warn("what was written cannot be synced, which is tried again: %s", g_strerror(err));
    settling.err = err;
    settling.runs = false;
    plan_settling();
    if (settling.end)
        task_event_happen(settling.end);
}

static void start_settling(void)
{
    settling.runs = true;
    task_start(settle, NULL);
}

static int wait_for_settling(void)
{
    struct task_event end = {0};
    settling.end = &end;
    if (settling.runs)
        task_event_wait(&end, -1);
    settling.end = NULL;
    return settling.err;
}

/* To the other area, when it is free; this one's files are synced meanwhile. 0 or positive errno.
 */
static int turn(void)
{
    if (settling.err && !settling.runs)
        start_settling();
    int err = wait_for_settling();
    if (err)
        return err;
    store_log_turn();
    start_settling();
    return 0;
}

/* ---- from tasks ---- */

static struct change *waiting, **waiting_end = &waiting;
static bool writer_runs;

static size_t bytes_of(const struct change *c)
{
    struct store_record r = record_of(c);
    return store_record_bytes(&r);
}

static bool has_path(const struct change *list, const char *path)
{
    for (; list; list = list->next)
        if (strcmp(list->file.path, path) == 0)
            return true;
    return false;
}

/* As many as fit into an area, none of them of the same path; or one that is to
 * be written directly. */
static struct change *take_batch(size_t *ret_bytes)
{
    struct change *list = NULL, **end = &list;
    size_t bytes = 0;
    for (unsigned count = 0; waiting && count < BATCH_MAX; count++) {
        struct change *c = waiting;
        const struct store_file *due = store_follow_find(c->file.path);
        c->follows = due ? due->kind : 0;
        c->relative = store_log_relative(c->file.path);
        size_t more = c->relative ? bytes_of(c) : 0;
        if (more > store_log_area_bytes())
            c->relative = NULL;
        if (list &&
            (!c->relative || bytes + more > store_log_area_bytes() || has_path(list, c->file.path)))
            break;
        waiting = c->next;
        c->next = NULL;
        *end = c;
        end = &c->next;
        bytes += c->relative ? more : 0;
        if (!c->relative)
            break;
    }
    if (!waiting)
        waiting_end = &waiting;
    *ret_bytes = bytes;
    return list;
}

/* What the log says of a path must not come after what is written past it. */
static int empty_log(void)
{
    int err = store_log_is_empty() ? 0 : turn();
    return err ? err : wait_for_settling();
}

static void do_batch(struct change *list, size_t bytes)
{
    int err = 0;
    if (!list->relative && store_log_relative(list->file.path))
        err = empty_log();
    else if (bytes > store_log_room())
        err = turn();
    if (!err)
        task_work(promise_work, list);
    for (struct change *next; list; list = next) {
        next = list->next; /* it is gone with its task's frame */
        if (list->promised)
            store_follow(&list->file);
        if (err) {
            list->file.err = err;
            list->file.step = "the log is full, and cannot be emptied";
        }
        fiber_wake(list->waiter);
    }
}

/* A task that goes on while there are changes: each round takes all. */
static void writer(void *opaque)
{
    while (waiting || settling.wanted) {
        size_t bytes;
        struct change *list = take_batch(&bytes);
        if (list)
            do_batch(list, bytes);
        if (settling.wanted && !settling.runs && (settling.err || !store_log_is_empty()))
            turn();
        settling.wanted = false;
        if (store_log_room() < store_log_area_bytes())
            plan_settling();
    }
    writer_runs = false;
}

static void ensure_writer(void)
{
    if (writer_runs)
        return;
    writer_runs = true;
    task_start(writer, NULL);
}

static bool change_and_wait(struct change *c, GError **error)
{
    c->waiter = fiber_self();
    *waiting_end = c;
    waiting_end = &c->next;
    ensure_writer();
    fiber_wait();
    return outcome(&c->file, error);
}

bool store_write(const char *path, const char *text, mode_t mode, GError **error)
{
    struct change c = {.file = {.kind = STORE_WRITE, .path = path, .text = text, .mode = mode}};
    return change_and_wait(&c, error);
}

bool store_link(const char *path, const char *target, GError **error)
{
    struct change c = {.file = {.kind = STORE_LINK, .path = path, .text = target}};
    return change_and_wait(&c, error);
}

/* Nothing is there, nothing is due, and nobody is at it. */
static bool is_gone(const char *path)
{
    const struct store_file *due = store_follow_find(path);
    if (writer_runs || !store_log_relative(path))
        return false;
    return due ? due->kind == STORE_REMOVE : !store_file_time(path);
}

bool store_remove(const char *path, GError **error)
{
    if (is_gone(path))
        return true;
    struct change c = {.file = {.kind = STORE_REMOVE, .path = path, .text = ""}};
    return change_and_wait(&c, error);
}

/* ---- beginning and end ---- */

bool store_open(const char *log, const char *root, GError **error)
{
    return store_log_open(log, root, error);
}

void store_close(void)
{
    if (settling.timer)
        g_source_remove(settling.timer);
    settling.timer = 0;
    int err = writer_runs || settling.runs ? EBUSY : store_follow_finish();
    if (!err) /* else the next start does it */
        store_log_close(true);
}

/* ---- reading ---- */

static void too_long(const char *path, uint64_t bytes, size_t max_bytes, GError **error)
{
    ruche_error(error, RUCHE_ERR_NO_SPACE, "%s has %" PRIu64 " bytes; %zu are the most", path,
                bytes, max_bytes);
}

static char *read_all(int fd, size_t max_bytes, const char *path, GError **error)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        ruche_error(error, RUCHE_ERR_INVALID, "%s is not a regular file", path);
        return NULL;
    }
    if ((uint64_t)st.st_size > max_bytes) {
        too_long(path, st.st_size, max_bytes, error);
        return NULL;
    }
    size_t have = 0, size = st.st_size;
    g_autofree char *text = g_try_malloc(size + 1);
    if (!text) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no memory for %zu bytes", path, size);
        return NULL;
    }
    while (have < size) {
        ssize_t n = read(fd, text + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            ruche_error_errno(error, errno, "%s: read", path);
            return NULL;
        }
        if (n == 0)
            break;
        have += n;
    }
    text[have] = 0;
    return g_steal_pointer(&text);
}

static char *read_due(const struct store_file *due, size_t max_bytes, GError **error)
{
    size_t len = strlen(due->text);
    if (due->kind == STORE_WRITE && len <= max_bytes)
        return g_memdup2(due->text, len + 1);
    if (due->kind == STORE_REMOVE)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s does not exist", due->path);
    else
        too_long(due->path, len, max_bytes, error);
    return NULL;
}

char *store_read(const char *path, size_t max_bytes, GError **error)
{
    const struct store_file *due = store_log_relative(path) ? store_follow_find(path) : NULL;
    if (due && due->kind != STORE_LINK)
        return read_due(due, max_bytes, error);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int err = errno;
        if (err == ENOENT)
            ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s does not exist", path);
        else
            ruche_error_errno(error, err, "%s: open", path);
        return NULL;
    }
    char *text = read_all(fd, max_bytes, path, error);
    close(fd);
    return text;
}

void store_clean_dir(const char *dir)
{
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    for (const char *name; d && (name = g_dir_read_name(d));) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        if (g_str_has_prefix(name, STORE_TEMP_PREFIX) && unlink(path) < 0)
            log_warn("%s: left over, and could not be removed: %s", path, g_strerror(errno));
    }
}
