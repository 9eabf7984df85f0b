/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests of jobs: a loop, a graph, and a guest that writes to a chain of layers all the while.
 *
 * Thread    One.
 */
#pragma once

#include "image/image.h"
#include "image/job/testing.h"

#define SIZE        (8 * MIB + 512)
#define SLOTS       4
#define STRIPE      (2 * MIB)
#define WRITE_MAX   (128 * KIB)
#define PATIENCE_NS (20 * NS_PER_SEC)

struct slot {
    struct guest *guest;
    unsigned index;
    struct image_request r;
    struct iovec iov;
    uint8_t buf[WRITE_MAX];
};

/* Writes at random, each slot in a stripe of its own, and knows what it wrote. */
struct guest {
    struct image *image;
    uint8_t *shadow;
    struct slot slot[SLOTS];
    _Atomic bool stop;
    _Atomic unsigned in_flight;
    _Atomic uint64_t writes;
    _Atomic int worst; /* result of all requests */
};

struct world {
    struct loop *loop;
    struct loop *far; /* of tests with a guest on another thread */
    struct context *ctx;
    struct graph *graph;
    struct job_set *jobs;
    GString *log; /* "id:status " */
    unsigned io_errors;
    struct guest guest;
};

struct compare {
    struct node *a, *b;
    const uint8_t *bytes;
    bool equal;
};

struct chain {
    struct node *base, *mid, *top;
};

#define PUMP_UNTIL(w, condition)                                                                   \
    do {                                                                                           \
        int64_t until = loop_now_ns() + PATIENCE_NS;                                               \
        while (!(condition)) {                                                                     \
            loop_once((w)->loop, 10);                                                              \
            g_assert_cmpint(loop_now_ns(), <, until);                                              \
        }                                                                                          \
    } while (0)

extern const struct job_common usual; /* "j0", ends by itself */

void world_init(struct world *w);
void world_done(struct world *w);
void guest_begin(struct guest *g);
void guest_end(struct world *w);
bool holds(struct world *w, struct node *n, const uint8_t *bytes);
int take_shadow(void *opaque);
/* base <- mid <- top, all holding some of the same and some of their own. */
struct chain make_chain(struct world *w);
bool has(struct world *w, const char *word);
void finish(struct world *w, const char *id);
void assert_sentence(GError *error, const char *part);
struct job_copy copy_to(struct world *w, struct chain *c, enum sync_mode sync,
                        struct node **ret_target);

void add_chain_tests(void);
void add_make_tests(void);
void add_mirror_tests(void);
void add_backup_tests(void);
