/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Driver "iscsi": a logical unit of an iSCSI target, without the kernel's initiator.
 *
 * Spec      RFC 7143; SBC-3 (READ (16), WRITE (16), SYNCHRONIZE CACHE (16), UNMAP, WRITE SAME (16),
 *           GET LBA STATUS). Names iscsi://[USER@]HOST[:PORT]/TARGET/LUN and QEMU's
 *           options.
 * Fiber     Logging in and out block, on a thread of the pool; after that see service.h. libiscsi
 *           logs in again when the connection is lost, and repeats what was in flight.
 * Trust     The target's answers are parsed by libiscsi; block size, length and limits are checked
 *           here.
 * Errors    -EIO, -ENOSPC, -EROFS, -ENOTSUP by the sense data; a unit attention or a busy target is
 *           asked again.
 */
#include "image/driver.h"
#include "image/net/service.h"
#include "image/secret.h"

#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <string.h>

#define IOVS_MAX      64
#define TRANSFER_MAX  (8 * MIB)
#define TRIES_MAX     8
#define BUSY_NS       (100 * NS_PER_MS)
#define DEFAULT_NAME  "iqn.2008-11.org.linux-kvm:ruche"
#define RECONNECT_MAX 30

struct iscsi_node {
    struct node node;
    int transport, digest;
    char *portal, *target, *user, *password_secret, *initiator_name;
    uint64_t lun, timeout_sec;

    struct service service;
    uint32_t block;        /* bytes, a power of two */
    uint32_t transfer_max; /* bytes of one read or write */
    bool can_unmap, can_write_same, unmapped_is_zero, thin, write_protected;
    uint32_t unmap_max;      /* blocks */
    uint64_t write_same_max; /* blocks */
};

/* One command in flight, on its fiber's stack. */
struct iscsi_call {
    struct scsi_task *task;
    int status;
    bool done;
};

static struct iscsi_node *iscsi_of(struct node *n)
{
    return container_of(n, struct iscsi_node, node);
}

static struct iscsi_context *library_of(const struct iscsi_node *n)
{
    return n->service.library;
}

static int library_fd(void *library)
{
    return iscsi_get_fd(library);
}

static int library_events(void *library)
{
    return iscsi_which_events(library);
}

static int library_handle(void *library, int revents)
{
    return iscsi_service(library, revents);
}

static void library_give_up(void *library)
{
    iscsi_destroy_context(library);
}

/* --- commands --- */

static void on_done(struct iscsi_context *iscsi, int status, void *data, void *opaque)
{
    struct iscsi_call *c = opaque;
    c->status = status;
    c->done = true;
}

/* A command made anew for each try: fills in call->task by one of libiscsi's functions. */
struct command {
    struct scsi_task *(*start)(struct iscsi_node *n, const struct command *cmd,
                               struct iscsi_call *c);
    uint64_t lba;
    uint32_t blocks;
    struct scsi_iovec iov[IOVS_MAX];
    int iov_count;
    bool fua, unmap;
};

static int errno_of_sense(const struct scsi_task *t)
{
    switch (t->sense.key) {
    case SCSI_SENSE_DATA_PROTECTION:
        /* SPACE ALLOCATION FAILED WRITE PROTECT: a thin unit is full */
        return t->sense.ascq == 0x2707 ? -ENOSPC : -EROFS;
    case SCSI_SENSE_ILLEGAL_REQUEST:
        return t->sense.ascq == 0x2000 || t->sense.ascq == 0x2400 ? -ENOTSUP : -EINVAL;
    default:
        return -EIO;
    }
}

/* 0, -errno, or 1: to be tried again. */
static int judge(const struct iscsi_call *c)
{
    if (c->status == SCSI_STATUS_GOOD)
        return 0;
    if (c->status == SCSI_STATUS_BUSY || c->status == SCSI_STATUS_TASK_SET_FULL)
        return 1;
    if (c->status != SCSI_STATUS_CHECK_CONDITION)
        return -EIO;
    return c->task->sense.key == SCSI_SENSE_UNIT_ATTENTION ? 1 : errno_of_sense(c->task);
}

/* Runs it until it is decided; *ret_task (when wanted): the finished task, to be freed. */
static int run(struct iscsi_node *n, const struct command *cmd, struct scsi_task **ret_task)
{
    int rc = -EIO;
    for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
        struct iscsi_call c = { 0 };
        c.task = library_of(n) ? cmd->start(n, cmd, &c) : NULL;
        if (!c.task)
            return -EIO;
        rc = service_wait(&n->service, &c.done) ? judge(&c) : -EIO;
        if (rc == 0 && ret_task)
            *ret_task = c.task;
        else
            scsi_free_scsi_task(c.task);
        if (rc != 1)
            return rc;
        context_sleep_ns(n->node.ctx, BUSY_NS);
    }
    return -EIO;
}

