/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ground for the tests of qcow2's management: images in memory, made and judged in one line each.
 *
 * Fiber     Everything but in_fiber() is called in its fiber.
 */
#pragma once

#include "image/dirty.h"
#include "image/qcow2/internal.h"
#include "image/testbed.h"

enum { DISK = 4 * 1024 * 1024 };

extern struct bed *bed; /* of the running in_fiber() */
extern const struct bed_format qcow2_format;

/* Runs fn(arg) in a fiber, on a ground of its own. */
void in_fiber(void (*fn)(const void *arg), const void *arg);
/* Into memory://name; options as JSON; backing: a raw file in memory, or NULL. False with *error. */
bool try_create(const char *name, uint64_t size, const char *options, const char *backing,
                GError **error);
/* What follows aborts when it fails. */
void create(const char *name, uint64_t size, const char *options);
/* A reference. */
struct node *open_image(const char *name, unsigned flags);
/* Neither errors nor leaks. */
void check_clean(const char *name);
void fill(struct node *n, uint64_t off, uint64_t len, uint8_t byte);
void expect(struct node *n, uint64_t off, uint64_t len, uint8_t byte);
struct image_check check(const char *name, unsigned fix);
void snapshot(struct node *n, const char *name, uint64_t vm_state);
/* One of the driver's operations on a snapshot. */
void snapshot_do(bool (*fn)(struct node *n, const char *name, GError **error), struct node *n,
                 const char *name);
/* Persistent, enabled. */
struct dirty_bitmap *new_bitmap(struct node *n, const char *name, uint32_t granularity);
/* Options as JSON. */
void amend(struct node *n, const char *options);
