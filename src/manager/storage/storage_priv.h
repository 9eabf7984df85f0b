/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the storage part share. Thread, lock and trust: pool.h. */
#pragma once

#include "manager/secret/secret.h"
#include "manager/storage/backend.h"

#include <json-glib/json-glib.h>
#include <sys/stat.h>

#define STAGE_PREFIX   ".ruche-" /* folders for what is being made; no volume is called so */
#define VOLUMES_MAX    100000    /* of one pool */
#define IMG_ANSWER_MAX (1u << 20)
#define IMG_INFO_MS    15000
#define IMG_AT_ONCE    4
#define STORAGE_RUN_MS 60000 /* a program's time */
#define REACH_MS       20000 /* of a server, to say how its file system is */

#define NO_PERMS ((struct file_perms){.mode = -1, .owner = -1, .group = -1})

/* pool_def.c: descriptions, checked and completed. */
struct pool_def {
    uint8_t uuid[16];
    bool has_uuid;
    const struct pool_backend *backend;
    struct xml_node *doc; /* canonical */
    char *name, *target;  /* target NULL: it has none */
    char *text;           /* the document as text */
    struct file_perms perms;
};
struct pool_def *pool_def_new(const char *xml, bool validate, GError **error);
void pool_def_free(struct pool_def *d);
/* Do two pools of these descriptions use the same thing? NULL: no; else what it is. */
char *pool_def_clash(const struct pool_def *a, const struct pool_def *b);
/* With figures, as dumpxml tells them (inactive: zeroes). */
char *pool_format(const struct pool *p, bool inactive);
bool perms_parse(const struct xml_node *target, const char *what, struct file_perms *ret, GError **error);
void perms_format(GString *b, const char *indent, const struct file_perms *p);
bool children_check(const struct xml_node *n, const char *const *known, GError **error);
extern const struct schema_row schema_pool; /* pool_schema.c */

/* volume_def.c */
struct volume_def {
    char *name, *format, *backing, *backing_format, *compat;
    uint64_t capacity, allocation, cluster_size; /* allocation UINT64_MAX: not given */
    struct file_perms perms;
    bool lazy_refcounts, extended_l2, nocow, has_capacity;
    bool encrypted;          /* LUKS: all of a raw image, within a qcow2 */
    GBytes *key;             /* its passphrase */
    char *secret, *ciphers;  /* the UUID of the secret; options of the format for cipher and hashes, "" or "a=b,c=d" */
    const char *partition; /* of a disk's new partition: its type; NULL: none is given */
};
/* As a pool of this type can have it. */
bool volume_def_parse(struct volume_def *d, const struct pool_backend *b, const char *xml, bool validate, GError **error);
void volume_def_done(struct volume_def *d);
char *volume_format(const struct volume *v);
bool volume_name_check(const char *name, GError **error);

/* volume_secret.c: what ruche-img calls an image that has to be unlocked by the secret object `key`, in the way of
 * "json:{...}"; of the luks driver where it is raw. */
char *encrypted_name(const char *path, const char *format, const char *key);
/* "secret,id=ID,file=PATH", the value of --object. */
char *secret_object(const char *id, const struct secret_file *f);
/* <encryption> of a new volume. */
bool volume_encryption_parse(struct volume_def *d, const struct pool_backend *b, const struct xml_node *root, GError **error);
void volume_encryption_format(GString *b, const struct volume *v);
/* The passphrase of an encrypted volume: of the secret that it was made by, or that is for its path. A reference. */
GBytes *volume_key(const struct volume *v, GError **error);
/* The value of the secret in the <auth> that a pool has. A reference; NULL with *error, which names the pool. */
GBytes *pool_password(const struct pool *p, GError **error);
/* The same in a file, for a pool with <auth>; true without one, and f->fd stays -1. */
bool pool_secret_open(const struct pool *p, struct secret_file *f, GError **error);
/* Of ruche-img: the name of the object that the pool's volume_url() speaks of, and the object. */
char *pool_secret_id(const struct pool *p);
char *pool_secret_object(const struct pool *p, const struct secret_file *f); /* NULL: it has none */
/* An image of a server, from its driver's options (taken), to which user and secret of the pool are added. */
char *pool_image_name(const struct pool *p, JsonObject *file, const char *secret_key);

/* pool_table.c */
struct pool *pool_new(struct pool_def *d); /* takes it */
void pool_insert(struct pool *p);
void pool_remove(struct pool *p); /* the table's reference goes */
GPtrArray *pool_all(void);        /* references */
void pool_emit(const struct pool *p, int id, int event);
void volume_free(struct volume *v);
/* Runs fn with the pool locked, after the right was checked, and writes the audit line. */
bool pool_operation(const struct caller *who, struct pool *p, enum right right,
                    const char *operation, bool (*fn)(struct pool *p, void *opaque, GError **error),
                    void *opaque, GError **error);
/* Looks through a running pool of a manager before us, in a task of its own. */
void pool_resume(struct pool *p);
bool pool_check_active(const struct pool *p, GError **error);
bool flags_check(const char *operation, unsigned flags, unsigned known, GError **error);

/* volume_ops.c. An operation on the pool that says which volume it was about, in the audit log too. */
bool volume_operation(const struct caller *who, struct pool *p, enum right right, const char *verb,
                      bool (*fn)(struct pool *p, void *opaque, GError **error), void *opaque,
                      const char *name, GError **error);
