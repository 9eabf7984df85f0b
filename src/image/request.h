/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tracked requests, for the node layer's own files. */
#pragma once

#include "image/driver.h"

/* Enters a request into the node's list and waits until it may go. (f) */
void request_begin(struct node *n, struct node_request *r, uint64_t off, uint64_t len, bool write,
                   bool serialising);
void request_end(struct node *n, struct node_request *r);
