/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: core files, pieces of memory and disks. Thread: the loop thread. */
#include "libvirt/object.h"

struct dump_args {
    struct wire_domain dom;
    char *path;
    uint32_t format, flags;
};
static const struct xdr_row dump_args_xdr[] = {
    XDR_SUB(struct dump_args, dom, wire_domain_xdr), XDR_F(STRING, struct dump_args, path),
    XDR_F(UINT, struct dump_args, format), XDR_F(UINT, struct dump_args, flags), XDR_DONE};
DOMAIN_PROC(domain_core_dump, 53, 0, a_domain_text_flags,
            domain_dump(c->who, d, a->text, 0, a->flags, NULL, error));
DOMAIN_PROC(domain_core_dump_with_format, 334, 0, dump_args,
            domain_dump(c->who, d, a->path, a->format, a->flags, NULL, error));

struct peek_answer {
    struct xdr_bytes bytes;
};
static const struct xdr_row peek_answer_xdr[] = {
    XDR_F(BYTES, struct peek_answer, bytes, .max = DOMAIN_PEEK_MAX), XDR_DONE};

/* Room for the answer; what is too much for the protocol is refused before. */
static bool room(struct peek_answer *ret, uint32_t size, GError **error)
{
    if (size > DOMAIN_PEEK_MAX)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "%u bytes at a time are too many; %u are possible", size,
                           DOMAIN_PEEK_MAX);
    ret->bytes.data = g_try_malloc0(MAX(size, 1));
    ret->bytes.len = size;
    return ret->bytes.data ||
           ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for %u bytes", size);
}

struct peek_disk {
    struct wire_domain dom;
    char *disk;
    uint64_t from;
    uint32_t size, flags;
};
static const struct xdr_row peek_disk_xdr[] = {XDR_SUB(struct peek_disk, dom, wire_domain_xdr),
                                               XDR_F(STRING, struct peek_disk, disk),
                                               XDR_F(UHYPER, struct peek_disk, from),
                                               XDR_F(UINT, struct peek_disk, size),
                                               XDR_F(UINT, struct peek_disk, flags),
                                               XDR_DONE};
DOMAIN_PROC(domain_block_peek, 103, 0, peek_disk,
            object_flags(a->flags, 0, "domain_block_peek", error) && room(ret, a->size, error) &&
                domain_block_peek(c->who, d, a->disk, a->from,
                                  ((struct peek_answer *)ret)->bytes.data, a->size, error),
            RET(peek_answer));

struct peek_memory {
    struct wire_domain dom;
    uint64_t from;
    uint32_t size, flags;
};
static const struct xdr_row peek_memory_xdr[] = {
    XDR_SUB(struct peek_memory, dom, wire_domain_xdr), XDR_F(UHYPER, struct peek_memory, from),
    XDR_F(UINT, struct peek_memory, size), XDR_F(UINT, struct peek_memory, flags), XDR_DONE};
DOMAIN_PROC(domain_memory_peek, 104, 0, peek_memory,
            room(ret, a->size, error) &&
                domain_memory_peek(c->who, d, a->from, ((struct peek_answer *)ret)->bytes.data,
                                   a->size, a->flags, error),
            RET(peek_answer));