/* The volume, nobody else's at the moment. */
struct volume *volume_find_idle(struct pool *p, const char *name, GError **error);
/* The same, for what takes its contents: one that is still what the pool tells of it. (waits) */
struct volume *volume_find_own(struct pool *p, const char *name, GError **error);
bool volume_refuse_remote(const struct pool *p, const struct volume *v, const char *what, GError **error);
/* volume_users.c: false where it has users of these kinds; `what`: "deleted". */
bool volume_refuse_used(const struct pool *p, const struct volume *v, unsigned kinds, const char *what, GError **error);
/* Below the pool's folder, or, without one (-1), by its path. */
int volume_open_at(int dir, const char *name, int flags);

/* volume_hold.c: what is about to lose its contents. As long as the descriptor is open it is ours alone: the locks by
 * which image programs refuse one another are held, and no file system, LVM, RAID or swap begins to use a block device
 * (O_EXCL). -1 with *error, which says who uses it. Worker. */
struct hold {
    const char *what, *name; /* "volume"; below the folder, or, without one, a path */
    int dir;                 /* -1: none */
    struct volume_extent extent; /* where the kernel must have it */
};
int volume_hold(const struct hold *h, GError **error);
/* Does the kernel have a partition that was opened there? */
bool volume_check_extent(int fd, const char *name, const struct volume_extent *extent, GError **error);
/* Is the device of that path where the kernel should have it? Of an extended one, does it begin there? Small files of /sys. */
bool device_is_at(const char *path, const struct volume_extent *extent);
/* Could it be held at the moment? For what another program then does; `extent` may be NULL. (waits) */
bool device_check_free(struct pool *p, const char *what, const char *path, const struct volume_extent *extent, GError **error);

/* volume_ops.c: to the end of a job, whose reference is given up; NULL is one that failed already. */
bool storage_wait(struct job *j, char **ret_result, GError **error);

/* pool_store.c: what stays. */
bool pool_save(struct pool *p, GError **error);
bool pool_save_settings(struct pool *p, GError **error);
bool pool_save_state(struct pool *p, GError **error); /* of a running one; else takes it away */

/* volume_head.c: of one that is open. Names that XML cannot hold cannot be volumes. Worker. */
bool volume_name_can_be_told(const char *name);
void volume_take_stat(struct volume *v, const struct stat *st);
void volume_read_head(struct volume *v, int fd);

/* scan.c: the locked pool's volumes and figures as the file system has them. */
bool pool_scan(struct pool *p, GError **error);
bool pool_scan_figures(struct pool *p, GError **error);
/* A backend's scan() of a folder. */
bool folder_pool_scan(struct pool *p, GHashTable *found, struct pool_figures *ret_figures, GError **error);
/* scan_device.c. A new volume in the table of a scan, all of it allocated unless its backend says less; NULL: its name or path cannot be told in XML. */
struct volume *device_volume_new(GHashTable *volumes, const char *name, const char *path);
/* Sizes, owners and formats of block devices. What cannot be opened keeps what is known of it. */
bool device_volumes_look(struct pool *p, GHashTable *volumes, const char *what, GError **error);
/* One file and the folder's figures, as a worker sees them at the end of its own work; then what the pool knows of
 * them. look_take() waits where a program has to be asked. */
struct look {
    struct volume *volume; /* NULL: there is none of that name */
    struct pool_figures figures;
    bool seen;
};
void look_at_file(struct look *l, int dir, const char *target, const char *name); /* worker */
void look_at_folder(struct look *l, int dir); /* its figures alone; worker */
bool look_take_figures(struct look *l, struct pool *p); /* false: there are none */
bool look_take(struct look *l, struct pool *p, const char *name, GError **error);
/* One file; a volume that is gone leaves the table. */
bool volume_scan(struct pool *p, const char *name, GError **error);

/* pool_fs.c: files of a pool by its folder's descriptor. Worker threads; blocks. */
int pool_fs_open_dir(const char *target, GError **error);
/* Never outside of the folder: not by '..', not by links. -1 with errno. */
int pool_fs_open(int dir, const char *name, int flags);
bool pool_fs_build(const char *target, const struct file_perms *perms, GError **error);
bool pool_fs_apply(int fd, const char *what, const struct file_perms *perms, GError **error);
/* A folder of our own beside the volumes: locked while we live, so that the next start knows what
 * to remove. */
struct stage {
    int pool_fd, fd; /* -1: none */
    char name[32];
};
bool stage_open(struct stage *s, const char *target, GError **error);
bool stage_publish(struct stage *s, const char *name,
                   GError **error); /* the file of that name becomes a volume */
/* A file without a name in the folder, which has its name when it is published. -1 with errno: not with this file
 * system (EOPNOTSUPP and others), or *error. */
int nameless_open(int dir, int mode);
bool nameless_publish(int dir, int fd, const char *name, GError **error);
void stage_close(struct stage *s);  /* and what is left in it goes */
void stage_clean(int pool_fd);
/* Does a program hold one of the locks that image programs use? */
bool pool_fs_image_busy(int fd);

/* backend_dir.c: what types whose volumes are files share. */
bool folder_pool_build(struct pool *p, unsigned build_flags, GError **error);
bool folder_pool_remove(struct pool *p, GError **error);
extern const char *const folder_volume_formats[];

/* backend_mount.c: nothing that wipefs knows stands on the device. */
bool device_is_empty(const char *device, GError **error);
/* backend_iscsi.c: of both types. */
bool iscsi_check(struct xml_node *root, GError **error);

/* pool_docs.c: after figures have changed: over the threshold? */
void pool_watch(struct pool *p);

/* wipe.c */
bool wipe_known(unsigned algorithm);
bool wipe_file(int fd, unsigned algorithm, struct job *j, GError **error); /* worker; j may be NULL */
/* clone.c */
bool clone_raw(int from, int to, bool reflink, struct job *j, GError **error); /* worker; j may be NULL */
