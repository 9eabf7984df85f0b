/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store's log: its file, its two areas, and how it is carried out at the start.
 *
 * Edits     A file that somebody changed by hand after the power was cut is newer than what the log
 * has to say of it, and stays. Times in the log only grow, and each record says what time the file
 * had that it replaced: a clock that was wrong does not make old files newer. What is carried out
 * gets the record's time, so that it can be done once more.
 */
#include "manager/store_log.h"

#include "base/log.h"
#include "manager/error.h"
#include "manager/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 4096,
    MARK_AT = 3584,
    MARK_BYTES = 16,
    AREA_BYTES = 4 << 20,
    LOG_BYTES = HEAD_BYTES + 2 * AREA_BYTES,
    ROOT_AT = 16,
    ROOT_MAX = MARK_AT - ROOT_AT - 1,
    DEVICES_MAX = 16
};
static const char magic[ROOT_AT] = "Ruche store log1";

static struct {
    int fd;      /* through the page cache: the head, and what is read */
    int records; /* each write is on the disk when it returns; past the page cache, if that goes */
    char *path, *root;
    unsigned area;          /* that is being filled */
    size_t at;              /* in it */
    uint64_t epoch, number; /* of the next record */
    int64_t last_ns;        /* of the last one */
    GHashTable *folders[2]; /* of each area: what its records changed and nobody has synced */
} l = {.fd = -1, .records = -1};

const char *store_log_relative(const char *path)
{
    size_t len = l.fd >= 0 ? strlen(l.root) : 0;
    return len && strncmp(path, l.root, len) == 0 && path[len] == '/' && path[len + 1]
               ? path + len + 1
               : NULL;
}

size_t store_log_room(void)
{
    return AREA_BYTES - l.at;
}

size_t store_log_area_bytes(void)
{
    return AREA_BYTES;
}

bool store_log_is_empty(void)
{
    return l.at == 0;
}

/* ---- the file ---- */

/* Does the disk want larger blocks than records are? Then by way of the page cache after all. */
static bool stop_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & O_DIRECT && fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0;
}