static struct scsi_task *start_read(struct iscsi_node *n, const struct command *cmd,
                                    struct iscsi_call *c)
{
    return iscsi_read16_iov_task(library_of(n), (int)n->lun, cmd->lba, cmd->blocks * n->block,
                                 (int)n->block, 0, 0, 0, 0, 0, on_done, c,
                                 (struct scsi_iovec *)cmd->iov, cmd->iov_count);
}

static struct scsi_task *start_write(struct iscsi_node *n, const struct command *cmd,
                                     struct iscsi_call *c)
{
    return iscsi_write16_iov_task(library_of(n), (int)n->lun, cmd->lba, NULL,
                                  cmd->blocks * n->block, (int)n->block, 0, 0, cmd->fua, 0, 0,
                                  on_done, c, (struct scsi_iovec *)cmd->iov, cmd->iov_count);
}

static struct scsi_task *start_flush(struct iscsi_node *n, const struct command *cmd,
                                     struct iscsi_call *c)
{
    return iscsi_synchronizecache10_task(library_of(n), (int)n->lun, 0, 0, 0, 0, on_done, c);
}

static struct scsi_task *start_unmap(struct iscsi_node *n, const struct command *cmd,
                                     struct iscsi_call *c)
{
    struct unmap_list range = { .lba = cmd->lba, .num = cmd->blocks };
    return iscsi_unmap_task(library_of(n), (int)n->lun, 0, 0, &range, 1, on_done, c);
}

static struct scsi_task *start_write_same(struct iscsi_node *n, const struct command *cmd,
                                          struct iscsi_call *c)
{
    return iscsi_writesame16_task(library_of(n), (int)n->lun, cmd->lba, cmd->iov[0].iov_base,
                                  n->block, cmd->blocks, 0, cmd->unmap, 0, 0, on_done, c);
}

static struct scsi_task *start_lba_status(struct iscsi_node *n, const struct command *cmd,
                                          struct iscsi_call *c)
{
    return iscsi_get_lba_status_task(library_of(n), (int)n->lun, cmd->lba, 8 + 16, on_done, c);
}

/* The head of v that one command takes: as many vectors, and whole blocks. 0: the first vectors are
 * too small for that. */
static size_t take_vectors(const struct iscsi_node *n, struct vec v, struct command *cmd)
{
    struct iovec iov[IOVS_MAX];
    size_t len;
    unsigned count =
        vec_to_iov(vec_slice(v, 0, min_u64(v.len, n->transfer_max)), iov, IOVS_MAX, &len);
    size_t whole = align_down(len, n->block);
    for (size_t surplus = len - whole; surplus;) {
        size_t cut = min_u64(surplus, iov[count - 1].iov_len);
        iov[count - 1].iov_len -= cut;
        surplus -= cut;
        count -= iov[count - 1].iov_len == 0;
    }
    for (unsigned i = 0; i < count; i++)
        cmd->iov[i] = (struct scsi_iovec){ iov[i].iov_base, iov[i].iov_len };
    cmd->iov_count = (int)count;
    return whole;
}

static int transfer(struct iscsi_node *n, uint64_t off, struct vec v, bool write, bool fua)
{
    int rc = 0;
    for (size_t done = 0; done < v.len && rc == 0;) {
        struct command cmd = { .start = write ? start_write : start_read,
                               .lba = (off + done) / n->block,
                               .fua = fua };
        struct vec rest = vec_slice(v, done, v.len - done);
        size_t len = take_vectors(n, rest, &cmd);
        g_autofree uint8_t *flat = NULL;
        if (!len) { /* more than IOVS_MAX vectors in one block */
            len = n->block;
            flat = g_malloc(len);
            if (write)
                vec_read(vec_slice(rest, 0, len), flat);
            cmd.iov[0] = (struct scsi_iovec){ flat, len };
            cmd.iov_count = 1;
        }
        cmd.blocks = (uint32_t)(len / n->block);
        rc = run(n, &cmd, NULL);
        if (rc == 0 && flat && !write)
            vec_write(vec_slice(rest, 0, len), flat);
        done += len;
    }
    return rc;
}

static int iscsi_node_read(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    return transfer(iscsi_of(node), off, v, false, false);
}

