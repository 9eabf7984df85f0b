/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines: disks as nodes and devices; see vm_args.h.
 *
 * A disk 'vda' has the nodes "disk-vda" (format), "disk-vda-file" (where it is), and for its
 * backing chain, as it was found out before and written into <backingStore>, "disk-vda-1",
 * "disk-vda-1-file" and on. Nothing is probed or opened by a name that an image has in it.
 */
#include "manager/domain/vm_args.h"

#include "manager/domain/def_chain.h"
#include "manager/domain/vm_spawn.h"
#include "manager/error.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define MAX_CHAIN 200 /* as libvirt's */

char *vm_disk_node(const struct xml_node *disk)
{
    return def_chain_node(disk, disk);
}

static void set(JsonObject *o, const char *key, const char *value)
{
    if (value)
        json_object_set_string_member(o, key, value);
}

static void take_object_text(struct vm_args *a, const char *option, JsonObject *o)
{
    g_autoptr(JsonNode) n = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(n, o);
    g_autofree char *text = json_to_string(n, FALSE);
    args_add(a, option, text);
}

/* ---- where images are ---- */

struct layer {
    const struct xml_node *disk, *source; /* <source> */
    const char *type, *format;    /* 'file'...; 'qcow2'... */
    const char *node;             /* of the format */
    bool write, direct, behind;   /* behind: another image of the disk stands on it */
};

static bool file_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    bool device = !strcmp(l->type, "block");
    const char *path = xml_get(l->source, device ? "@dev" : "@file");
    if (!path || !*path)
        return ruche_error(error, RUCHE_ERR_XML, "disk '%s' has no source",
                           xml_get_or(l->disk, "target@dev", ""));
    g_autofree char *passed = args_file(a, path, l->write, false, l->direct, error);
    set(o, "driver", device ? "host_device" : "file");
    set(o, "filename", passed);
    set(o, "aio", xml_get(l->disk, "driver@io"));
    return passed != NULL;
}

/* The first <host> as an address. */
static JsonObject *host_address(const struct xml_node *source, const char *default_port)
{
    const struct xml_node *h = xml_find(source, "host");
    JsonObject *o = json_object_new();
    if (xml_is(h, "@transport", "unix")) {
        set(o, "type", "unix");
        set(o, "path", xml_get(h, "@socket"));
    } else {
        set(o, "type", "inet");
        set(o, "host", h ? xml_get_or(h, "@name", "") : "");
        set(o, "port", h ? xml_get_or(h, "@port", default_port) : default_port);
    }
    return o;
}

/* <auth> of the source, or of the disk: who we are, and a secret that proves it. */
static bool add_auth(struct vm_args *a, const struct layer *l, enum secret_usage usage,
                     const char *key, JsonObject *o, GError **error)
{
    const struct xml_node *auth = xml_find(l->source, "auth");
    auth = auth || l->behind ? auth : xml_find(l->disk, "auth");
    if (!auth)
        return true;
    g_autofree char *node = g_strconcat(l->node, "-auth", NULL);
    g_autofree char *id = args_secret(a, l->disk, node, xml_find(auth, "secret"), usage, error);
    set(o, "user", xml_get(auth, "@username"));
    set(o, key, id);
    return id != NULL;
}

static bool nbd_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    if (xml_is(l->source, "@tls", "yes")) {
        g_autofree char *id = args_tls(a, l->disk, l->node, error);
        if (!id)
            return false;
        set(o, "tls-creds", id);
        set(o, "tls-hostname", xml_get(l->source, "@tlsHostname"));
    }
    json_object_set_object_member(o, "server", host_address(l->source, "10809"));
    set(o, "export", xml_get(l->source, "@name"));
    return true;
}

static bool url_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    const struct xml_node *h = xml_find(l->source, "host");
    const char *protocol = xml_get_or(l->source, "@protocol", "http"),
               *port = h ? xml_get(h, "@port") : NULL;
    g_autofree char *url =
        g_strdup_printf("%s://%s%s%s/%s", protocol, h ? xml_get_or(h, "@name", "") : "",
                        port ? ":" : "", port ? port : "", xml_get_or(l->source, "@name", ""));
    set(o, "url", url);
    return true;
}

