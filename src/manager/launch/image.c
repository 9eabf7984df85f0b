/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images that machines are cloned from: built by a recipe, fetched from a URL, or a file of the user's.
 *
 * Thread    The loop thread, in tasks. Trust: what a URL gives is looked at by ruche-img, another process.
 */
#include "manager/launch/image.h"

#include "base/util.h"
#include "manager/image_info.h"
#include "manager/store.h"

#include <errno.h>
#include <ftw.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define OUTPUT_MAX (1u << 20)
#define BUILDING ".building" /* end of a folder's name while it is filled */

static struct fiber_mutex building; /* one image at a time: two recipes would only share the disk */

void launch_image_done(struct launch_image *i)
{
    g_free(i->disk);
    g_free(i->format);
    g_free(i->kernel);
    g_free(i->initrd);
    g_free(i->default_name);
    *i = (struct launch_image){ 0 };
}

bool launch_run(struct job *j, const char *const *argv, char **ret_out, GError **error)
{
    return task_run_program_until(&j->cancelled, argv, NULL, OUTPUT_MAX, -1, ret_out, error);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    remove(path);
    return 0; /* what cannot go stays, and is tried again with the next build */
}

/* Takes a folder away with all that is in it; what a recipe was cut off in may be a whole tree of a system. */
static void remove_folder(void *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void launch_images_clean(void)
{
    g_autofree char *parent = g_build_filename(manager.state_dir, "images", NULL);
    g_autoptr(GDir) list = g_dir_open(parent, 0, NULL);
    const char *name;
    while (list && (name = g_dir_read_name(list))) {
        g_autofree char *path = g_build_filename(parent, name, NULL);
        if (g_str_has_suffix(name, BUILDING))
            remove_folder(path);
    }
}

/* What ruche-img says of the disk: its format and size. */
static bool look_at(struct job *j, struct launch_image *i, GError **error)
{
    g_auto(image_info_list) image = NULL;
    if (!image_info_ask_job(j, i->disk, &image, error))
        return false;
    i->format = g_strdup(image->format);
    i->size = image->virtual_size;
    return true;
}

static char *if_there(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    return g_file_test(path, G_FILE_TEST_EXISTS) ? g_steal_pointer(&path) : NULL;
}

static bool take_folder(struct job *j, const char *dir, struct launch_image *ret, GError **error)
{
    ret->disk = if_there(dir, "disk.img");
    ret->kernel = if_there(dir, "vmlinuz");
    ret->initrd = if_there(dir, "initrd.img");
    if (!ret->disk)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s holds no disk.img", dir);
    return look_at(j, ret, error);
}

/* A folder that `argv` fills (its last word is the folder's temporary name), then under its name at once. */
static bool fill_folder(struct job *j, const char *dir, const char **argv, unsigned dir_at, const char *suffix, GError **error)
{
    g_autofree char *temporary = g_strconcat(dir, BUILDING, NULL);
    g_autofree char *target = g_strconcat(temporary, suffix, NULL);
    task_work_long(remove_folder, temporary);
    if (g_mkdir_with_parents(temporary, 0755) < 0)
        return ruche_error_errno(error, errno, "%s could not be made", temporary);
    argv[dir_at] = target;
    bool good = launch_run(j, argv, NULL, error);
    if (good && g_rename(temporary, dir) < 0)
        good = ruche_error_errno(error, errno, "%s could not become %s", temporary, dir);
    if (!good)
        task_work_long(remove_folder, temporary);
    return good;
}

static char *images_dir(const char *name, const char *digest)
{
    g_autofree char *last = g_strdup_printf("%s-%.12s", name, digest);
    return g_build_filename(manager.state_dir, "images", last, NULL);
}

static bool from_recipe(struct job *j, const char *recipe, const char *name, struct launch_image *ret, GError **error)
{
    g_autofree char *text = store_read(recipe, 1 << 20, error);
    if (!text)
        return false;
    g_autofree char *digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
    g_autofree char *dir = images_dir(name, digest);
    const char *argv[] = { recipe, NULL, NULL };
    fiber_mutex_lock(&building);
    bool good = g_file_test(dir, G_FILE_TEST_IS_DIR);
    if (!good) {
        job_step(j, "building image '%s' (once; a few minutes)", name);
        good = fill_folder(j, dir, argv, 1, "", error);
    }
    fiber_mutex_unlock(&building);
    ret->default_name = g_strdup(name);
    ret->recipe = true;
    return good && take_folder(j, dir, ret, error);
}

/* "http://host/a/debian-12.qcow2?x" is for machines called debian-12. */
static char *name_of(const char *image)
{
    g_autofree char *path = g_strndup(image, strcspn(image, "?#"));
    g_autofree char *base = g_path_get_basename(path);
    char *dot = strrchr(base, '.');
    if (dot && dot != base)
        *dot = 0;
    g_strcanon(base, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", '-');
    return g_strdup(*base && strcmp(base, ".") != 0 ? base : "machine");
}

static bool from_url(struct job *j, const char *url, struct launch_image *ret, GError **error)
{
    g_autofree char *digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, url, -1);
    ret->default_name = name_of(url);
    g_autofree char *dir = images_dir(ret->default_name, digest);
    const char *argv[] = { manager.img, "convert", "-O", "qcow2", url, NULL, NULL };
    fiber_mutex_lock(&building);
    bool good = g_file_test(dir, G_FILE_TEST_IS_DIR);
    if (!good) {
        job_step(j, "fetching %s", url);
        good = fill_folder(j, dir, argv, 5, "/disk.img", error);
    }
    fiber_mutex_unlock(&building);
    return good && take_folder(j, dir, ret, error);
}

static char *join_words(char **words)
{
    return words && *words ? g_strjoinv(", ", words) : g_strdup("none");
}

bool launch_image_get(struct job *j, const char *image, struct launch_image *ret, GError **error)
{
    if (g_str_has_prefix(image, "http://") || g_str_has_prefix(image, "https://"))
        return from_url(j, image, ret, error);
    if (strchr(image, '/')) {
        if (!g_path_is_absolute(image))
            return ruche_error(error, RUCHE_ERR_INVALID, "image '%s': a file's path must begin with '/'", image);
        ret->disk = g_strdup(image);
        ret->default_name = name_of(image);
        return look_at(j, ret, error);
    }
    g_autofree char *recipe = g_build_filename(manager.recipes, image, NULL);
    if (store_name_check("image", image, NULL) && g_file_test(recipe, G_FILE_TEST_IS_EXECUTABLE))
        return from_recipe(j, recipe, image, ret, error);
    g_auto(GStrv) known = launch_images();
    g_autofree char *words = join_words(known);
    return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no image '%s'%s; known: %s; or give a file's path or a URL", image,
                       suggest_phrase(image, (const char *const *)known), words);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **launch_images(void)
{
    GPtrArray *names = g_ptr_array_new();
    g_autoptr(GDir) d = g_dir_open(manager.recipes, 0, NULL);
    const char *name;
    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(manager.recipes, name, NULL);
        if (g_file_test(path, G_FILE_TEST_IS_EXECUTABLE))
            g_ptr_array_add(names, g_strdup(name));
    }
    qsort(names->pdata, names->len, sizeof(void *), by_text);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}
