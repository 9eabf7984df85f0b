/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nftables: batches of commands through libnftables, on a worker. For networks and, later, filters of interfaces.
 *
 * Spec      nft(8). A batch is one transaction: all of it or nothing.
 * Thread    Loop thread, in a task (waits); *_blocking: any other.
 * Rule      Tables of ours are called "ruche_...": nothing else is touched.
 * Errors    nft's first line, with the rule that it complains about.
 */
#pragma once

#include "base/error.h"

bool nft_apply(const char *commands, GError **error);
bool nft_apply_blocking(const char *commands, GError **error);
/* What `nft -s -t list COMMAND` prints: "table inet ruche_net_virbr0". "chains" names the tables as well, without reading all
 * rules of the host, which "tables" and "ruleset" do. */
char *nft_list(const char *what, GError **error);
char *nft_list_blocking(const char *what, GError **error);
/* One that is not there is fine. */
bool nft_delete_table(const char *family, const char *table, GError **error);
/* "ruche_net_" and a word made of `name`, which may hold any character; two names never make one. */
char *nft_table_name(const char *prefix, const char *name);