static int iscsi_node_write(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    return transfer(iscsi_of(node), off, v, true, flags & NODE_FUA);
}

static int iscsi_node_flush(struct node *node)
{
    struct iscsi_node *n = iscsi_of(node);
    struct command cmd = { .start = start_flush };
    int rc = run(n, &cmd, NULL);
    return rc == -ENOTSUP ? 0 : rc; /* a target without a cache */
}

/* Runs a command on [off, off + len), at most `max` blocks a time. */
static int ranged(struct iscsi_node *n, struct command *cmd, uint64_t off, uint64_t len,
                  uint64_t max)
{
    int rc = 0;
    uint64_t lba = off / n->block, left = len / n->block;
    while (left && rc == 0) {
        uint64_t part = min_u64(left, max ? max : UINT32_MAX);
        cmd->lba = lba;
        cmd->blocks = (uint32_t)part;
        rc = run(n, cmd, NULL);
        lba += part;
        left -= part;
    }
    return rc;
}

static int iscsi_node_discard(struct node *node, uint64_t off, uint64_t len)
{
    struct iscsi_node *n = iscsi_of(node);
    struct command cmd = { .start = start_unmap };
    return n->can_unmap ? ranged(n, &cmd, off, len, n->unmap_max) : -ENOTSUP;
}

static int iscsi_node_zero(struct node *node, uint64_t off, uint64_t len, unsigned flags)
{
    struct iscsi_node *n = iscsi_of(node);
    bool unmap = (flags & NODE_MAY_UNMAP) && n->unmapped_is_zero;
    if (!n->can_write_same || ((flags & NODE_NO_FALLBACK) && !unmap))
        return -ENOTSUP;
    static uint8_t zeroes[65536];
    struct command cmd = {
        .start = start_write_same, .unmap = unmap, .iov = { { zeroes, n->block } }, .iov_count = 1
    };
    int rc = ranged(n, &cmd, off, len, n->write_same_max);
    if (rc == -ENOTSUP || rc == -EINVAL) {
        n->can_write_same = false; /* it says so only when asked */
        return -ENOTSUP;
    }
    return rc;
}

static int iscsi_node_map(struct node *node, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct iscsi_node *n = iscsi_of(node);
    *ret = (struct image_extent){ .len = len,
                                  .flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET,
                                  .host = node,
                                  .host_offset = off };
    struct command cmd = { .start = start_lba_status, .lba = off / n->block };
    struct scsi_task *task = NULL;
    if (!n->thin || run(n, &cmd, &task) < 0)
        return 0;
    const struct scsi_get_lba_status *s = scsi_datain_unmarshall(task);
    if (s && s->num_descriptors && s->descriptors[0].lba == cmd.lba &&
        s->descriptors[0].num_blocks) {
        ret->len = min_u64(len, (uint64_t)s->descriptors[0].num_blocks * n->block);
        if (s->descriptors[0].provisioning != SCSI_PROVISIONING_TYPE_MAPPED && n->unmapped_is_zero)
            ret->flags = EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET;
    }
    scsi_free_scsi_task(task);
    return 0;
}

/* --- opening --- */

struct iscsi_opening {
    struct iscsi_node *n;
    GError **error;
};

static int refuse(struct iscsi_opening *o, const char *what)
{
    ruche_error(o->error, RUCHE_ERR_IO, "iscsi target '%s' at '%s', lun %u: %s: %s", o->n->target,
                o->n->portal, (unsigned)o->n->lun, what, iscsi_get_error(library_of(o->n)));
    return -EIO;
}

static bool good(const struct scsi_task *t)
{
    return t && t->status == SCSI_STATUS_GOOD;
}

static int read_capacity(struct iscsi_opening *o)
{
    struct iscsi_node *n = o->n;
    struct scsi_task *t = NULL;
    for (unsigned tries = 0; tries < TRIES_MAX && !good(t);
         tries++) { /* the first answers may be unit attentions */
        if (t)
            scsi_free_scsi_task(t);
        t = iscsi_readcapacity16_sync(library_of(n), (int)n->lun);
    }
    const struct scsi_readcapacity16 *c = good(t) ? scsi_datain_unmarshall(t) : NULL;
    int rc = c ? 0 : refuse(o, "its size cannot be read");
    if (c && (!is_power_of_2(c->block_length) || c->block_length < 512 || c->block_length > 65536 ||
              c->returned_lba >= IMAGE_SIZE_MAX / c->block_length))
        rc = refuse(o, "its size or block size is not possible");
    if (rc == 0) {
        n->block = c->block_length;
        n->node.size_bytes = (c->returned_lba + 1) * c->block_length;
        n->thin = c->lbpme;
        n->unmapped_is_zero = c->lbpme && c->lbprz;
    }
    if (t)
        scsi_free_scsi_task(t);
    return rc;
}

