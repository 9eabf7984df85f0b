/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche launch`: from the name of an image to a machine that runs, as one job.
 *
 * Stored    state_dir/images/NAME-DIGEST/: disk.img, vmlinuz, initrd.img: built or fetched once, never written again.
 *           state_dir/machines/NAME/: disk.qcow2 (thin, over the image), seed.iso (NoCloud: host name, user, keys).
 * Recipes   An image's name is a program in the folder of recipes that fills a folder it is given. The recipe's digest
 *           is part of the image's folder: a changed recipe is a new image.
 * Cut off   A folder is built under a temporary name and renamed; what a failed launch made is taken away by itself, what a
 *           killed one made at the next start, by launch_clean().
 */
#pragma once

#include "manager/domain/domain.h"
#include "manager/job.h"

struct launch_request {
    char *image;         /* a recipe's name, the path of a disk image, or its http(s) URL */
    char *name;          /* of the machine; NULL: made from the image's name */
    unsigned cpus;       /* 0: 1 */
    uint64_t memory;     /* bytes; 0: 1 GiB */
    uint64_t disk;       /* bytes; 0: the image's size, but at least 10 GiB for recipes */
    char *network;       /* NULL or "user", "none", "bridge:NAME", "network:NAME" */
    char *user;          /* who may log in; NULL: "ruche" */
    char *password;      /* NULL: none, keys only */
    char **ssh_keys;     /* lines of authorized_keys, NULL-ended; may be NULL */
    char *user_data;     /* a cloud-config text in place of what user, password and keys make */
    char *kernel, *initrd, *cmdline; /* for an image that brings none */
    bool autostart, no_start;
};
void launch_request_free(struct launch_request *r);

/* Checks the request and begins; the job's result is the machine's name. Takes `r`. NULL: *error. In a task. */
struct job *launch(const struct caller *who, struct launch_request *r, GError **error);
/* Between manager_start() and the first request: takes away what launches left that ended with us. */
void launch_clean(void);
/* Names of recipes, sorted, NULL-ended. */
char **launch_images(void);
/* Where a launched machine listens for SSH: "127.0.0.1", its port, who may log in. Does not wait. */
bool launch_ssh(const struct caller *who, struct domain *d, char **ret_host, unsigned *ret_port, char **ret_user, GError **error);
/* Takes state_dir/machines/NAME away with its files; a machine that was not launched has none. In a task. */
bool launch_remove_files(const struct caller *who, const char *name, GError **error);
