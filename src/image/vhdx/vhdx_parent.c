/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Differencing VHDX files: the parent locator, and changing it.
 *
 * Spec      [MS-VHDX] 2.6.2.6 (parent locator): keys and values in UTF-16.
 * Trust     Names are hostile: they are bounded, must be Unicode, and are opened only as the
 *           graph's policy allows. Windows' absolute names mean nothing here; of those, the last
 *           part is looked for beside the image.
 * Crash     Locator, table and parameters change in one commit, that is, in one log entry.
 */
#include "image/vhd/parent.h"
#include "image/vhdx/vhdx.h"

#include "base/cursor.h"
#include "image/vhd/put.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define LOCATOR_MAX    (64 * KIB)
#define LOCATOR_HEAD   20u
#define LOCATOR_ENTRY  12u
#define NAME_MAX_BYTES 1023

static const uint8_t locator_type[VHDX_GUID] = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                                0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};

static char *utf16_at(const uint8_t *bytes, size_t total, uint32_t off, uint16_t len)
{
    if (!range_fits(off, len, total))
        return NULL;
    return g_convert((const char *)bytes + off, len, "UTF-8", "UTF-16LE", NULL, NULL, NULL);
}

/* The value of a key, or NULL. */
static char *locator_value(const uint8_t *bytes, size_t len, const char *key)
{
    struct cur c = cur_of(bytes, len);
    cur_take(&c, VHDX_GUID);
    cur_le16(&c);
    uint16_t count = cur_le16(&c);
    for (uint16_t i = 0; i < count && !c.bad; i++) {
        uint32_t key_off = cur_le32(&c), value_off = cur_le32(&c);
        uint16_t key_len = cur_le16(&c), value_len = cur_le16(&c);
        g_autofree char *name = c.bad ? NULL : utf16_at(bytes, len, key_off, key_len);
        if (name && !strcmp(name, key))
            return utf16_at(bytes, len, value_off, value_len);
    }
    return NULL;
}

/* ".\dir\x" to "dir/x"; "C:\dir\x" and "\\?\Volume{...}\x" to "x". */
static char *from_windows(char *name)
{
    if (name[0] == '/' || strstr(name, "://"))
        return name;
    bool absolute = g_str_has_prefix(name, "\\\\") || (g_ascii_isalpha(name[0]) && name[1] == ':');
    g_strdelimit(name, "\\", '/');
    char *from = absolute ? strrchr(name, '/') : NULL;
    from = from ? from + 1 : name;
    while (g_str_has_prefix(from, "./"))
        from += 2;
    char *ret = *from ? g_strdup(from) : NULL;
    g_free(name);
    return ret;
}

static bool load_locator(struct vhdx *v, GError **error)
{
    static const char *const keys[] = {"relative_path", "absolute_win32_path", "volume_path"};
    struct vhdx_range at = v->m.items[VHDX_PARENT_LOCATOR];
    g_autofree uint8_t *bytes = at.len <= LOCATOR_MAX ? g_malloc(at.len) : NULL;
    int r = bytes ? pages_read(v->pages, at.off, bytes, at.len) : -EFBIG;
    if (r)
        return ruche_error_errno(error, -r,
                                 "image '%s': cannot read its parent locator of %" PRIu64 " bytes",
                                 v->n.filename, at.len);
    if (memcmp(bytes, locator_type, VHDX_GUID))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': its parent locator is of an unknown kind", v->n.filename);
    for (unsigned i = 0; i < ARRAY_COUNT(keys) && !v->n.backing_file; i++) {
        char *value = locator_value(bytes, at.len, keys[i]);
        v->n.backing_file = value ? from_windows(value) : NULL;
    }
    g_autofree char *linkage = locator_value(bytes, at.len, "parent_linkage");
    v->parent_linkage = linkage ? g_ascii_strdown(linkage, -1) : NULL;
    return true;
}

/* The image below, if it is a VHDX file. */
static struct vhdx *as_vhdx(struct node *n)
{
    struct node *below = n ? node_skip_filters(n) : NULL;
    return below && !strcmp(node_format(below), "vhdx") ? vhdx_of(below) : NULL;
}

static bool check_identity(const struct vhdx *v, struct node *parent, GError **error)
{
    struct vhdx *p = as_vhdx(parent);
    char have[VHDX_GUID_TEXT];
    if (!p || !v->parent_linkage)
        return true;
    vhdx_guid_text(p->header.data_guid, have);
    return !strcmp(have, v->parent_linkage) ||
           ruche_error(error, RUCHE_ERR_INVALID,
                       "image '%s': it was made over data %s, but its parent '%s' has %s; the "
                       "parent was written to "
                       "since",
                       v->n.filename, v->parent_linkage, node_filename(parent), have);
}