/* What it can do; a target that does not say has no limits and no such commands. */
static void read_limits(struct iscsi_node *n)
{
    struct scsi_task *t =
        n->thin ? iscsi_inquiry_sync(library_of(n), (int)n->lun, 1,
                                     SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING, 64)
                : NULL;
    const struct scsi_inquiry_logical_block_provisioning *p =
        good(t) ? scsi_datain_unmarshall(t) : NULL;
    n->can_unmap = p && p->lbpu;
    n->can_write_same = true;
    if (t)
        scsi_free_scsi_task(t);
    n->transfer_max = TRANSFER_MAX;
    t = iscsi_inquiry_sync(library_of(n), (int)n->lun, 1, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, 64);
    const struct scsi_inquiry_block_limits *l = good(t) ? scsi_datain_unmarshall(t) : NULL;
    if (l) {
        if (l->max_xfer_len)
            n->transfer_max = (uint32_t)min_u64(TRANSFER_MAX, (uint64_t)l->max_xfer_len * n->block);
        n->unmap_max = l->max_unmap;
        n->write_same_max = l->max_ws_len;
    }
    if (t)
        scsi_free_scsi_task(t);
    t = iscsi_modesense6_sync(library_of(n), (int)n->lun, 1, 0, 0x3f, 0, 255);
    const struct scsi_mode_sense *m = good(t) ? scsi_datain_unmarshall(t) : NULL;
    n->write_protected = m && (m->device_specific_parameter & 0x80);
    if (t)
        scsi_free_scsi_task(t);
}

/* On a thread of the pool: nothing else uses the session yet. */
static int open_call(void *opaque)
{
    struct iscsi_opening *o = opaque;
    if (iscsi_full_connect_sync(library_of(o->n), o->n->portal, (int)o->n->lun) != 0)
        return refuse(o, "cannot log in");
    int rc = read_capacity(o);
    if (rc == 0)
        read_limits(o->n);
    return rc;
}

static bool set_credentials(struct iscsi_node *n, GError **error)
{
    if (!n->user)
        return true;
    if (!n->password_secret)
        return ruche_error(error, RUCHE_ERR_INVALID, "iscsi: user '%s' needs password-secret",
                           n->user);
    char *password = secret_get_text(n->password_secret, error);
    if (!password)
        return false;
    int rc = iscsi_set_initiator_username_pwd(library_of(n), n->user, password);
    secret_free(password, strlen(password));
    return rc == 0 ||
           ruche_error(error, RUCHE_ERR_INVALID, "iscsi: user name or password is too long");
}

static bool set_up(struct iscsi_node *n, GError **error)
{
    static const enum iscsi_header_digest digests[] = { ISCSI_HEADER_DIGEST_NONE_CRC32C,
                                                        ISCSI_HEADER_DIGEST_CRC32C,
                                                        ISCSI_HEADER_DIGEST_NONE,
                                                        ISCSI_HEADER_DIGEST_CRC32C_NONE };
    if (!n->portal || !n->target)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "driver iscsi needs portal (HOST:PORT) and target");
    struct iscsi_context *iscsi =
        iscsi_create_context(n->initiator_name ? n->initiator_name : DEFAULT_NAME);
    if (!iscsi)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for an iSCSI session");
    n->service = (struct service){ .ctx = n->node.ctx,
                                   .library = iscsi,
                                   .fd = library_fd,
                                   .events = library_events,
                                   .handle = library_handle,
                                   .give_up = library_give_up,
                                   .timeout_ns = (int64_t)n->timeout_sec * NS_PER_SEC };
    if (iscsi_set_targetname(iscsi, n->target) != 0)
        return ruche_error(error, RUCHE_ERR_INVALID, "iscsi: target name '%s' is too long",
                           n->target);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(iscsi, digests[n->digest]);
    iscsi_set_reconnect_max_retries(iscsi, RECONNECT_MAX);
    return set_credentials(n, error);
}

static bool iscsi_node_set_read_only(struct node *node, bool read_only, GError **error)
{
    return read_only || !iscsi_of(node)->write_protected ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED, "image '%s' is write-protected",
                       node->filename);
}

