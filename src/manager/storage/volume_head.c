/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a file or device that was opened is, by its first bytes and its status: its format; of raw, LUKS and qcow2 all.
 *
 * Thread    A worker.
 * Trust     The bytes are hostile: each is read once, by a bounded cursor.
 */
#include "base/cursor.h"
#include "manager/storage/qcow2_head.h"
#include "manager/storage/storage_priv.h"

#include <string.h>

struct magic_row {
    unsigned offset;
    const char *bytes;
    unsigned length;
    const char *format;
};
static const struct magic_row magics[] = {
    {0, "QFI\xfb", 4, "qcow2"},
    {0, "KDMV", 4, "vmdk"},
    {0, "# Disk DescriptorFile", 21, "vmdk"},
    {0, "conectix", 8, "vpc"},
    {0, "vhdxfile", 8, "vhdx"},
    {0, "LUKS\xba\xbe", 6, "luks"},
    {64, "\x7f\x10\xda\xbe", 4, "vdi"},
    {0x8001, "CD001", 5, "iso"},
};

enum { HEAD_BYTES = QCOW2_HEAD_BYTES };

/* `head` is the file's first bytes; only one format has its mark further back. */
static const char *format_by_magic(int fd, const uint8_t *head, size_t length)
{
    for (unsigned i = 0; i < ARRAY_COUNT(magics); i++) {
        char bytes[32];
        const struct magic_row *m = &magics[i];
        bool in_head = m->offset + m->length <= HEAD_BYTES;
        if (in_head ? range_fits(m->offset, m->length, length) &&
                          !memcmp(head + m->offset, m->bytes, m->length)
                    : length == HEAD_BYTES &&
                          pread(fd, bytes, m->length, m->offset) == (ssize_t)m->length &&
                          !memcmp(bytes, m->bytes, m->length))
            return m->format;
    }
    return "raw";
}

/* Names that XML cannot hold cannot be volumes. */
bool volume_name_can_be_told(const char *name)
{
    if (!g_utf8_validate(name, -1, NULL))
        return false;
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    return true;
}

/* A name relative to the image's folder becomes a path; a protocol's name ("nbd://...") is no path.
 */
static char *backing_path(const char *image, const char *name)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');
    if (!volume_name_can_be_told(name) || (colon && (!slash || colon < slash)))
        return NULL;
    g_autofree char *dir = g_path_get_dirname(image);
    return g_canonicalize_filename(name, dir);
}

static void read_qcow2(struct volume *v, int fd, const uint8_t *data, size_t length)
{
    char name[QCOW2_BACKING_MAX + 1] = "";
    struct qcow2_head h;
    if (qcow2_head_parse(data, length, &h) < 0)
        return;
    v->capacity = h.capacity;
    v->cluster_size = h.cluster_size;
    v->compat = g_strdup(h.version == 2 ? "0.10" : "1.1");
    v->encrypted = h.encrypted;
    v->lazy_refcounts = h.lazy_refcounts;
    v->extended_l2 = h.extended_l2;
    if (!h.backing_bytes ||
        pread(fd, name, h.backing_bytes, (off_t)h.backing_offset) != (ssize_t)h.backing_bytes)
        return;
    v->backing = backing_path(v->path, name);
    if (v->backing && volume_name_can_be_told(h.backing_format) && h.backing_format[0])
        v->backing_format = g_strdup(h.backing_format);
}

void volume_take_stat(struct volume *v, const struct stat *st)
{
    v->perms = (struct file_perms){(int)(st->st_mode & 07777), st->st_uid, st->st_gid};
    v->atime = st->st_atim;
    v->mtime = st->st_mtim;
    v->ctime = st->st_ctim;
    v->device = st->st_dev;
    v->inode = st->st_ino;
    v->looked_s = time(NULL);
}

/* A LUKS image is a raw one that is encrypted; its disk begins behind the header. Of version 1 that
 * says where. */
static void read_luks(struct volume *v, const uint8_t *data, size_t length)
{
    struct cur c = cur_of(data, length);
    cur_take(&c, 6);
    uint16_t version = cur_be16(&c);
    cur_take(&c, 96); /* cipher, mode and hash */
    uint64_t start = cur_be32(&c) * 512ULL;
    memcpy(v->format, "raw", 4);
    v->encrypted = true;
    if (!c.bad && version == 1 && start < v->capacity)
        v->capacity -= start;
}

/* The format, and what a qcow2 image says of itself. */
void volume_read_head(struct volume *v, int fd)
{
    uint8_t head[HEAD_BYTES];
    ssize_t n = pread(fd, head, sizeof(head), 0);
    v->format = g_strdup(format_by_magic(fd, head, n < 0 ? 0 : (size_t)n));
    if (!strcmp(v->format, "qcow2"))
        read_qcow2(v, fd, head, (size_t)n);
    else if (!strcmp(v->format, "luks"))
        read_luks(v, head, (size_t)n);
}
