/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `virtio-blk-pci`: a disk with several queues over an image.
 *
 * Requests are in blk_request.c; blk_kept.c saves those that failed and wait.
 *
 * Spec      VIRTIO 1.2, section 5.2.
 * Thread    Queues and completions: the home loop (the main loop, or the I/O thread of iothread=),
 *           with the device's lock; the image lives on the same loop.
 */
#include "devices/virtio/blk.h"
#include "machine/backends.h"

#include <string.h>

#define AUTO UINT16_MAX
#define CONFIG_BYTES 60 /* up to write zeroes; newer headers go on */

_Static_assert(CONFIG_BYTES <= VIRTIO_CONFIG_BYTES, "the configuration has its place");

/* --- configuration --- */

#define CONFIG(field) offsetof(struct virtio_blk_config, field)

static uint8_t default_wce(const struct vblk *s)
{
    return s->write_cache != 0;
}

static void vblk_reset(struct virtio *v)
{
    struct vblk *s = container_of(v, struct vblk, v);
    v->config[CONFIG(wce)] = default_wce(s);
    vblk_kept_forget(s, -1);
}

static void vblk_queue_reset(struct virtio *v, unsigned queue)
{
    vblk_kept_forget(container_of(v, struct vblk, v), (int)queue);
}

/* The machine's: what an error kept is of a life that has ended. */
static void vblk_device_reset(struct device *d)
{
    struct vblk *s = container_of(d, struct vblk, pci.dev);
    virtio_drain(&s->v);
    loop_call(d->loop, vblk_held_forget, s);
    virtio_reset(d);
}

static void vblk_config_written(struct virtio *v, unsigned off, unsigned len)
{
    v->config[CONFIG(wce)] &= 1;
}

/* A driver without the flush feature cannot ask for durability: every write is durable. */
static void vblk_features_set(struct virtio *v)
{
    if (!virtio_has(v, VIRTIO_BLK_F_FLUSH) && !virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
        v->config[CONFIG(wce)] = 0;
}

static void fill_config(struct vblk *s)
{
    struct virtio *v = &s->v;
    uint64_t sectors = s->info.size_bytes / VBLK_SECTOR;
    uint64_t cylinders = sectors / (16 * 63);
    unsigned exponent = __builtin_ctz(s->physical_block_size / s->logical_block_size);
    uint32_t granularity =
        s->discard_granularity != UINT32_MAX ? s->discard_granularity : s->info.discard_granularity;
    VIRTIO_SET(v, CONFIG(capacity), uint64_t, sectors);
    VIRTIO_SET(v, CONFIG(seg_max), uint32_t, min_u64(s->queue_size - 2, VBLK_SEG_MAX));
    VIRTIO_SET(v, CONFIG(geometry.cylinders), uint16_t, min_u64(cylinders, 65535));
    VIRTIO_SET(v, CONFIG(geometry.heads), uint8_t, 16);
    VIRTIO_SET(v, CONFIG(geometry.sectors), uint8_t, 63);
    VIRTIO_SET(v, CONFIG(blk_size), uint32_t, s->logical_block_size);
    VIRTIO_SET(v, CONFIG(physical_block_exp), uint8_t, exponent);
    VIRTIO_SET(v, CONFIG(min_io_size), uint16_t, s->min_io_size / s->logical_block_size);
    VIRTIO_SET(v, CONFIG(opt_io_size), uint32_t, s->opt_io_size / s->logical_block_size);
    VIRTIO_SET(v, CONFIG(wce), uint8_t, default_wce(s));
    VIRTIO_SET(v, CONFIG(num_queues), uint16_t, s->num_queues);
    VIRTIO_SET(v, CONFIG(max_discard_sectors), uint32_t, VBLK_MAX_RANGE_SECTORS);
    VIRTIO_SET(v, CONFIG(max_discard_seg), uint32_t, VBLK_MAX_RANGES);
    VIRTIO_SET(v, CONFIG(discard_sector_alignment), uint32_t,
               max_u64(granularity, s->logical_block_size) / VBLK_SECTOR);
    VIRTIO_SET(v, CONFIG(max_write_zeroes_sectors), uint32_t, VBLK_MAX_RANGE_SECTORS);
    VIRTIO_SET(v, CONFIG(max_write_zeroes_seg), uint32_t, VBLK_MAX_RANGES);
    VIRTIO_SET(v, CONFIG(write_zeroes_may_unmap), uint8_t, 1);
    v->config_writable[CONFIG(wce)] = s->config_wce ? 1 : 0;
}

/* The driver hears of the new size and asks for it. Home loop, without the lock. */
static void image_resized(void *opaque)
{
    struct vblk *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    image_get_info(s->image, &s->info);
    uint64_t sectors = s->info.size_bytes / VBLK_SECTOR;
    VIRTIO_SET(&s->v, CONFIG(capacity), uint64_t, sectors);
    VIRTIO_SET(&s->v, CONFIG(geometry.cylinders), uint16_t, min_u64(sectors / (16 * 63), 65535));
    virtio_config_changed(&s->v);
    pthread_mutex_unlock(&s->pci.dev.lock);
}

static uint64_t features(const struct vblk *s)
{
    bool write = !s->info.read_only;
    return VIRTIO_F(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_F(VIRTIO_BLK_F_GEOMETRY) |
           VIRTIO_F(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_F(VIRTIO_BLK_F_TOPOLOGY) |
           VIRTIO_F(VIRTIO_BLK_F_FLUSH) | (write ? 0 : VIRTIO_F(VIRTIO_BLK_F_RO)) |
           (s->num_queues > 1 ? VIRTIO_F(VIRTIO_BLK_F_MQ) : 0) |
           (s->config_wce ? VIRTIO_F(VIRTIO_BLK_F_CONFIG_WCE) : 0) |
           (write && s->discard ? VIRTIO_F(VIRTIO_BLK_F_DISCARD) : 0) |
           (write && s->write_zeroes ? VIRTIO_F(VIRTIO_BLK_F_WRITE_ZEROES) : 0);
}

static const struct virtio_ops vblk_ops = {
    .id = VIRTIO_ID_BLOCK, .class_code = 0x01, .subclass = 0x00, .handle = vblk_handle,
    .features_set = vblk_features_set, .config_written = vblk_config_written, .reset = vblk_reset,
    .queue_reset = vblk_queue_reset, .drain = vblk_drain, .keeps_held = true,
};

/* --- life --- */

static bool block_size_ok(const char *prop, uint32_t size, GError **error)
{
    if (is_power_of_2(size) && size >= VBLK_SECTOR && size <= 32768)
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "virtio-blk-pci: %s=%u is not a power of two from 512 to 32768", prop, size);
}

static bool check_blocks(struct vblk *s, GError **error)
{
    if (!s->logical_block_size)
        s->logical_block_size = s->info.block_bytes;
    if (!s->physical_block_size)
        s->physical_block_size = max_u64(s->info.physical_block_bytes, s->logical_block_size);
    if (!block_size_ok("logical_block_size", s->logical_block_size, error) ||
        !block_size_ok("physical_block_size", s->physical_block_size, error))
        return false;
    if (s->logical_block_size < s->info.block_bytes)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "virtio-blk-pci: logical_block_size=%u is below the %u bytes that image '%s' needs",
            s->logical_block_size, s->info.block_bytes, s->info.filename);
    if (s->physical_block_size < s->logical_block_size)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "virtio-blk-pci: physical_block_size=%u is below logical_block_size=%u",
                           s->physical_block_size, s->logical_block_size);
    if (!is_power_of_2(s->queue_size) || s->queue_size < 4)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "virtio-blk-pci: queue-size=%u is not a power of two from 4 to %d",
                           s->queue_size, VQ_MAX_SIZE);
    return true;
}

