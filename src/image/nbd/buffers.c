/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: an export's buffers, kept in powers of two; the last one used is the first one taken,
 * as it is still in the processor's cache.
 */
#include "image/nbd/server_priv.h"

#include <stdlib.h>

static unsigned class_of(uint32_t len)
{
    unsigned c = 0;
    while (c < NBD_BUFFER_CLASSES - 1 && NBD_BUFFER_MIN << c < len)
        c++;
    return c;
}

uint8_t *nbd_buffer_get(struct nbd_export *e, uint32_t len)
{
    unsigned k = class_of(len);
    struct nbd_free_buffer *b = e->buffers[k];
    if (!b)
        return aligned_alloc(NBD_BUFFER_MIN, NBD_BUFFER_MIN << k);
    e->buffers[k] = b->next;
    e->buffer_bytes -= NBD_BUFFER_MIN << k;
    return (uint8_t *)b;
}

void nbd_buffer_put(struct nbd_export *e, uint8_t *buf, uint32_t len)
{
    uint64_t bytes = NBD_BUFFER_MIN << class_of(len);
    if (!buf)
        return;
    if (e->buffer_bytes + bytes > NBD_BUFFERS_KEEP) {
        free(buf);
        return;
    }
    struct nbd_free_buffer *b = (struct nbd_free_buffer *)buf;
    b->next = e->buffers[class_of(len)];
    e->buffers[class_of(len)] = b;
    e->buffer_bytes += bytes;
}

void nbd_buffers_free(struct nbd_export *e)
{
    for (unsigned k = 0; k < NBD_BUFFER_CLASSES; k++) {
        while (e->buffers[k]) {
            struct nbd_free_buffer *b = e->buffers[k];
            e->buffers[k] = b->next;
            free(b);
        }
    }
    e->buffer_bytes = 0;
}
