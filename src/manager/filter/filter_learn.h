/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The IPv4 addresses that an interface of a machine uses, from its frames.
 *
 * Spec      RFC 826, RFC 2131, RFC 2132 (options 51, 53, 54); CTRL_IP_LEARNING of libvirt's
 *           filters.
 * Thread    The loop thread; the sighting of one frame: any.
 * Trust     Frames are hostile. What a machine says of itself is believed by FILTER_LEARN_ANY
 *           alone, once; an answer of DHCP must have come to the machine. At most 64 frames are
 *           read in 50 ms, and the kernel keeps few more: what a machine floods is lost to it.
 */
#pragma once

#include "base/error.h"

#include <stdint.h>

enum filter_learning { FILTER_LEARN_ANY, FILTER_LEARN_DHCP, FILTER_LEARN_NONE };

struct filter_learner_of {
    enum filter_learning how;
    uint8_t mac[6];
    uint8_t server[4]; /* DHCP's only one; 0: any */
};
enum filter_sighting_kind {
    FILTER_SEEN_NOTHING,
    FILTER_SEEN_USED,     /* the machine sends from it */
    FILTER_SEEN_LEASED,   /* a server gave it to the machine */
    FILTER_SEEN_RELEASED, /* the machine gave it back */
};
struct filter_sighting {
    enum filter_sighting_kind kind;
    uint8_t ip[4];
    uint32_t seconds; /* of a lease; UINT32_MAX: for ever */
};
/* What a frame tells; `to` is one that goes to the machine. */
struct filter_sighting filter_sight(const struct filter_learner_of *of, const void *frame,
                                    size_t len, bool to);

/* Reads what the interface sends and gets until it is freed; `seen` is called for each frame that
 * tells something. */
struct filter_learner;
struct filter_learner *filter_learner_new(const char *ifname, const struct filter_learner_of *of,
                                          void (*seen)(const struct filter_sighting *s,
                                                       void *opaque),
                                          void *opaque, GError **error);
void filter_learner_free(struct filter_learner *l); /* also from `seen` */