static bool find_backends(struct vblk *s, GError **error)
{
    struct device *d = &s->pci.dev;
    const char *who = d->id ? d->id : "virtio-blk-pci";
    if (!s->drive)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: drive= is missing", who);
    if (s->iothread) {
        struct loop *l = backend_find(d->machine, BACKEND_IOTHREAD, who, s->iothread, error);
        if (!l)
            return false;
        d->loop = l;
    }
    struct image *i = backend_find(d->machine, BACKEND_IMAGE, who, s->drive, error);
    if (!i || !image_attach(i, d->path ? d->path : who, error))
        return false;
    s->image = i;
    image_get_info(i, &s->info);
    return true;
}

static void home_attach(void *opaque)
{
    struct vblk *s = opaque;
    const struct image_events events = { .resized = image_resized, .opaque = s };
    s->attached = image_set_loop(s->image, s->pci.dev.loop) == 0;
    image_on_batch(s->image, vblk_batch_done, s);
    image_on_event(s->image, &events);
}

static void home_detach(void *opaque)
{
    struct vblk *s = opaque;
    image_drain(s->image);
    vblk_held_forget(s);
    image_on_batch(s->image, NULL, NULL);
    image_on_event(s->image, NULL);
    image_set_loop(s->image, NULL);
}

static bool vblk_realize(struct device *d, GError **error)
{
    struct vblk *s = container_of(d, struct vblk, pci.dev);
    if (!find_backends(s, error) || !check_blocks(s, error))
        return false;
    unsigned queues = s->num_queues == AUTO ? machine_present_vcpus(d->machine) : s->num_queues;
    s->num_queues = (uint16_t)min_u64(max_u64(queues, 1), VBLK_MAX_QUEUES);
    s->request_max = s->num_queues * s->queue_size;
    loop_call(d->loop, home_attach, s);
    if (!s->attached)
        return ruche_error(error, RUCHE_ERR_STATE, "image '%s' cannot be run on this I/O thread",
                           s->info.filename);
    fill_config(s);
    const uint16_t sizes[VBLK_MAX_QUEUES] = { s->queue_size };
    return virtio_init(&s->v, &vblk_ops, features(s), s->num_queues, sizes, CONFIG_BYTES, error);
}

