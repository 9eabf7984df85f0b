/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside launch/: images and seeds. All in a task. */
#pragma once

#include "manager/launch/launch.h"

/* Of the element in a machine's metadata that says how it was launched. */
#define LAUNCH_NAMESPACE "urn:ruche:launch"

/* An image that is there, whole. */
struct launch_image {
    char *disk, *format;          /* path; "raw", "qcow2" ... */
    char *kernel, *initrd;        /* NULL: it brings none */
    uint64_t size;                /* as the guest sees it */
    char *default_name;           /* for machines */
    bool recipe;
};
void launch_image_done(struct launch_image *i);
/* Builds or fetches what is not there yet; two at a time for the same image wait for each other. */
bool launch_image_get(struct job *j, const char *image, struct launch_image *ret, GError **error);

/* Half-built folders of images are taken away. */
void launch_images_clean(void);

/* state_dir/machines/NAME/seed.iso */
bool launch_seed_make(const struct launch_request *r, const char *name, const char *path, GError **error);
/* The machine's XML. */
char *launch_xml(const struct launch_request *r, const char *name, const struct launch_image *i, const char *disk,
                 const char *seed, unsigned ssh_port);
/* A program of the job: ends it when the job is cancelled. */
bool launch_run(struct job *j, const char *const *argv, char **ret_out, GError **error);
