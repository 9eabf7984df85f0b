/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The small virtio driver: PCI capabilities, configuration, rings. */
#include "virtio.h"

#define CAP_COMMON 1
#define CAP_NOTIFY 2
#define CAP_ISR 3
#define CAP_DEVICE 4

uint32_t vc_read(struct virtio *d, unsigned off, unsigned size)
{
    volatile uint8_t *p = d->common + off;
    return size == 1 ? *p : size == 2 ? *(volatile uint16_t *)p : *(volatile uint32_t *)p;
}

void vc_write(struct virtio *d, unsigned off, unsigned size, uint64_t v)
{
    volatile uint8_t *p = d->common + off;
    if (size == 1)
        *p = (uint8_t)v;
    else if (size == 2)
        *(volatile uint16_t *)p = (uint16_t)v;
    else
        *(volatile uint32_t *)p = (uint32_t)v;
    if (size == 8)
        *(volatile uint32_t *)(p + 4) = (uint32_t)(v >> 32);
}

static void map_capabilities(struct virtio *d)
{
    for (uint8_t cap = pci_capability(&d->pci, 9, 0); cap; cap = pci_capability(&d->pci, 9, cap)) {
        unsigned type = pci_read8(&d->pci, cap + 3u), bar = pci_read8(&d->pci, cap + 4u);
        if (bar > 5 || !d->pci.bar[bar])
            continue;
        volatile uint8_t *p =
            (volatile uint8_t *)pci_map_bar(&d->pci, bar) + pci_read32(&d->pci, cap + 8u);
        if (type == CAP_COMMON)
            d->common = p;
        if (type == CAP_ISR)
            d->isr = p;
        if (type == CAP_DEVICE)
            d->config = p;
        if (type == CAP_NOTIFY) {
            d->notify_base = p;
            d->notify_multiplier = pci_read32(&d->pci, cap + 16u);
        }
    }
}

bool virtio_open(struct virtio *d)
{
    pci_enable(&d->pci, true);
    map_capabilities(d);
    return d->common && d->notify_base && d->isr;
}

bool virtio_find(unsigned id, unsigned nth, struct virtio *ret)
{
    static const uint16_t transitional[] = { 0, 0x1000, 0x1001, 0x1003, 0x1005 };
    struct virtio d = { .id = id };
    if (!pci_find(VIRTIO_VENDOR, (uint16_t)(0x1040 + id), nth, &d.pci) &&
        (id >= ARRAY_COUNT(transitional) ||
         !pci_find(VIRTIO_VENDOR, transitional[id], nth, &d.pci)))
        return false;
    *ret = d;
    return virtio_open(ret);
}

void virtio_reset(struct virtio *d)
{
    vc_write(d, VC_STATUS, 1, 0);
    for (int i = 0; i < 100000 && vc_read(d, VC_STATUS, 1); i++)
        pause();
}

uint64_t virtio_offered(struct virtio *d)
{
    vc_write(d, VC_DEVICE_FEATURE_SELECT, 4, 1);
    uint64_t high = vc_read(d, VC_DEVICE_FEATURE, 4);
    vc_write(d, VC_DEVICE_FEATURE_SELECT, 4, 0);
    return high << 32 | vc_read(d, VC_DEVICE_FEATURE, 4);
}

bool virtio_begin(struct virtio *d, uint64_t wanted)
{
    virtio_reset(d);
    vc_write(d, VC_STATUS, 1, STATUS_ACK);
    vc_write(d, VC_STATUS, 1, STATUS_ACK | STATUS_DRIVER);
    d->features = virtio_offered(d) & (wanted | F_VERSION_1);
    vc_write(d, VC_DRIVER_FEATURE_SELECT, 4, 0);
    vc_write(d, VC_DRIVER_FEATURE, 4, (uint32_t)d->features);
    vc_write(d, VC_DRIVER_FEATURE_SELECT, 4, 1);
    vc_write(d, VC_DRIVER_FEATURE, 4, d->features >> 32);
    vc_write(d, VC_STATUS, 1, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES_OK);
    return vc_read(d, VC_STATUS, 1) & STATUS_FEATURES_OK;
}

