/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: consoles and channels as streams, and the qemu program: commands to the monitor and the
 * guest agent as they are. Thread: the loop thread. */
#include "libvirt/frame.h"
#include "libvirt/object.h"
#include "libvirt/stream.h"

enum { FORCE = 1, SAFE = 2, HMP = 1 };

static bool open_console(struct rpc_call *c, struct domain *d, const struct a_domain_word_flags *a,
                         bool channel, GError **error)
{
    if (!object_flags(a->flags, channel ? FORCE : FORCE | SAFE,
                      channel ? "domain_open_channel" : "domain_open_console", error))
        return false;
    int fd = domain_open_console(c->who, d, a->text, a->flags & FORCE, channel, error);
    if (fd < 0)
        return false;
    stream_new_duplex(c, fd);
    return true;
}
DOMAIN_PROC(domain_open_console, 201, RPC_STREAM, a_domain_word_flags,
            open_console(c, d, a, false, error));
DOMAIN_PROC(domain_open_channel, 296, RPC_STREAM, a_domain_word_flags,
            open_console(c, d, a, true, error));

DOMAIN_PROC(qemu_domain_monitor_command, 1, 0, a_domain_text_flags,
            object_flags(a->flags, HMP, "domain_monitor_command", error) &&
                object_text(ret, domain_monitor_command(c->who, d, a->text, a->flags &HMP, error)),
            RET(r_text), .program = PROGRAM_QEMU);

struct agent_command {
    struct wire_domain dom;
    char *text;
    int32_t timeout;
    uint32_t flags;
};
static const struct xdr_row agent_command_xdr[] = {
    XDR_SUB(struct agent_command, dom, wire_domain_xdr), XDR_F(STRING, struct agent_command, text),
    XDR_F(INT, struct agent_command, timeout), XDR_F(UINT, struct agent_command, flags), XDR_DONE};
struct agent_answer {
    char *text;
};
static const struct xdr_row agent_answer_xdr[] = {XDR_F(STRING_OPT, struct agent_answer, text),
                                                  XDR_DONE};
DOMAIN_PROC(qemu_domain_agent_command, 3, 0, agent_command,
            object_flags(a->flags, 0, "domain_agent_command", error) &&
                object_text(ret, domain_agent_command(c->who, d, a->text, a->timeout, error)),
            RET(agent_answer), .program = PROGRAM_QEMU);

/* ---- with descriptors: the first goes to the monitor ---- */

static bool monitor_command_fd(struct rpc_call *c, struct domain *d,
                               const struct a_domain_text_flags *a, void *ret, GError **error)
{
    if (!object_flags(a->flags, HMP, "domain_monitor_command_with_files", error))
        return false;
    if (c->fd_count > 1 || (c->fd_count && (a->flags & HMP)))
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "a monitor takes one descriptor at a time, with a command in JSON");
    if (!c->fd_count)
        return object_text(ret, domain_monitor_command(c->who, d, a->text, a->flags & HMP, error));
    return object_text(ret, domain_monitor_command_fd(c->who, d, a->text, c->fds[0], error));
}
DOMAIN_PROC(qemu_domain_monitor_command_with_files, 7, 0, a_domain_text_flags,
            monitor_command_fd(c, d, a, ret, error), RET(r_text), .program = PROGRAM_QEMU);