bool vhdx_open_parent(struct vhdx *v, GError **error)
{
    struct node *named;
    return load_locator(v, error) && parent_open(&v->n, "vhdx", &named, error) &&
           (!named || check_identity(v, named, error));
}

/* ---- making one ---- */

struct pair {
    const char *key;
    char *key16, *value16;
    gsize key_len, value_len;
};

static bool convert(struct pair *p, const char *value)
{
    p->key16 = g_convert(p->key, -1, "UTF-16LE", "UTF-8", NULL, &p->key_len, NULL);
    p->value16 = g_convert(value, -1, "UTF-16LE", "UTF-8", NULL, &p->value_len, NULL);
    return p->key16 && p->value16;
}

static uint8_t *store_locator(const struct pair *pairs, unsigned count, size_t *ret_len)
{
    size_t at = LOCATOR_HEAD + (size_t)count * LOCATOR_ENTRY, len = at;
    for (unsigned i = 0; i < count; i++)
        len += pairs[i].key_len + pairs[i].value_len;
    uint8_t *bytes = g_malloc(len);
    struct put w = put_to(bytes, len);
    put_bytes(&w, locator_type, VHDX_GUID);
    put_le16(&w, 0);
    put_le16(&w, (uint16_t)count);
    for (unsigned i = 0; i < count; i++) {
        put_le32(&w, (uint32_t)at);
        put_le32(&w, (uint32_t)(at + pairs[i].key_len));
        put_le16(&w, (uint16_t)pairs[i].key_len);
        put_le16(&w, (uint16_t)pairs[i].value_len);
        at += pairs[i].key_len + pairs[i].value_len;
    }
    for (unsigned i = 0; i < count; i++) {
        put_bytes(&w, pairs[i].key16, pairs[i].key_len);
        put_bytes(&w, pairs[i].value16, pairs[i].value_len);
    }
    *ret_len = len;
    return bytes;
}

/* The parent's data identifier, as text. */
static bool look_at_parent(struct node *near, const char *name, char *ret, GError **error)
{
    struct node *parent = parent_look_at(near, name, "vhdx", error);
    if (!parent)
        return false;
    vhdx_guid_text(vhdx_of(parent)->header.data_guid, ret);
    node_unref(parent);
    return true;
}

uint8_t *vhdx_make_locator(struct node *near, const char *name, size_t *ret_len, GError **error)
{
    bool absolute = name[0] == '/' || strstr(name, "://");
    struct pair pairs[] = {{.key = "parent_linkage"},
                           {.key = absolute ? "absolute_win32_path" : "relative_path"}};
    char linkage[VHDX_GUID_TEXT];
    uint8_t *ret = NULL;
    if (!look_at_parent(near, name, linkage, error))
        return NULL;
    g_autofree char *path = absolute ? g_strdup(name) : g_strconcat(".\\", name, NULL);
    if (!absolute)
        g_strdelimit(path, "/", '\\');
    if (strlen(name) > NAME_MAX_BYTES || (!absolute && strchr(name, '\\')) ||
        !convert(&pairs[0], linkage) || !convert(&pairs[1], path))
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'%s' cannot be the name of a VHDX file's parent: it must be UTF-8 of at most "
                    "%d bytes, and relative "
                    "names without '\\'",
                    name, NAME_MAX_BYTES);
    else
        ret = store_locator(pairs, ARRAY_COUNT(pairs), ret_len);
    for (unsigned i = 0; i < ARRAY_COUNT(pairs); i++) {
        g_free(pairs[i].key16);
        g_free(pairs[i].value16);
    }
    return ret;
}

/* ---- changing it ---- */

static int write_parameters(struct vhdx *v, bool has_parent)
{
    uint32_t flags = (v->m.leave_allocated ? 1 : 0) | (has_parent ? 2 : 0);
    flags = GUINT32_TO_LE(flags);
    return pages_write(v->pages, v->m.items[VHDX_FILE_PARAMETERS].off + 4, &flags, sizeof(flags));
}

/* Behind all other items; or over them from the start of the item that it replaces, when it fits.
 */
static int place_item(const struct vhdx *v, size_t len, uint32_t *ret_off)
{
    uint64_t end = VHDX_TABLE_BYTES, base = v->metadata_region.off;
    for (int i = 0; i < VHDX_PARENT_LOCATOR; i++)
        if (v->m.items[i].len)
            end = max_u64(end, v->m.items[i].off - base + v->m.items[i].len);
    end = align_up(end, VHDX_PAGE);
    struct vhdx_range now = v->m.items[VHDX_PARENT_LOCATOR];
    /* The one that counts stays whole until the table says otherwise. */
    if (now.len && now.off - base < end + len)
        end = align_up(now.off - base + now.len, VHDX_PAGE);
    if (!range_fits(end, len, v->metadata_region.len))
        return -ENOSPC;
    *ret_off = (uint32_t)end;
    return 0;
}

