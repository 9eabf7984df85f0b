/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core's lists of parameters as libvirt's typed parameters, and back. Thread: any. */
#pragma once

#include "libvirt/types.h"
#include "manager/param.h"

/* Takes the strings of the list over; the list is then empty. ret: of wire_param. */
void params_to_wire(struct param_list *l, struct xdr_array *ret);
bool params_from_wire(const struct xdr_array *a, struct param_list *ret, GError **error);
/* Calls that run twice: asked for `room` 0, only the count goes out; else the first `room`. */
void params_answer(struct param_list *l, int32_t room, struct xdr_array *ret, int32_t *ret_count);