static bool write_at(int fd, const void *data, size_t len, off_t at)
{
    for (const char *p = data; len;) {
        ssize_t n = pwrite(fd, p, len, at);
        if (n < 0 && (errno == EINTR || (errno == EINVAL && stop_direct(fd))))
            continue;
        if (n <= 0)
            return false;
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static bool read_at(void *data, size_t len, off_t at)
{
    for (char *p = data; len;) {
        ssize_t n = pread(l.fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n ? errno : EIO;
            return false;
        }
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

/* The first epoch that counts, twice: the second time inverted. */
static bool set_mark(uint64_t first)
{
    const uint64_t mark[2] = {GUINT64_TO_LE(first), ~GUINT64_TO_LE(first)};
    return write_at(l.fd, mark, MARK_BYTES, MARK_AT) && fdatasync(l.fd) == 0;
}

static uint64_t read_mark(const uint8_t *head)
{
    struct cur c = cur_of(head + MARK_AT, MARK_BYTES);
    uint64_t first = cur_le64(&c);
    return cur_le64(&c) == ~first ? first : 0; /* unreadable: whatever is there counts */
}

static off_t area_at(unsigned area)
{
    return HEAD_BYTES + (off_t)area * AREA_BYTES;
}

/* Every block is written once: what comes later changes no size and finds its place. */
static bool fill(const char *root)
{
    g_autofree char *block = g_malloc0(HEAD_BYTES);
    memcpy(block, magic, sizeof(magic));
    g_strlcpy(block + ROOT_AT, root, ROOT_MAX);
    if (!write_at(l.fd, block, HEAD_BYTES, 0))
        return false;
    memset(block, 0, HEAD_BYTES);
    for (off_t at = HEAD_BYTES; at < LOG_BYTES; at += HEAD_BYTES)
        if (!write_at(l.fd, block, HEAD_BYTES, at))
            return false;
    return set_mark(1) && fsync(l.fd) == 0;
}

/* A new one, under its name when it is whole. */
static bool make(const char *path, const char *root, GError **error)
{
    g_autofree char *temp = g_strdup_printf("%s.new", path);
    struct store_file name = {.kind = STORE_LINK, .path = path};
    if (strlen(root) >= ROOT_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "folder '%s': its name has more than %d bytes",
                           root, ROOT_MAX);
    l.fd = open(temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (l.fd < 0 || !fill(root) || rename(temp, path) < 0)
        return ruche_error_errno(error, errno, "%s cannot be made", path);
    store_file_sync_folder(&name);
    return !name.err || ruche_error_errno(error, name.err, "%s: %s", path, name.step);
}

/* ---- carrying out ---- */

/* The folder's name is in the set until the area is free. */
static void remember_folder(unsigned area, const char *path)
{
    g_hash_table_add(l.folders[area], g_path_get_dirname(path));
}

/* `last`: of those of this path. */
static bool carry_out(const char *root, const struct store_record *r, bool last, GError **error)
{
    g_autofree char *path = g_build_filename(root, r->path, NULL);
    struct store_file f = {.kind = r->kind,
                           .path = path,
                           .text = r->text,
                           .mode = r->mode,
                           .time_ns = r->time_ns,
                           .old_ns = r->old_ns};
    store_file_carry_out(&f);
    if (f.edited && last)
        log_warn("%s was changed after the log's last word on it, and is left as it is", path);
    if (!f.edited)
        remember_folder(0, path);
    return !f.err || ruche_error_errno(error, f.err, "%s: %s", path, f.step);
}

/* The records of one area, in order. */
static bool carry_out_area(const char *root, const uint8_t *bytes, uint64_t epoch, GError **error)
{
    g_autoptr(GArray) records = g_array_new(false, false, sizeof(struct store_record));
    g_autoptr(GHashTable) last = g_hash_table_new(g_str_hash, g_str_equal);
    struct cur c = cur_of(bytes, AREA_BYTES);
    struct store_record r;
    for (uint64_t number = 0; store_record_take(&c, epoch, number, &r); number++) {
        g_array_append_val(records, r);
        g_hash_table_insert(last, (char *)r.path, GUINT_TO_POINTER(records->len - 1));
        l.last_ns = MAX(l.last_ns, r.time_ns);
    }
    for (unsigned i = 0; i < records->len; i++) {
        const struct store_record *one = &g_array_index(records, struct store_record, i);
        bool is_last = GPOINTER_TO_UINT(g_hash_table_lookup(last, one->path)) == i;
        if (!carry_out(root, one, is_last, error))
            return false;
    }
    if (records->len)
        log_info("%s: %u changes were made again", l.path, records->len);
    return true;
}

static bool carry_out_all(const char *root, uint64_t first, GError **error)
{
    uint64_t epochs[2];
    for (unsigned i = 0; i < 2; i++) {
        uint8_t sector[STORE_SECTOR];
        if (!read_at(sector, sizeof(sector), area_at(i)))
            return ruche_error_errno(error, errno, "%s cannot be read", l.path);
        epochs[i] = store_record_epoch(cur_of(sector, sizeof(sector)));
        if (first && epochs[i] > first + 1) /* the mark is never farther behind */
            epochs[i] = 0;
        l.epoch = MAX(l.epoch, epochs[i] + 1);
    }
    g_autofree uint8_t *bytes = g_malloc(AREA_BYTES);
    for (unsigned turn = 0; turn < 2; turn++) {
        unsigned area = turn ^ (epochs[0] > epochs[1]); /* the older first */
        if (!epochs[area] || epochs[area] < first)
            continue;
        if (!read_at(bytes, AREA_BYTES, area_at(area)))
            return ruche_error_errno(error, errno, "%s cannot be read", l.path);
        if (!carry_out_area(root, bytes, epochs[area], error))
            return false;
    }
    return true;
}

/* ---- syncing files ---- */

/* Once for each file system. */
static int sync_folder(const char *folder, dev_t *seen, unsigned *count)
{
    struct stat st;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
    if (fd < 0)
        return errno == ENOENT ? 0 : errno; /* the folder went, and all in it */
    if (fstat(fd, &st) < 0)
        err = errno;
    for (unsigned i = 0; !err && i < *count; i++)
        if (seen[i] == st.st_dev) {
            close(fd);
            return 0;
        }
    if (!err && syncfs(fd) < 0)
        err = errno;
    close(fd);
    if (!err && *count < DEVICES_MAX)
        seen[(*count)++] = st.st_dev;
    return err;
}

/* Of one area; from then on epochs before `first` do not count. */
static int settle(unsigned area, uint64_t first)
{
    dev_t seen[DEVICES_MAX];
    unsigned count = 0;
    GHashTableIter it;
    gpointer folder;
    g_hash_table_iter_init(&it, l.folders[area]);
    while (g_hash_table_iter_next(&it, &folder, NULL)) {
        int err = sync_folder(folder, seen, &count);
        if (err)
            return err;
    }
    if (!set_mark(first))
        return errno;
    g_hash_table_remove_all(l.folders[area]);
    return 0;
}

int store_log_settle(void)
{
    return settle(!l.area, l.epoch);
}

void store_log_turn(void)
{
    l.area = !l.area;
    l.at = 0;
    l.number = 0;
    l.epoch++;
}

/* ---- beginning and end ---- */

/* Takes up what is there. False without an error: it is not one of ours, or speaks of another
 * folder (and has been carried out there): a new one is needed. */
static bool take_up(const char *root, GError **error)
{
    g_autofree uint8_t *head = g_malloc(HEAD_BYTES);
    struct stat st;
    if (fstat(l.fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != LOG_BYTES ||
        !read_at(head, HEAD_BYTES, 0) || memcmp(head, magic, sizeof(magic)) != 0 ||
        !memchr(head + ROOT_AT, 0, ROOT_MAX)) {
        g_autofree char *aside = g_strdup_printf("%s.bad", l.path);
        log_warn("%s is damaged; it is put aside as %s", l.path, aside);
        if (rename(l.path, aside) < 0)
            ruche_error_errno(error, errno, "%s cannot be put aside", l.path);
        return false;
    }
    const char *whose = (const char *)head + ROOT_AT;
    uint64_t first = read_mark(head);
    l.epoch = MAX(first, 1);
    if (!carry_out_all(whose, first, error))
        return false;
    int err = l.epoch > first ? settle(0, l.epoch) : 0;
    if (err)
        return ruche_error_errno(error, err, "%s: what it promises cannot be synced", l.path);
    return strcmp(whose, root) == 0;
}

/* A lock of the process: two managers with one log would each undo the other's work. */
static bool take_lock(GError **error)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(l.fd, F_SETLK, &lock) == 0 ||
           ruche_error(error, RUCHE_ERR_BUSY,
                       "%s is in use by another ruched: one state folder is for one", l.path);
}

static bool open_log(const char *path, const char *root, GError **error)
{
    g_autoptr(GError) why = NULL;
    l.fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (l.fd < 0 && errno != ENOENT)
        return ruche_error_errno(error, errno, "%s", path);
    if (l.fd >= 0) {
        if (!take_lock(error))
            return false;
        if (take_up(root, &why))
            return true;
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        close(l.fd);
    }
    return make(path, root, error) && take_lock(error);
}

static bool open_records(GError **error)
{
    l.records = open(l.path, O_WRONLY | O_DSYNC | O_CLOEXEC | O_NOFOLLOW);
    int flags = l.records < 0 ? -1 : fcntl(l.records, F_GETFL);
    if (flags < 0)
        return ruche_error_errno(error, errno, "%s", l.path);
    fcntl(l.records, F_SETFL, flags | O_DIRECT); /* not every file system can */
    return true;
}

bool store_log_open(const char *path, const char *root, GError **error)
{
    g_assert(l.fd < 0);
    l.path = g_strdup(path);
    l.root = g_strdup(root);
    l.area = 0;
    l.at = 0;
    l.epoch = 1;
    l.number = 0;
    l.last_ns = 0;
    for (unsigned i = 0; i < 2; i++)
        l.folders[i] = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (open_log(path, root, error) && open_records(error))
        return true;
    store_log_close(false);
    return false;
}

void store_log_close(bool empty)
{
    if (!l.path)
        return;
    if (l.fd >= 0 && empty && (l.at || g_hash_table_size(l.folders[!l.area]))) {
        int err = settle(!l.area, l.epoch);
        err = err ? err : settle(l.area, l.epoch + 1);
        if (err)
            log_warn("%s is left for the next start: %s", l.path, g_strerror(err));
    }
    if (l.records >= 0)
        close(l.records);
    if (l.fd >= 0)
        close(l.fd);
    l.fd = l.records = -1;
    for (unsigned i = 0; i < 2; i++)
        g_clear_pointer(&l.folders[i], g_hash_table_unref);
    g_clear_pointer(&l.path, g_free);
    g_clear_pointer(&l.root, g_free);
}

/* ---- records ---- */

static int64_t next_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    l.last_ns = MAX(l.last_ns + 1, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    return l.last_ns;
}

int store_log_put(struct store_record *records, unsigned count)
{
    size_t bytes = 0, at = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += store_record_bytes(&records[i]);
    g_assert(bytes <= store_log_room());
    g_autofree void *memory = NULL;
    if (posix_memalign(&memory, HEAD_BYTES, bytes))
        return ENOMEM;
    uint8_t *data = memory;
    for (unsigned i = 0; i < count; i++) {
        records[i].time_ns = next_time();
        store_record_put(data + at, l.epoch, l.number + i, &records[i]);
        at += store_record_bytes(&records[i]);
    }
    if (!write_at(l.records, data, bytes, area_at(l.area) + (off_t)l.at))
        return errno; /* what comes next is written in their place */
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *path = g_build_filename(l.root, records[i].path, NULL);
        remember_folder(l.area, path);
    }
    l.at += bytes;
    l.number += count;
    return 0;
}
