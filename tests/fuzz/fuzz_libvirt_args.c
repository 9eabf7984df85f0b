/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Arguments of every procedure as hostile bytes: the first two say which, the rest is read by its
 * rows, written again, and read again to the same. */
#include "libvirt/frame.h"
#include "libvirt/rpc.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_rows(const struct xdr_row *rows, size_t obj_size, const uint8_t *data, size_t size)
{
    void *obj = malloc(obj_size), *again = malloc(obj_size);
    GByteArray *out = g_byte_array_new(), *twice = g_byte_array_new();
    size_t used = 0;
    if (!xdr_read(rows, obj, obj_size, data, size, &used)) {
        if (used > size || xdr_write(rows, obj, out) < 0 ||
            xdr_read(rows, again, obj_size, out->data, out->len, &used) < 0 || used != out->len ||
            xdr_write(rows, again, twice) < 0 || twice->len != out->len ||
            memcmp(twice->data, out->data, out->len) != 0)
            abort();
        xdr_free(rows, again);
    }
    xdr_free(rows, obj);
    g_byte_array_unref(out);
    g_byte_array_unref(twice);
    free(obj);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const struct rpc_proc *p = rpc_find(data[0] & 0x80 ? PROGRAM_QEMU : PROGRAM_REMOTE,
                                        (uint32_t)(data[0] & 0x7f) << 8 | data[1]);
    if (p && p->args)
        try_rows(p->args, p->args_size, data + 2, size - 2);
    if (p && p->ret)
        try_rows(p->ret, p->ret_size, data + 2, size - 2);
    return 0;
}