/* name='IQN/LUN' */
static bool iscsi_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    const struct xml_node *h = xml_find(l->source, "host");
    g_auto(GStrv) name = g_strsplit(xml_get_or(l->source, "@name", ""), "/", 2);
    g_autofree char *portal = g_strdup_printf("%s:%s", h ? xml_get_or(h, "@name", "") : "",
                                              h ? xml_get_or(h, "@port", "3260") : "3260");
    set(o, "portal", portal);
    set(o, "target", name[0]);
    json_object_set_int_member(o, "lun",
                               name[0] && name[1] ? g_ascii_strtoll(name[1], NULL, 10) : 0);
    set(o, "transport", "tcp");
    set(o, "initiator-name", xml_get(l->source, "initiator/iqn@name"));
    return add_auth(a, l, SECRET_ISCSI, "password-secret", o, error);
}

/* The monitors, as ceph.conf has them: ruche-vmm takes its words. */
static void set_monitors(const struct layer *l, JsonObject *o)
{
    g_autoptr(GString) s = g_string_new(NULL);
    for (const struct xml_node *h = xml_find(l->source, "host"); h; h = xml_next(h)) {
        const char *name = xml_get_or(h, "@name", "");
        g_string_append_printf(s, strchr(name, ':') ? "%s[%s]:%s" : "%s%s:%s", s->len ? "," : "",
                               name, xml_get_or(h, "@port", "6789"));
    }
    if (!s->len)
        return;
    JsonObject *values = json_object_new();
    json_object_set_string_member(values, "mon_host", s->str);
    json_object_set_object_member(o, "conf-values", values);
}

static void set_servers(const struct layer *l, JsonObject *o)
{
    JsonArray *servers = json_array_new();
    for (struct xml_node *h = xml_find(l->source, "host"); h; h = xml_next(h)) {
        JsonObject *s = json_object_new();
        set(s, "host", xml_get(h, "@name"));
        set(s, "port", xml_get_or(h, "@port", "6789"));
        json_array_add_object_element(servers, s);
    }
    json_object_set_array_member(o, "server", servers);
}

/* name='POOL/IMAGE' */
static bool rbd_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    g_auto(GStrv) name = g_strsplit(xml_get_or(l->source, "@name", ""), "/", 2);
    set(o, "pool", name[0]);
    set(o, "image", name[0] ? name[1] : NULL);
    set(o, "conf", xml_get(l->source, "config@file"));
    set(o, "snapshot", xml_get(l->source, "snapshot@name"));
    if (a->ours)
        set_monitors(l, o);
    else
        set_servers(l, o);
    return add_auth(a, l, SECRET_CEPH, "key-secret", o, error);
}

static bool nfs_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    JsonObject *server = json_object_new();
    set(server, "type", "inet");
    set(server, "host", xml_get(l->source, "host@name"));
    json_object_set_object_member(o, "server", server);
    set(o, "path", xml_get(l->source, "@name"));
    return true;
}

static const struct {
    const char *protocol;
    bool (*fn)(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error);
} protocols[] = {
    {"nbd", nbd_node},  {"http", url_node},    {"https", url_node}, {"ftp", url_node},
    {"ftps", url_node}, {"iscsi", iscsi_node}, {"rbd", rbd_node},   {"nfs", nfs_node},
};

static bool network_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    const char *protocol = xml_get_or(l->source, "@protocol", "");
    for (size_t i = 0; i < G_N_ELEMENTS(protocols); i++)
        if (!strcmp(protocols[i].protocol, protocol)) {
            set(o, "driver", protocol);
            return protocols[i].fn(a, l, o, error);
        }
    return args_word_error(l->disk, "protocol", protocol, error);
}

static bool storage_node(struct vm_args *a, const struct layer *l, JsonObject *o, GError **error)
{
    if (!strcmp(l->type, "file") || !strcmp(l->type, "block"))
        return file_node(a, l, o, error);
    if (!strcmp(l->type, "network"))
        return network_node(a, l, o, error);
    return args_word_error(l->disk, "type", l->type, error);
}

/* ---- nodes ---- */