static bool iscsi_node_open(struct node *node, GError **error)
{
    struct iscsi_node *n = iscsi_of(node);
    if (!set_up(n, error))
        return false;
    struct iscsi_opening o = { .n = n, .error = error };
    if (context_offload(node->ctx, open_call, &o) < 0)
        return false;
    g_free(node->filename);
    node->filename = g_strdup_printf("iscsi://%s/%s/%u", n->portal, n->target, (unsigned)n->lun);
    if (n->write_protected && node->auto_read_only)
        node->read_only = true;
    node->request_align = node->block_bytes = n->block;
    node->write_flags = NODE_FUA;
    node->zero_flags = NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    return iscsi_node_set_read_only(node, node->read_only, error);
}

static int close_call(void *opaque)
{
    struct iscsi_context *iscsi = opaque;
    if (iscsi_is_logged_in(iscsi))
        iscsi_logout_sync(iscsi);
    iscsi_destroy_context(iscsi);
    return 0;
}

static void iscsi_node_close(struct node *node)
{
    struct iscsi_node *n = iscsi_of(node);
    if (n->service.library)
        context_offload(node->ctx, close_call, n->service.library);
    n->service.library = NULL;
}

static void iscsi_node_attach(struct node *node)
{
    iscsi_of(node)->service.ctx = node->ctx;
}

static bool iscsi_node_parse_name(const char *filename, JsonObject *options, GError **error)
{
    struct iscsi_context *iscsi = iscsi_create_context(DEFAULT_NAME);
    struct iscsi_url *u = iscsi ? iscsi_parse_full_url(iscsi, filename) : NULL;
    bool ok = u != NULL;
    if (!u) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'%s' is not the name of an iSCSI unit: it is "
                    "iscsi://[USER@]HOST[:PORT]/TARGET/LUN",
                    filename);
    } else if (u->passwd[0]) {
        ok = ruche_error(error, RUCHE_ERR_INVALID,
                         "'iscsi://...': a password in a name is seen by everybody on this host; "
                         "give it as a secret (password-secret)");
    } else {
        json_object_set_string_member(options, "portal", u->portal);
        json_object_set_string_member(options, "target", u->target);
        json_object_set_int_member(options, "lun", u->lun);
        if (u->user[0])
            json_object_set_string_member(options, "user", u->user);
    }
    if (u)
        iscsi_destroy_url(u);
    if (iscsi)
        iscsi_destroy_context(iscsi);
    return ok;
}

static const char *const transport_words[] = { "tcp", NULL };
static const char *const digest_words[] = { "none-crc32c", "crc32c", "none", "crc32c-none", NULL };
static const struct image_option iscsi_options[] = {
    OPT_WORD("transport", struct iscsi_node, transport, transport_words, 0, "tcp"),
    OPT_STRING("portal", struct iscsi_node, portal, "HOST[:PORT] of the target"),
    OPT_STRING("target", struct iscsi_node, target, "Name of the target"),
    OPT_U64("lun", struct iscsi_node, lun, 0, 0, 16383, "Number of the unit"),
    OPT_STRING("user", struct iscsi_node, user, "User for CHAP"),
    OPT_STRING("password-secret", struct iscsi_node, password_secret,
               "Id of the secret that holds the password"),
    OPT_STRING("initiator-name", struct iscsi_node, initiator_name,
               "Our name (default " DEFAULT_NAME ")"),
    OPT_WORD("header-digest", struct iscsi_node, digest, digest_words, 0, "Checksums of headers"),
    OPT_U64("timeout", struct iscsi_node, timeout_sec, 0, 0, 3600,
            "Seconds of silence after which to connect again"),
    { 0 },
};

static const char *const iscsi_schemes[] = { "iscsi", NULL };
static const struct image_driver iscsi_driver = {
    .name = "iscsi",
    .summary = "Logical unit of an iSCSI target",
    .spec = "RFC 7143, SBC-3",
    .kind = DRIVER_PROTOCOL,
    .size = sizeof(struct iscsi_node),
    .schemes = iscsi_schemes,
    .open_options = iscsi_options,
    .parse_name = iscsi_node_parse_name,
    .open = iscsi_node_open,
    .close = iscsi_node_close,
    .read = iscsi_node_read,
    .write = iscsi_node_write,
    .zero = iscsi_node_zero,
    .discard = iscsi_node_discard,
    .flush = iscsi_node_flush,
    .map = iscsi_node_map,
    .set_read_only = iscsi_node_set_read_only,
    .attach = iscsi_node_attach,
};

extern const struct image_driver *const ruche_image_drivers[];
__attribute__((visibility("default")))
const struct image_driver *const ruche_image_drivers[] = { &iscsi_driver, NULL };
