/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Differencing images: the parent's names in the header, and what becomes of them.
 *
 * Spec      Virtual Hard Disk Image Format Specification 1.0: parent locator entries; differencing
 *           hard disks.
 * Trust     Names are hostile: they are bounded, must be Unicode, and are opened only as the
 *           graph's policy allows. Windows' absolute names mean nothing here; of those, the last
 *           part is looked for beside the image.
 * Crash     Names are written to new space, with a new header that refers to them, before the
 *           footer does.
 */
#include "image/vhd/parent.h"
#include "image/vhd/vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define CODE_RELATIVE "W2ru"
#define CODE_ABSOLUTE "W2ku"
#define CODE_URL      "MacX"
#define UTF16_MAX     (2 * (VHD_NAME_MAX + 1))

static char *from_utf16(const uint8_t *bytes, size_t len, const char *charset)
{
    g_autofree char *text =
        g_convert((const char *)bytes, (gssize)len, "UTF-8", charset, NULL, NULL, NULL);
    return text && *text ? g_steal_pointer(&text) : NULL;
}

/* ".\dir\x.vhd" to "dir/x.vhd"; "C:\dir\x.vhd" to "x.vhd". */
static char *from_windows(char *name)
{
    bool drive = g_ascii_isalpha(name[0]) && name[1] == ':';
    g_strdelimit(name, "\\", '/');
    char *from = drive || g_str_has_prefix(name, "//") ? strrchr(name, '/') : NULL;
    from = from ? from + 1 : name;
    while (g_str_has_prefix(from, "./"))
        from += 2;
    char *ret = *from ? g_strdup(from) : NULL;
    g_free(name);
    return ret;
}

static char *from_url(const uint8_t *bytes, size_t len)
{
    static const char *const prefixes[] = {"file://localhost/", "file://", "file:"};
    g_autofree char *url = g_strndup((const char *)bytes, len);
    const char *path = NULL;
    for (unsigned i = 0; i < ARRAY_COUNT(prefixes) && !path; i++)
        if (g_str_has_prefix(url, prefixes[i]))
            path = url + strlen(prefixes[i]) - (i == 0);
    while (path && g_str_has_prefix(path, "./"))
        path += 2;
    char *name = path && *path ? g_uri_unescape_string(path, NULL) : NULL;
    if (name && !g_utf8_validate(name, -1, NULL))
        g_clear_pointer(&name, g_free);
    return name;
}

/* The locator's name, or NULL. */
static char *read_locator(struct vhd *v, const char *code)
{
    struct node *file = node_file(&v->n);
    uint8_t bytes[UTF16_MAX];
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *l = &v->header.locators[i];
        if (memcmp(l->code, code, 4) || !l->len || l->len > sizeof(bytes) ||
            !range_fits(l->off, l->len, node_size(file)) || node_pread(file, l->off, bytes, l->len))
            continue;
        if (!strcmp(code, CODE_URL))
            return from_url(bytes, l->len);
        char *name = from_utf16(bytes, l->len & ~1u, "UTF-16LE");
        return name ? from_windows(name) : NULL;
    }
    return NULL;
}

static char *header_name(const struct vhd_header *h)
{
    size_t len = 0;
    while (len + 2 <= sizeof(h->parent_name) && (h->parent_name[len] || h->parent_name[len + 1]))
        len += 2;
    char *name = from_utf16(h->parent_name, len, "UTF-16BE");
    return name ? from_windows(name) : NULL;
}

static char *parent_name(struct vhd *v)
{
    char *name = read_locator(v, CODE_RELATIVE);
    if (!name)
        name = read_locator(v, CODE_URL);
    if (!name)
        name = header_name(&v->header);
    return name ? name : read_locator(v, CODE_ABSOLUTE);
}

static char *uuid_text(const uint8_t *u)
{
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < 16; i++)
        g_string_append_printf(s, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    return g_string_free(s, FALSE);
}

/* The image below, if it is a virtual hard disk that is not hidden by others. */
static struct vhd *as_vhd(struct node *n)
{
    struct node *below = n ? node_skip_filters(n) : NULL;
    return below && !strcmp(node_format(below), "vpc") ? vhd_of(below) : NULL;
}

static bool check_identity(struct vhd *v, struct node *parent, GError **error)
{
    struct vhd *p = as_vhd(parent);
    if (!p || !memcmp(p->footer.uuid, v->header.parent_uuid, 16))
        return true;
    g_autofree char *want = uuid_text(v->header.parent_uuid), *have = uuid_text(p->footer.uuid);
    return ruche_error(
        error, RUCHE_ERR_INVALID,
        "image '%s': its parent has the identifier %s, but '%s' has %s; it is another image",
        node_filename(&v->n), want, node_filename(parent), have);
}

bool vhd_open_parent(struct vhd *v, GError **error)
{
    struct node *named;
    v->n.backing_file = parent_name(v);
    return parent_open(&v->n, "vpc", &named, error) && (!named || check_identity(v, named, error));
}

uint32_t vhd_parent_time(struct node *parent)
{
    struct node *file = node_file(parent);
    struct stat st;
    if (!file || stat(node_filename(file), &st) || st.st_mtime < VHD_EPOCH_SEC)
        return 0;
    return (uint32_t)(st.st_mtime - VHD_EPOCH_SEC);
}