static void add_cache(const struct xml_node *disk, JsonObject *o)
{
    const char *mode = xml_get_or(disk, "driver@cache", "default");
    if (!strcmp(mode, "default"))
        return;
    JsonObject *c = json_object_new();
    json_object_set_boolean_member(c, "direct",
                                   !strcmp(mode, "none") || !strcmp(mode, "directsync"));
    json_object_set_boolean_member(c, "no-flush", !strcmp(mode, "unsafe"));
    json_object_set_object_member(o, "cache", c);
}

static void add_discard(const struct xml_node *disk, JsonObject *o)
{
    set(o, "discard", xml_get(disk, "driver@discard"));
    set(o, "detect-zeroes", xml_get(disk, "driver@detect_zeroes"));
}

/* <encryption>: a raw image is LUKS as a whole, a qcow2 has it within. *ret_id: its secret; NULL:
 * it is not encrypted. */
static bool find_key(struct vm_args *a, const struct layer *l, char **ret_id, GError **error)
{
    const struct xml_node *e = xml_find(l->source, "encryption");
    e = e || l->behind ? e : xml_find(l->disk, "encryption");
    if (!e)
        return true;
    const char *format = xml_get_or(e, "@format", ""), *engine = xml_get_or(e, "@engine", "qemu");
    if (strcmp(format, "luks") != 0)
        return args_word_error(l->disk, "encryption", format, error);
    if (strcmp(engine, "qemu") != 0)
        return args_word_error(l->disk, "an engine of encryption", engine, error);
    if (strcmp(l->format, "raw") != 0 && strcmp(l->format, "qcow2") != 0)
        return args_word_error(l->disk, "encryption in format", l->format, error);
    g_autofree char *node = g_strconcat(l->node, "-key", NULL);
    *ret_id = args_secret(a, l->disk, node, xml_find(e, "secret"), SECRET_VOLUME, error);
    return *ret_id != NULL;
}

static void set_format(const struct layer *l, const char *key, JsonObject *o)
{
    bool raw = !strcmp(l->format, "raw");
    set(o, "driver", key && raw ? "luks" : l->format);
    if (key && raw)
        set(o, "key-secret", key);
    if (!key || raw)
        return;
    JsonObject *e = json_object_new();
    set(e, "format", "luks");
    set(e, "key-secret", key);
    json_object_set_object_member(o, "encrypt", e);
}

/* One image: its file's node and its format's. `below` is the next of the chain. */
static bool add_layer(struct vm_args *a, const struct layer *l, const char *below, GError **error)
{
    g_autofree char *file = g_strconcat(l->node, "-file", NULL), *key = NULL;
    if (!find_key(a, l, &key, error))
        return false;
    JsonObject *o = json_object_new();
    set(o, "node-name", file);
    if (!storage_node(a, l, o, error)) {
        json_object_unref(o);
        return false;
    }
    /* An image that is behind another is only read, until a commit writes to it. One that the guest
     * writes to is open for both throughout: QEMU leaves locks on a descriptor of a set that it has
     * changed for another. */
    if (!l->write)
        json_object_set_boolean_member(o, l->behind ? "auto-read-only" : "read-only", TRUE);
    add_cache(l->disk, o);
    set(o, "discard", xml_get(l->disk, "driver@discard"));
    take_object_text(a, "-blockdev", o);
    o = json_object_new();
    set(o, "node-name", l->node);
    json_object_set_boolean_member(o, "read-only", !l->write);
    add_cache(l->disk, o);
    add_discard(l->disk, o);
    set_format(l, key, o);
    set(o, "file", file);
    if (below)
        set(o, "backing", below);
    else if (strcmp(l->format, "raw"))
        json_object_set_null_member(o, "backing");
    take_object_text(a, "-blockdev", o);
    return true;
}

static bool has_backing(const char *format)
{
    static const char *const formats[] = {"qcow2", "qcow", "qed", "vmdk", "vhdx", "vpc", NULL};
    return g_strv_contains(formats, format);
}

/* A volume of a pool is what it was found to be: vm_volume.c. */
static const char *source_type(const struct xml_node *layer)
{
    const char *type = xml_get_or(layer, "@type", "file");
    if (strcmp(type, "volume") != 0)
        return type;
    return xml_get(layer, "source@protocol") ? "network"
           : xml_get(layer, "source@dev")    ? "block"
           : xml_get(layer, "source@file")   ? "file"
                                             : type;
}