/* The driver knows the size that it was told. */
static bool vblk_loaded(struct device *d, GError **error)
{
    struct vblk *s = container_of(d, struct vblk, pci.dev);
    uint64_t told, has = s->info.size_bytes / VBLK_SECTOR;
    memcpy(&told, s->v.config + CONFIG(capacity), sizeof(told));
    s->v.config[CONFIG(wce)] &= 1;
    if (told == has)
        return vblk_kept_load(s, error);
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "state of device 'virtio-blk-pci' (%s): the disk has %" G_GUINT64_FORMAT
                       " sectors, and image '%s' has %" G_GUINT64_FORMAT,
                       d->id ? d->id : d->path, told, s->info.filename, has);
}

static void vblk_unrealize(struct device *d)
{
    struct vblk *s = container_of(d, struct vblk, pci.dev);
    virtio_done(&s->v);
    if (s->attached)
        loop_call(d->loop, home_detach, s);
    if (s->image)
        image_detach(s->image);
    s->image = NULL;
    vblk_kept_forget(s, -1);
    g_clear_pointer(&s->kept_state, g_byte_array_unref);
    for (struct vblk_request *r; (r = s->free_list);) {
        s->free_list = r->next;
        g_free(r);
    }
}

static const char *const on_error_words[] = { "report", "ignore", "stop", "enospc", "auto", NULL };

static const struct prop vblk_props[] = {
    PROP_STRING("drive", struct vblk, drive,
                .help = "Image, by the id of -drive or the node name of -blockdev"),
    PROP_STRING("serial", struct vblk, serial, .help = "Serial number, 20 characters"),
    PROP_STRING("iothread", struct vblk, iothread,
                .help = "I/O thread that runs the queues; the main loop by default"),
    PROP_U16("num-queues", struct vblk, num_queues, .def = AUTO, .min = 1, .max = AUTO,
             .help = "Queues; 65535: one for each vCPU, at most 64"),
    PROP_U16("queue-size", struct vblk, queue_size, .def = 256, .min = 4, .max = VQ_MAX_SIZE,
             .help = "Descriptors in a queue, a power of two"),
    PROP_U32("logical_block_size", struct vblk, logical_block_size,
             .help = "Bytes; 0: what the image needs"),
    PROP_U32("physical_block_size", struct vblk, physical_block_size,
             .help = "Bytes; 0: as the image's"),
    PROP_U32("min_io_size", struct vblk, min_io_size,
             .help = "Smallest request without loss of speed, in bytes"),
    PROP_U32("opt_io_size", struct vblk, opt_io_size, .help = "Best request size, in bytes"),
    PROP_U32("discard_granularity", struct vblk, discard_granularity, .def = UINT32_MAX,
             .help = "Bytes; 4294967295: the image's"),
    PROP_BOOL("discard", struct vblk, discard, .def = true, .help = "Offer discard"),
    PROP_BOOL("write-zeroes", struct vblk, write_zeroes, .def = true, .help = "Offer write zeroes"),
    PROP_BOOL("config-wce", struct vblk, config_wce, .def = true,
              .help = "Let the driver switch the write cache"),
    PROP_ONOFFAUTO("write-cache", struct vblk, write_cache, .def = (uint64_t)-1,
                   .help = "off: every write is durable when it ends"),
    PROP_ENUM("rerror", struct vblk, rerror, .def = 4, .words = on_error_words,
              .help = "What a failed read does; auto: what the drive says"),
    PROP_ENUM("werror", struct vblk, werror, .def = 4, .words = on_error_words,
              .help = "What a failed write does"),
    PROP_BOOL("share-rw", struct vblk, share_rw, .help = "Accepted"),
    PROP_I32("bootindex", struct vblk, bootindex, .def = (uint64_t)-1,
             .help = "Place in the boot order"),
    VIRTIO_PROPS(struct vblk),
    { 0 },
};

static const struct device_counter vblk_counters[] = {
    COUNTER(struct vblk, reads, "Reads"),
    COUNTER(struct vblk, writes, "Writes"),
    COUNTER(struct vblk, flushes, "Flushes"),
    COUNTER(struct vblk, discards, "Discards and write-zeroes"),
    COUNTER(struct vblk, others, "Other requests"),
    COUNTER(struct vblk, errors, "Requests that ended with an error"),
    COUNTER(struct vblk, starved, "Times without memory for another request"),
    VIRTIO_COUNTERS(struct vblk),
    { 0 },
};

static const struct state_field vblk_state[] = {
    STATE_BYTES(struct vblk, kept_state, VBLK_KEPT_BYTES),
    { 0 },
};

static const char *const vblk_aliases[] = { "virtio-blk", NULL };

static const struct device_type vblk_type = {
    .name = "virtio-blk-pci",
    .aliases = vblk_aliases,
    .summary = "Disk",
    .spec = "VIRTIO 1.2, section 5.2",
    .bus = BUS_PCI,
    .size = sizeof(struct vblk),
    .props = vblk_props,
    .counters = vblk_counters,
    .state = vblk_state,
    .realize = vblk_realize,
    .reset = vblk_device_reset,
    .save_before = vblk_kept_save,
    .load_after = vblk_loaded,
    .unrealize = vblk_unrealize,
};
DEVICE_TYPE(vblk_type);
