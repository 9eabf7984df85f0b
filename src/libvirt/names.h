/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of libvirt's procedures. Thread: any. */
#pragma once

#include <stdint.h>

/* "domain_create"; NULL: there is no such number at 9.0.0. */
const char *rpc_name(uint32_t program, uint32_t number);