static int write_locator(struct vhdx *v, const uint8_t *locator, size_t len)
{
    uint8_t entry[VHDX_ENTRY_BYTES], head[VHDX_ENTRY_BYTES];
    bool had = v->m.items[VHDX_PARENT_LOCATOR].len;
    unsigned index = had ? v->m.entry_of[VHDX_PARENT_LOCATOR] : v->m.entry_count;
    uint32_t off = 0;
    int r = place_item(v, len, &off);
    vhdx_metadata_entry_store(VHDX_PARENT_LOCATOR, off, (uint32_t)len, entry);
    vhdx_metadata_head_store(v->m.entry_count + !had, head);
    if (!r)
        r = pages_write(v->pages, v->metadata_region.off + off, locator, len);
    if (!r)
        r = pages_write(v->pages, v->metadata_region.off + (index + 1) * VHDX_ENTRY_BYTES, entry,
                        sizeof(entry));
    if (!r && !had)
        r = pages_write(v->pages, v->metadata_region.off, head, sizeof(head));
    return r ? r : write_parameters(v, true);
}

/* The last entry takes its place. */
static int drop_locator(struct vhdx *v)
{
    uint8_t entry[VHDX_ENTRY_BYTES], head[VHDX_ENTRY_BYTES];
    uint64_t table = v->metadata_region.off;
    unsigned last = v->m.entry_count;
    vhdx_metadata_head_store(last - 1, head);
    int r = pages_read(v->pages, table + last * VHDX_ENTRY_BYTES, entry, sizeof(entry));
    if (!r)
        r = pages_write(v->pages,
                        table + (v->m.entry_of[VHDX_PARENT_LOCATOR] + 1) * VHDX_ENTRY_BYTES, entry,
                        sizeof(entry));
    if (!r)
        r = pages_write(v->pages, table, head, sizeof(head));
    return r ? r : write_parameters(v, false);
}

/* Without a parent there are no PARTIAL blocks, and then no bitmaps. */
static int complete_blocks(struct vhdx *v)
{
    int r = 0;
    for (uint64_t i = 0; i < vhdx_payload_blocks(v) && !r; i++)
        r = vhdx_complete_block(v, i);
    return r ? r : pages_commit(v->pages);
}

static int drop_bitmaps(struct vhdx *v)
{
    int r = 0;
    uint64_t chunks = vhdx_payload_blocks(v) / v->chunk_ratio;
    for (uint64_t i = 0; i < chunks && !r; i++)
        r = vhdx_entry_write(v, vhdx_bitmap_index(v, i), 0);
    return r ? r : pages_commit(v->pages);
}

static bool drop_parent(struct vhdx *v, GError **error)
{
    int r = complete_blocks(v);
    if (!r)
        r = drop_locator(v);
    if (!r)
        r = pages_commit(v->pages);
    if (r)
        return ruche_error_errno(error, -r, "image '%s': cannot drop the parent's name",
                                 v->n.filename);
    r = drop_bitmaps(v);
    return !r || ruche_error_errno(error, -r, "image '%s': cannot drop its bitmaps", v->n.filename);
}

static bool take_parent(struct vhdx *v, const char *name, GError **error)
{
    size_t len;
    g_autofree uint8_t *locator = vhdx_make_locator(&v->n, name, &len, error);
    if (!locator)
        return false;
    uint64_t entries = vhdx_bat_entries(vhdx_payload_blocks(v), v->chunk_ratio, true);
    if (entries * 8 > v->bat.len)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "image '%s': its block table has no room for the bitmaps of a differencing VHDX",
            v->n.filename);
    int r = write_locator(v, locator, len);
    if (!r)
        r = pages_commit(v->pages);
    return !r || ruche_error_errno(error, -r, "image '%s': cannot write the parent's name",
                                   v->n.filename);
}

bool vhdx_change_backing(struct node *n, const char *name, const char *format, GError **error)
{
    struct vhdx *v = vhdx_of(n);
    if (name && format && strcmp(format, "vhdx"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': the parent of a VHDX must be a VHDX, not '%s'", n->filename,
                           format);
    if (name && v->m.leave_allocated)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "image '%s': a fixed VHDX cannot have a parent", n->filename);
    if (!name && !v->m.has_parent)
        return true;
    int r = vhdx_begin_write(v);
    if (!r)
        r = pages_commit(v->pages);
    if (r)
        return ruche_error_errno(error, -r, "image '%s': cannot be written", n->filename);
    bool ok = name ? take_parent(v, name, error) : drop_parent(v, error);
    return vhdx_load_metadata(v, n->filename, ok ? error : NULL) && ok;
}
