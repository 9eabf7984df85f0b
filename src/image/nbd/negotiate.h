/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's half of the NBD handshake: from a connected socket to a known export.
 *
 * Spec      NBD protocol, "Handshake" and "Option types"; fixed newstyle, and newstyle without
 *           "fixed" as far as it goes.
 * Fiber     Waits for the peer; who wants a limit in time shuts the channel down.
 * Trust     The server is hostile: lengths are capped, replies to one option are counted, text is
 *           checked.
 * Errors    Sentences that begin with `where` and end with what the server said.
 */
#pragma once

#include "image/nbd/channel.h"
#include "image/nbd/proto.h"

/* What we want. */
struct nbd_ask {
    const char *where; /* for messages */
    const char *export;
    struct tls_creds *creds; /* NULL: no TLS */
    const char *tls_host;
    const char *context; /* the meta context for block status */
    bool need_context;   /* without it, fail */
};

/* What we got. */
struct nbd_offer {
    uint64_t size_bytes;
    uint16_t flags; /* enum nbd_export_flags */
    bool structured;
    bool has_context;
    uint32_t context_id;
    uint32_t min_block, preferred_block, max_payload; /* bytes; min is a power of two */
};

bool nbd_negotiate(struct channel *ch, const struct nbd_ask *ask, struct nbd_offer *ret,
                   GError **error);
