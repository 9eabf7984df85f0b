/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Settings of the `user` backend: from options to what libslirp wants.
 *
 * Thread    Main thread.
 * Errors    Sentences that name the netdev, the option and the value.
 */
#pragma once

#include "base/cursor.h"
#include "netdev/netdev.h"

#include <libslirp.h>

struct user_settings {
    bool ipv4, ipv6, restricted;
    struct in_addr net, mask, host, dhcp_start, dns;
    struct in6_addr net6, host6, dns6;
    unsigned prefix6;
    /* borrowed from the options */
    const char *hostname, *tftp, *tftp_server_name, *bootfile, *domainname;
    GPtrArray *search;  /* borrowed strings, NULL-ended; NULL: none */
};

bool user_settings_parse(const char *id, const struct netdev_config *c, struct user_settings *ret,
                         GError **error);
void user_settings_done(struct user_settings *s);
/* All hostfwd= and guestfwd= options; hostfwd binds its port at once. */
bool user_forwards_add(const char *id, const struct netdev_config *c, Slirp *slirp, GError **error);
/* One rule, as hostfwd= says it: also for hostfwd_add at run time. */
bool user_hostfwd_add(const char *id, Slirp *slirp, const char *rule, GError **error);

/* user_state.c: what the guest relies on, as a line of text; g_malloc'd. A state loads only where it is the same. */
char *user_network_text(const struct user_settings *s);
bool user_state_save(const char *id, Slirp *slirp, const char *network, GByteArray *out, GError **error);
/* Takes its part off the cursor. */
bool user_state_load(const char *id, Slirp *slirp, const char *network, struct cur *c, GError **error);
