/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside the node layer: the graph's lists, and what its files offer each other. */
#pragma once

#include "image/driver.h"

#include <pthread.h>

struct graph {
    struct context *ctx;         /* borrowed: for new nodes */
    struct node *first, *last;   /* all nodes, oldest first */
    graph_policy_fn *policy;     /* NULL: the default */
    void *policy_opaque;
    struct image_files *files;   /* borrowed: of the image that is being made, or NULL */
    unsigned patience_sec;       /* 0: for ever */
    unsigned next_auto;          /* for "#block123" */
    bool timed;                  /* requests are; set by any thread */
    pthread_mutex_t lock;        /* the list, next_auto and drained; several threads serve nodes */
    GHashTable *drained;         /* context to the depth of its drained sections */
};

/* graph.c: false when the name is taken, too long, or malformed. A NULL name gets an automatic one. */
bool graph_add(struct graph *g, struct node *n, const char *name, GError **error);
void graph_remove(struct node *n);
/* A new node in a drained section: its driver is told. */
void graph_enter_drained(struct node *n);
bool graph_allows(const struct node *parent, const char *filename, GError **error);
/* How many drained sections of c are open. */
unsigned graph_drain_depth(struct graph *g, const struct context *c);
/* Is `below` n itself or reachable from it? */
bool node_reaches(const struct node *n, const struct node *below);
/* Who else uses n would be in the way of `perms`, or mind what does not stand in `shared`? `self_link`,
 * `self_user`: not asked. */
bool node_perms_fit(struct node *n, unsigned perms, unsigned shared, const char *who,
                    const struct node_child *self_link, const struct node_user *self_user,
                    GError **error);

/* name.c: options of a name that a person or an image gives. NULL with *error. */
JsonObject *name_to_options(const char *filename, GError **error);
/* A deep copy. */
JsonObject *options_copy(JsonObject *from);

/* open.c: what n does to a child of that role, and lets others do. */
unsigned node_child_perms(const struct node *n, enum child_role role, unsigned *ret_shared);
