/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruched's configuration: the command line, then a file of groups and keys; the rest has defaults.
 *
 * Spec      docs/ruched.md.
 * Owner     config_done() frees what config_init() and config_read() made; strings are for the
 *           front doors to borrow.
 * Errors    An unknown key or a value that cannot be is an error with file, group and key: nothing
 *           is ignored.
 */
#pragma once

#include "libvirt/server.h"
#include "web/web.h"

struct config {
    /* of the command line */
    gboolean system, session, daemon, version;
    char *runtime_dir, *state_dir, *config_dir, *file;
    /* of the file */
    char *user, *group; /* whom machines run as */
    char *vmm, *img, *tls_dir, *tls_secret;
    char *host_uuid, *migration_address, *migration_host;
    char *ovsdb;                     /* address of Open vSwitch's database */
    char *ovsdb_key, *ovsdb_certificate, *ovsdb_ca;
    int start_parallel;              /* 0: by the host's CPUs */
    bool libvirt_place;              /* listen where libvirt's clients look, too */
    char *rest_socket;               /* path of the REST socket */
    char *access_group;              /* members may use the Unix sockets */
    char *libvirt_tcp, *libvirt_tls; /* "HOST:PORT" */
    char *auth[4];                   /* words: unix_rw, unix_ro, tcp, tls */
    struct libvirt_server_config libvirt;
    struct web_config web;
    char *owned[48]; /* strings of the two above */
    char **lists[4];
    unsigned owned_count, list_count;
};

/* The command line; --help answers by itself and exits through *ret_exit. */
bool config_options(struct config *c, int argc, char **argv, GError **error);
/* Sets `manager` and reads the file: --config's, or config_dir/ruched.conf where that is there. */
bool config_read(struct config *c, GError **error);
void config_done(struct config *c);
/* The keys of the file, as a text for --help. */
char *config_help(void);
