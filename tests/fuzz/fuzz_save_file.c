/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of saved machines: any bytes, as they are and with a head that fits them; what is taken is
 * within the file, and a description that is put in comes out. */
#include "manager/domain/save_file.h"

#include <assert.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* False: refused, with a sentence. */
static bool take(const char *path, uint64_t file_bytes, struct save_head *ret, char **ret_xml)
{
    GError *error = NULL;
    int fd = save_file_open(path, ret, ret_xml, &error);
    if (fd < 0) {
        assert(error && *error->message && !*ret_xml);
        g_error_free(error);
        return false;
    }
    assert(!error && strlen(*ret_xml) == ret->xml_bytes && save_head_stream(ret) < file_bytes);
    assert((uint64_t)lseek(fd, 0, SEEK_CUR) == save_head_stream(ret));
    close(fd);
    return true;
}

static void try_file(const uint8_t *data, size_t size)
{
    char path[64], *xml = NULL;
    struct save_head h;
    int fd = memfd_create("saved", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (take(path, size, &h, &xml)) {
        static const char text[] = "<domain/>";
        unsigned slot = h.slot;
        g_free(g_steal_pointer(&xml));
        bool put = save_file_set_xml(path, text, SAVE_PAUSED, NULL);
        assert(put);
        put = take(path, size, &h, &xml);
        assert(put && !strcmp(xml, text) && h.state == SAVE_PAUSED && h.slot != slot);
    }
    g_free(xml);
    close(fd);
}

/* The numbers of the head stay, where they can be; magic, version and digest are made right. */
static void seal(uint8_t *bytes, size_t size)
{
    uint8_t own[SAVE_HEAD_BYTES];
    struct save_head h = {.state = SAVE_RUNNING, .slot_bytes = 4096, .xml_bytes = 1}, kept;
    gsize room = sizeof(h.digest);
    save_head_write(&h, own);
    memcpy(bytes, own, 20);
    if (save_head_read(bytes, SAVE_HEAD_BYTES, &kept) == 0)
        h = kept;
    uint64_t at = SAVE_HEAD_BYTES + (uint64_t)h.slot * h.slot_bytes;
    if (at + h.xml_bytes > size)
        return;
    GChecksum *c = g_checksum_new(G_CHECKSUM_SHA256);
    g_checksum_update(c, bytes + at, h.xml_bytes);
    g_checksum_get_digest(c, h.digest, &room);
    g_checksum_free(c);
    save_head_write(&h, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_file(data, size);
    uint8_t *copy = size >= SAVE_HEAD_BYTES ? malloc(size) : NULL;
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    seal(copy, size);
    try_file(copy, size);
    free(copy);
    return 0;
}