static void add_locator(struct vhd_header *h, const char *code, const void *bytes, size_t len,
                        uint8_t *area, uint64_t at, size_t *used)
{
    unsigned i = 0;
    while (h->locators[i].code[0])
        i++;
    struct vhd_locator *l = &h->locators[i];
    size_t space = align_up(len, VHD_SECTOR);
    g_assert(*used + space <= VHD_LOCATOR_BYTES);
    memcpy(l->code, code, 4);
    l->space = (uint32_t)space;
    l->len = (uint32_t)len;
    l->off = at + *used;
    memcpy(area + *used, bytes, len);
    *used += space;
}

static bool put_header_name(struct vhd_header *h, const char *name, GError **error)
{
    g_autofree char *base = g_path_get_basename(name);
    gsize len;
    g_autofree char *utf16 = g_convert(base, -1, "UTF-16BE", "UTF-8", NULL, &len, NULL);
    if (!utf16 || strlen(name) > VHD_NAME_MAX)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "'%s' cannot be the name of a VHD's parent: it must be UTF-8 of at most %d bytes", name,
            VHD_NAME_MAX);
    memset(h->parent_name, 0, sizeof(h->parent_name));
    memcpy(h->parent_name, utf16, MIN(len, sizeof(h->parent_name) - 2));
    return true;
}

bool vhd_name_parent(struct vhd_header *h, const char *name, struct vhd *parent, uint8_t *area,
                     uint64_t at, GError **error)
{
    size_t used = 0;
    memset(h->locators, 0, sizeof(h->locators));
    memset(area, 0, VHD_LOCATOR_BYTES);
    if (!put_header_name(h, name, error))
        return false;
    memcpy(h->parent_uuid, parent->footer.uuid, sizeof(h->parent_uuid));
    h->parent_timestamp = vhd_parent_time(&parent->n);
    bool relative = !g_path_is_absolute(name) && !strstr(name, "://");
    if (relative && !strchr(name, '\\')) {
        g_autofree char *windows = g_strconcat(".\\", name, NULL);
        gsize len;
        g_strdelimit(windows, "/", '\\');
        g_autofree char *utf16 = g_convert(windows, -1, "UTF-16LE", "UTF-8", NULL, &len, NULL);
        add_locator(h, CODE_RELATIVE, utf16, len, area, at, &used);
    }
    g_autofree char *escaped = g_uri_escape_string(name, "/:", TRUE);
    g_autofree char *url = g_strconcat(relative ? "file://./" : "file://", escaped, NULL);
    if (strlen(url) <= UTF16_MAX)
        add_locator(h, CODE_URL, url, strlen(url), area, at, &used);
    return true;
}

struct vhd *vhd_look_at_parent(struct node *near, const char *name, GError **error)
{
    struct node *parent = parent_look_at(near, name, "vpc", error);
    return parent ? vhd_of(parent) : NULL;
}

static bool io_error(struct vhd *v, int r, GError **error)
{
    return ruche_error_errno(error, -r, "image '%s': cannot write the parent's name",
                             node_filename(&v->n));
}

/* The data must not depend on a parent from the switch on: the caller has copied it. */
static bool drop_parent(struct vhd *v, GError **error)
{
    struct vhd_footer f = v->footer;
    f.type = VHD_DYNAMIC;
    int r = vhd_switch(v, &f, NULL);
    return !r || io_error(v, r, error);
}

static bool take_parent(struct vhd *v, const char *name, struct vhd *parent, GError **error)
{
    struct vhd_footer f = v->footer;
    struct vhd_header h = v->header;
    g_autofree uint8_t *area = g_malloc(VHD_LOCATOR_BYTES);
    uint64_t at;
    int r = vhd_take_space(v, VHD_HEADER_BYTES + VHD_LOCATOR_BYTES, &at);
    if (r)
        return io_error(v, r, error);
    if (!vhd_name_parent(&h, name, parent, area, at + VHD_HEADER_BYTES, error))
        return false;
    f.type = VHD_DIFFERENCING;
    f.data_offset = at;
    r = node_pwrite(node_file(&v->n), at + VHD_HEADER_BYTES, area, VHD_LOCATOR_BYTES, 0);
    if (!r)
        r = vhd_switch(v, &f, &h);
    return !r || io_error(v, r, error);
}

bool vhd_change_backing(struct node *n, const char *name, const char *format, GError **error)
{
    struct vhd *v = vhd_of(n);
    if (v->footer.type == VHD_FIXED)
        return !name ||
               ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': a fixed VHD cannot have a parent", node_filename(n));
    if (name && format && strcmp(format, "vpc"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': the parent of a VHD must be a VHD ('vpc'), not '%s'",
                           node_filename(n), format);
    int r = pages_commit(v->pages);
    if (r)
        return io_error(v, r, error);
    if (!name)
        return v->footer.type == VHD_DYNAMIC || drop_parent(v, error);
    struct vhd *parent = vhd_look_at_parent(n, name, error);
    if (!parent)
        return false;
    bool ok = take_parent(v, name, parent, error);
    node_unref(&parent->n);
    return ok;
}