void virtio_ready(struct virtio *d)
{
    vc_write(d, VC_STATUS, 1, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

/* Rings of an earlier life are used again. */
static void make_rings(struct vq *q, const struct vq *old)
{
    bool reuse = old->desc && old->size == q->size;
    q->desc = reuse ? old->desc : alloc_aligned(16ul * q->size, PAGE);
    q->avail = reuse ? old->avail : alloc_aligned(6 + 2ul * q->size, 64);
    q->used = reuse ? old->used : alloc_aligned(6 + 8ul * q->size, 64);
    memset(q->desc, 0, 16ul * q->size);
    memset((void *)q->avail, 0, 6 + 2ul * q->size);
    memset((void *)q->used, 0, 6 + 8ul * q->size);
}

bool vq_init(struct vq *q, struct virtio *d, uint16_t index, uint16_t size)
{
    struct vq old = *q;
    memset(q, 0, sizeof(*q));
    vc_write(d, VC_QUEUE_SELECT, 2, index);
    uint16_t max = (uint16_t)vc_read(d, VC_QUEUE_SIZE, 2);
    if (!max)
        return false;
    q->dev = d;
    q->index = index;
    q->size = size < max ? size : max;
    q->packed = d->features & F_PACKED;
    make_rings(q, &old);
    q->avail_wrap = q->used_wrap = true;
    q->free_count = q->size;
    for (uint16_t i = 0; i < q->size && !q->packed; i++)
        q->desc[i].next = (uint16_t)(i + 1);
    vc_write(d, VC_QUEUE_SIZE, 2, q->size);
    vc_write(d, VC_QUEUE_DESC, 8, (uint64_t)q->desc);
    vc_write(d, VC_QUEUE_DRIVER, 8, (uint64_t)q->avail);
    vc_write(d, VC_QUEUE_DEVICE, 8, (uint64_t)q->used);
    q->notify = (volatile uint16_t *)(d->notify_base +
                                      vc_read(d, VC_QUEUE_NOTIFY_OFF, 2) * d->notify_multiplier);
    vc_write(d, VC_QUEUE_ENABLE, 2, 1);
    return true;
}

static int add_split(struct vq *q, const struct vdesc *chain, unsigned n)
{
    uint16_t head = q->free_head, at = head;
    for (unsigned i = 0; i < n; i++) {
        uint16_t next = q->desc[at].next;
        q->desc[at] = chain[i];
        q->desc[at].flags |= i + 1 < n ? VD_NEXT : 0;
        q->desc[at].next = next;
        at = next;
    }
    q->free_head = at;
    q->free_count = (uint16_t)(q->free_count - n);
    q->chain_len[head % VQ_MAX] = (uint16_t)n;
    q->avail[2 + q->avail_idx % q->size] = head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    q->avail[1] = ++q->avail_idx;
    return head;
}

/* The first descriptor's flags are written last: they hand the chain over. The id is the ring slot.
 */
static int add_packed(struct vq *q, const struct vdesc *chain, unsigned n)
{
    uint16_t head = q->avail_idx, at = head, head_flags = 0;
    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = (uint16_t)(chain[i].flags | (i + 1 < n ? VD_NEXT : 0) |
                                    (q->avail_wrap ? VD_AVAIL : VD_USED));
        q->desc[at].addr = chain[i].addr;
        q->desc[at].len = chain[i].len;
        q->desc[at].flags = head; /* the id, in the packed layout */
        if (i)
            ((volatile struct vdesc *)q->desc)[at].next = flags;
        else
            head_flags = flags;
        if (++at == q->size) {
            at = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    q->avail_idx = at;
    q->free_count = (uint16_t)(q->free_count - n);
    q->chain_len[head % VQ_MAX] = (uint16_t)n;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ((volatile struct vdesc *)q->desc)[head].next = head_flags;
    return head;
}

static int add_chain(struct vq *q, const struct vdesc *chain, unsigned n)
{
    if (n > q->free_count)
        return -1;
    return q->packed ? add_packed(q, chain, n) : add_split(q, chain, n);
}

static void fill(struct vdesc *to, const struct vbuf *bufs, unsigned out, unsigned in)
{
    for (unsigned i = 0; i < out + in; i++)
        to[i] = (struct vdesc){ (uint64_t)bufs[i].p, bufs[i].len, i < out ? 0 : VD_WRITE, 0 };
}

int vq_add(struct vq *q, const struct vbuf *bufs, unsigned out, unsigned in)
{
    struct vdesc chain[16];
    if (out + in > ARRAY_COUNT(chain))
        return -1;
    fill(chain, bufs, out, in);
    return add_chain(q, chain, out + in);
}

int vq_add_indirect(struct vq *q, struct vdesc *table, const struct vbuf *bufs, unsigned out,
                    unsigned in)
{
    fill(table, bufs, out, in);
    for (unsigned i = 0; i + 1 < out + in && !q->packed; i++) {
        table[i].flags |= VD_NEXT;
        table[i].next = (uint16_t)(i + 1);
    }
    for (unsigned i = 0; i < out + in && q->packed; i++) { /* flags move to where packed has them */
        table[i].next = table[i].flags;
        table[i].flags = 0;
    }
    struct vdesc one = { (uint64_t)table, (out + in) * 16, VD_INDIRECT, 0 };
    return add_chain(q, &one, 1);
}

void vq_kick(struct vq *q)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *q->notify = q->index;
}

static int get_split(struct vq *q, uint32_t *ret_len)
{
    if (q->used[1] == q->used_idx)
        return -1;
    volatile uint32_t *e = (volatile uint32_t *)(q->used + 2) + 2 * (q->used_idx++ % q->size);
    uint16_t head = (uint16_t)e[0], at = head, n = q->chain_len[head % VQ_MAX];
    if (ret_len)
        *ret_len = e[1];
    for (uint16_t i = 1; i < n; i++)
        at = q->desc[at].next;
    q->desc[at].next = q->free_head;
    q->free_head = head;
    q->free_count = (uint16_t)(q->free_count + n);
    return head;
}

static int get_packed(struct vq *q, uint32_t *ret_len)
{
    volatile struct vdesc *d = &q->desc[q->used_idx];
    uint16_t flags = d->next;
    if (!!(flags & VD_USED) != q->used_wrap || !!(flags & VD_AVAIL) != q->used_wrap)
        return -1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t id = d->flags, n = q->chain_len[id % VQ_MAX];
    if (ret_len)
        *ret_len = d->len;
    q->used_idx = (uint16_t)(q->used_idx + n);
    if (q->used_idx >= q->size) {
        q->used_idx = (uint16_t)(q->used_idx - q->size);
        q->used_wrap = !q->used_wrap;
    }
    q->free_count = (uint16_t)(q->free_count + n);
    return id;
}

int vq_get(struct vq *q, uint32_t *ret_len)
{
    return q->packed ? get_packed(q, ret_len) : get_split(q, ret_len);
}

int vq_wait(struct vq *q, uint32_t *ret_len, unsigned ms)
{
    uint64_t begin = rdtsc(), ticks = ms * tsc_khz();
    int head;
    while ((head = vq_get(q, ret_len)) < 0 && rdtsc() - begin < ticks)
        pause();
    return head;
}
