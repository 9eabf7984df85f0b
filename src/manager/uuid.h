/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UUIDs as 16 bytes and as text. Spec: RFC 9562; libvirt's reading: dashes and blanks where one likes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT_BYTES 37

/* 32 hex digits with any '-' and ' ' between them; ret stays untouched on failure. */
bool uuid_parse(const char *text, uint8_t ret[16]);
void uuid_format(const uint8_t uuid[16], char ret[UUID_TEXT_BYTES]);
void uuid_random(uint8_t ret[16]); /* version 4 */
/* Not all bytes the same: what firmware puts where it has none. */
bool uuid_is_valid(const uint8_t uuid[16]);
/* For GHashTable: keys point at the 16 bytes. */
unsigned uuid_hash(const void *uuid);
int uuid_equal(const void *a, const void *b);
