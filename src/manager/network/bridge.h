/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bridges of the kernel and their ports. Thread: workers, or where a few microseconds do not
 * matter: netlink answers at once. Errors: positive errno. */
#pragma once

#include "manager/network/network.h"

/* Only a bridge is deleted; one that is not there is fine. */
void network_bridge_delete(const char *bridge);
/* `p` (may be NULL): how the port is to be; `mac`: of its machine. */
int network_bridge_join(const char *bridge, const char *ifname, const struct network_plug *p,
                        const char *mac);