/* From the end of the chain to the disk itself. */
static bool add_chain(struct vm_args *a, const struct xml_node *disk, const struct xml_node *layer,
                      unsigned depth, bool write, GError **error)
{
    const struct xml_node *backing = xml_find(layer, "backingStore");
    g_autofree char *base = vm_disk_node(disk);
    g_autofree char *node = depth ? g_strdup_printf("%s-%u", base, depth) : g_strdup(base);
    g_autofree char *below = g_strdup_printf("%s-%u", base, depth + 1);
    bool more = backing && xml_find(backing, "source");
    if (depth == MAX_CHAIN)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s': its backing chain is longer than %d images",
                           xml_get_or(disk, "target@dev", ""), MAX_CHAIN);
    if (more && !add_chain(a, disk, backing, depth + 1, false, error))
        return false;
    const char *cache = xml_get_or(disk, "driver@cache", "");
    struct layer l = {.disk = disk,
                      .node = node,
                      .source = xml_find(layer, "source"),
                      .type = source_type(layer),
                      .format = depth ? xml_get_or(layer, "format@type", "raw")
                                      : xml_get_or(disk, "driver@type", "raw"),
                      .write = write,
                      .behind = depth > 0,
                      .direct = !strcmp(cache, "none") || !strcmp(cache, "directsync")};
    if (more && !has_backing(l.format))
        return args_word_error(disk, "a backing file of format", l.format, error);
    return add_layer(a, &l, more ? below : NULL, error);
}

/* ---- devices ---- */

static void scsi_place(GString *s, const struct xml_node *disk)
{
    opt_addf(s, "bus", "scsi%u.0", (unsigned)xml_get_u64(disk, "address@controller", 0));
    opt_add(s, "channel", "0");
    opt_add(s, "scsi-id", xml_get_or(disk, "address@target", "0"));
    opt_add(s, "lun", xml_get_or(disk, "address@unit", "0"));
}

static void ide_place(GString *s, const struct xml_node *disk)
{
    opt_addf(s, "bus", "ide.%u", (unsigned)xml_get_u64(disk, "address@bus", 0));
    opt_add(s, "unit", xml_get_or(disk, "address@unit", "0"));
}

static void sata_place(GString *s, const struct xml_node *disk)
{
    unsigned controller = (unsigned)xml_get_u64(disk, "address@controller", 0);
    g_autofree char *bus = controller ? g_strdup_printf("sata%u", controller) : g_strdup("ide");
    opt_addf(s, "bus", "%s.%u", bus, (unsigned)xml_get_u64(disk, "address@unit", 0));
}

static void usb_place(GString *s, const struct xml_node *disk)
{
    unsigned bus = (unsigned)xml_get_u64(disk, "address@bus", 0);
    opt_add(s, "bus", bus ? NULL : "usb.0");
    if (bus)
        opt_addf(s, "bus", "usb%u.0", bus);
    opt_add(s, "port", xml_get(disk, "address@port"));
    opt_add(s, "removable", xml_is(disk, "target@removable", "on") ? "on" : "off");
}

/* There is one controller, and no other bus of its kind. */
static void floppy_place(GString *s, const struct xml_node *disk)
{
    opt_add(s, "unit", xml_get_or(disk, "address@unit", "0"));
}

/* It is the controller that has the order of its drives. */
static void add_floppy_boot(struct vm_args *a, const struct xml_node *disk)
{
    unsigned place = args_boot_place(a, disk);
    g_autofree char *text = g_strdup_printf(
        "isa-fdc.bootindex%c=%u", xml_get_u64(disk, "address@unit", 0) ? 'B' : 'A', place);
    if (place)
        args_add(a, "-global", text);
}

/* What scsi-block and floppies have not got: the first has it of the device behind it. */
static void add_drive_words(GString *s, const struct xml_node *disk)
{
    const char *cache = xml_get_or(disk, "driver@cache", "default");
    if (strcmp(cache, "default"))
        opt_add(s, "write-cache",
                !strcmp(cache, "writethrough") || !strcmp(cache, "directsync") ? "off" : "on");
    opt_add(s, "serial", xml_get(disk, "serial"));
    opt_add(s, "logical_block_size", xml_get(disk, "blockio@logical_block_size"));
    opt_add(s, "physical_block_size", xml_get(disk, "blockio@physical_block_size"));
}

static const struct {
    const char *bus, *device, *type; /* of the description; QEMU's */
    void (*place)(GString *s, const struct xml_node *disk);
} drives[] = {
    {"virtio", "disk", "virtio-blk-pci", NULL}, {"scsi", "disk", "scsi-hd", scsi_place},
    {"scsi", "cdrom", "scsi-cd", scsi_place},   {"scsi", "lun", "scsi-block", scsi_place},
    {"ide", "disk", "ide-hd", ide_place},       {"ide", "cdrom", "ide-cd", ide_place},
    {"sata", "disk", "ide-hd", sata_place},     {"sata", "cdrom", "ide-cd", sata_place},
    {"usb", "disk", "usb-storage", usb_place},  {"usb", "cdrom", "usb-storage", usb_place},
    {"fdc", "floppy", "floppy", floppy_place},
};

static void add_virtio_words(struct vm_args *a, GString *s, const struct xml_node *disk)
{
    const char *io = xml_get(disk, "driver@iothread");
    if (io)
        opt_addf(s, "iothread", "iothread%s", io);
    opt_add(s, "num-queues", xml_get(disk, "driver@queues"));
    opt_add(s, "queue-size", xml_get(disk, "driver@queue_size"));
    opt_on_off(s, "event_idx", disk, "driver@event_idx");
    opt_on_off(s, "ioeventfd", disk, "driver@ioeventfd");
    opt_on_off(s, "packed", disk, "driver@packed");
}

static const char *error_word(const char *policy)
{
    return !strcmp(policy, "enospace") ? "enospc" : policy;
}

static void add_device(struct vm_args *a, const struct xml_node *disk, size_t drive, bool has_image)
{
    GString *s = opt_new(drives[drive].type);
    if (drives[drive].place)
        drives[drive].place(s, disk);
    else
        args_address(a, s, disk);
    if (!strcmp(drives[drive].bus, "virtio"))
        add_virtio_words(a, s, disk);
    if (has_image) {
        g_autofree char *node = vm_disk_node(disk);
        opt_add(s, "drive", node);
    }
    opt_add(s, "id", args_alias(disk));
    if (!strcmp(drives[drive].device, "floppy"))
        add_floppy_boot(a, disk);
    else
        args_boot_index(a, s, disk);
    if (!strcmp(drives[drive].device, "disk") || !strcmp(drives[drive].device, "cdrom"))
        add_drive_words(s, disk);
    opt_add(s, "share-rw", xml_find(disk, "shareable") ? "on" : NULL);
    const char *policy = xml_get(disk, "driver@error_policy"),
               *read_policy = xml_get(disk, "driver@rerror_policy");
    if (policy)
        opt_add(s, "werror", error_word(policy));
    if (policy || read_policy) /* enospace is for writes alone */
        opt_add(s, "rerror",
                read_policy                   ? read_policy
                : !strcmp(policy, "enospace") ? "report"
                                              : policy);
    args_take_device(a, s);
}

static bool add_disk(struct vm_args *a, const struct xml_node *disk, GError **error)
{
    const char *bus = xml_get_or(disk, "target@bus", "virtio"),
               *device = xml_get_or(disk, "@device", "disk");
    const struct xml_node *source = xml_find(disk, "source");
    bool has_image = source && (xml_get(source, "@file") || xml_get(source, "@dev") ||
                                xml_get(source, "@protocol") || xml_get(source, "@pool"));
    bool write = !xml_find(disk, "readonly") && !xml_is(disk, "@device", "cdrom");
    if (has_image && !add_chain(a, disk, disk, 0, write, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(drives); i++)
        if (!strcmp(drives[i].bus, bus) && !strcmp(drives[i].device, device)) {
            add_device(a, disk, i, has_image);
            return true;
        }
    return args_word_error(disk, "bus", bus, error);
}

bool args_disks(struct vm_args *a, GError **error)
{
    for (struct xml_node *d = xml_find(a->devices, "disk"); d; d = xml_next(d))
        if (!add_disk(a, d, error))
            return false;
    return true;
}
