/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio over PCI: capabilities, the registers in BAR 4, MSI-X and INTx.
 *
 * Spec      VIRTIO 1.2, section 4.1.
 * Thread    Registers: any vCPU, with the device's lock (the region's lock). The configuration
 *           access capability: the bus lock, then the device's.
 * Trust     Offsets inside the BAR and all values are the guest's.
 */
#include "devices/virtio/virtio.h"

#include "base/fd.h"

#include <errno.h>

#define VENDOR 0x1af4
#define BAR_MSIX 1
#define BAR_REGISTERS 4
#define BAR_BYTES 0x4000
#define COMMON_AT 0x0000
#define ISR_AT 0x1000
#define DEVICE_AT 0x2000
#define NOTIFY_AT 0x3000
#define NOTIFY_STEP 4
#define PCI_COMMAND_AT 4
#define CAP_VENDOR 9

enum cap_type { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_WINDOW = 5 };
enum { CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_EXTRA = 16 };

/* --- interrupts --- */

void virtio_raise(struct virtio *v, uint8_t isr_bit, uint16_t vector)
{
    v->interrupts++;
    if (pci_msix_enabled(&v->pci)) {
        if (vector < v->vectors && v->vector && v->vector[vector].route >= 0)
            eventfd_signal(v->vector[vector].fd);
        else if (vector != VQ_NO_VECTOR)
            pci_msix_notify(&v->pci, vector);
        return;
    }
    v->isr |= isr_bit;
    pci_irq_set(&v->pci, 1);
}

static void drop_route(struct virtio *v, unsigned n)
{
    struct virtio_vector *w = &v->vector[n];
    struct accel *a = v->pci.dev.machine->accel;
    if (w->route >= 0)
        a->ops->irqfd_remove(a, w->route, w->fd);
    w->route = -1;
}

/* A vector went live, changed its message, or is masked: only live ones have a route, so that a
 * masked one's interrupt goes to its pending bit. No route left is no error. */
static void vector_changed(struct pci_device *p, unsigned n, bool live)
{
    struct virtio *v = container_of(p, struct virtio, pci);
    struct accel *a = p->dev.machine->accel;
    struct virtio_vector *w = &v->vector[n];
    uint64_t addr = 0;
    uint32_t data = 0;
    pci_msix_message(p, n, &addr, &data);
    pthread_mutex_lock(&p->dev.lock);
    if (!live) {
        drop_route(v, n);
    } else if (w->route >= 0) {
        if (a->ops->irqfd_update(a, w->route, addr, data) < 0)
            drop_route(v, n);
    } else {
        if (w->fd < 0)
            w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        w->route = w->fd < 0 ? -1 : a->ops->irqfd_add(a, addr, data, w->fd);
    }
    if (v->ops->rerouted)
        v->ops->rerouted(v);
    pthread_mutex_unlock(&p->dev.lock);
}

static void init_vectors(struct virtio *v)
{
    const struct accel_ops *ops = v->pci.dev.machine->accel->ops;
    if (!v->vectors || !ops->irqfd_add || !ops->irqfd_update || !ops->irqfd_remove)
        return;
    v->vector = g_new(struct virtio_vector, v->vectors);
    for (unsigned n = 0; n < v->vectors; n++)
        v->vector[n] = (struct virtio_vector){ .fd = -1, .route = -1 };
    pci_msix_on_change(&v->pci, vector_changed);
}

static void free_vectors(struct virtio *v)
{
    for (unsigned n = 0; v->vector && n < v->vectors; n++) {
        drop_route(v, n);
        fd_close_keep_errno(v->vector[n].fd);
    }
    g_clear_pointer(&v->vector, g_free);
}

static uint8_t take_isr(struct virtio *v)
{
    uint8_t isr = v->isr;
    v->isr = 0;
    pci_irq_set(&v->pci, 0);
    return isr;
}

/* --- the common configuration, 4.1.4.3 --- */

static struct vq *selected(struct virtio *v)
{
    return v->queue_select < v->queue_count ? &v->queue[v->queue_select] : NULL;
}

static uint64_t get_features(const struct virtio *v, uint64_t all, uint32_t select)
{
    return select < 2 ? (uint32_t)(all >> (32 * select)) : 0;
}

static uint64_t get_offered_select(struct virtio *v) { return v->offered_select; }
static uint64_t get_offered(struct virtio *v)
{
    return get_features(v, v->offered, v->offered_select);
}
static uint64_t get_accepted_select(struct virtio *v) { return v->accepted_select; }
static uint64_t get_accepted(struct virtio *v)
{
    return get_features(v, v->accepted, v->accepted_select);
}
static uint64_t get_config_vector(struct virtio *v) { return v->config_vector; }
static uint64_t get_queue_count(struct virtio *v) { return v->queue_count; }
static uint64_t get_status(struct virtio *v) { return virtio_get_status(v); }
static uint64_t get_generation(struct virtio *v) { return v->generation; }
static uint64_t get_queue_select(struct virtio *v) { return v->queue_select; }
static uint64_t get_queue_size(struct virtio *v) { return selected(v) ? selected(v)->size : 0; }
static uint64_t get_queue_vector(struct virtio *v)
{
    return selected(v) ? selected(v)->vector : VQ_NO_VECTOR;
}
static uint64_t get_queue_enable(struct virtio *v) { return selected(v) && selected(v)->enabled; }
static uint64_t get_notify_off(struct virtio *v) { return selected(v) ? v->queue_select : 0; }
static uint64_t get_desc(struct virtio *v) { return selected(v) ? selected(v)->desc_gpa : 0; }
static uint64_t get_driver(struct virtio *v) { return selected(v) ? selected(v)->driver_gpa : 0; }
static uint64_t get_device(struct virtio *v) { return selected(v) ? selected(v)->device_gpa : 0; }
static uint64_t get_zero(struct virtio *v) { return 0; }

static uint64_t get_queue_reset(struct virtio *v)
{
    return selected(v) && v->queue_reset_pending[v->queue_select];
}

static void set_offered_select(struct virtio *v, uint64_t val)
{
    v->offered_select = (uint32_t)val;
}
static void set_accepted_select(struct virtio *v, uint64_t val)
{
    v->accepted_select = (uint32_t)val;
}
static void set_status(struct virtio *v, uint64_t val) { virtio_set_status(v, (uint8_t)val); }
static void set_queue_select(struct virtio *v, uint64_t val) { v->queue_select = (uint16_t)val; }

static void set_accepted(struct virtio *v, uint64_t val)
{
    if (v->accepted_select > 1 || (v->status & VIRTIO_FEATURES_OK))
        return;
    unsigned shift = 32 * v->accepted_select;
    v->accepted = (v->accepted & ~(0xffffffffULL << shift)) | (uint64_t)(uint32_t)val << shift;
}

static uint16_t possible_vector(const struct virtio *v, uint64_t val)
{
    return val < v->vectors ? (uint16_t)val : VQ_NO_VECTOR;
}

static void set_config_vector(struct virtio *v, uint64_t val)
{
    v->config_vector = possible_vector(v, val);
}

static void set_queue_vector(struct virtio *v, uint64_t val)
{
    if (selected(v))
        selected(v)->vector = possible_vector(v, val);
    if (selected(v) && v->ops->rerouted)
        v->ops->rerouted(v);
}

/* A queue's layout stands still once it is enabled. */
static struct vq *settable(struct virtio *v)
{
    struct vq *q = selected(v);
    return q && !q->enabled ? q : NULL;
}

static void set_queue_size(struct virtio *v, uint64_t val)
{
    if (settable(v))
        settable(v)->size = (uint16_t)val;
}

static void set_desc(struct virtio *v, uint64_t val)
{
    if (settable(v))
        settable(v)->desc_gpa = val;
}

static void set_driver(struct virtio *v, uint64_t val)
{
    if (settable(v))
        settable(v)->driver_gpa = val;
}

static void set_device(struct virtio *v, uint64_t val)
{
    if (settable(v))
        settable(v)->device_gpa = val;
}

static void set_queue_enable(struct virtio *v, uint64_t val)
{
    if (selected(v) && val == 1)
        virtio_enable_queue(v, v->queue_select);
}

static void set_queue_reset(struct virtio *v, uint64_t val)
{
    if (selected(v) && val == 1)
        virtio_reset_queue(v, v->queue_select);
}

static const struct common_field {
    uint8_t off, size;
    uint64_t (*get)(struct virtio *v);
    void (*set)(struct virtio *v, uint64_t val); /* NULL: read-only */
} common_fields[] = {
    { 0x00, 4, get_offered_select, set_offered_select },
    { 0x04, 4, get_offered, NULL },
    { 0x08, 4, get_accepted_select, set_accepted_select },
    { 0x0c, 4, get_accepted, set_accepted },
    { 0x10, 2, get_config_vector, set_config_vector },
    { 0x12, 2, get_queue_count, NULL },
    { 0x14, 1, get_status, set_status },
    { 0x15, 1, get_generation, NULL },
    { 0x16, 2, get_queue_select, set_queue_select },
    { 0x18, 2, get_queue_size, set_queue_size },
    { 0x1a, 2, get_queue_vector, set_queue_vector },
    { 0x1c, 2, get_queue_enable, set_queue_enable },
    { 0x1e, 2, get_notify_off, NULL },
    { 0x20, 8, get_desc, set_desc },
    { 0x28, 8, get_driver, set_driver },
    { 0x30, 8, get_device, set_device },
    { 0x38, 2, get_zero, NULL },
    { 0x3a, 2, get_queue_reset, set_queue_reset },
};
#define COMMON_BYTES 0x3c

static const struct common_field *common_field(uint64_t off)
{
    for (size_t i = 0; i < ARRAY_COUNT(common_fields); i++) {
        if (off >= common_fields[i].off &&
            off < (uint64_t)common_fields[i].off + common_fields[i].size)
            return &common_fields[i];
    }
    return NULL;
}

static uint64_t common_read(struct virtio *v, uint64_t off, unsigned size)
{
    const struct common_field *f = common_field(off);
    return f ? f->get(v) >> (8 * (off - f->off)) : 0;
}

/* Half of a 64-bit field leaves the other half. */
static void common_write(struct virtio *v, uint64_t off, uint64_t val, unsigned size)
{
    const struct common_field *f = common_field(off);
    if (!f || !f->set)
        return;
    unsigned shift = 8 * (unsigned)(off - f->off);
    if (shift || size < f->size) {
        uint64_t mask = (size < 8 ? (1ULL << (8 * size)) - 1 : UINT64_MAX) << shift;
        val = (f->get(v) & ~mask) | (val << shift & mask);
    }
    f->set(v, val);
}

/* --- the BAR --- */

static uint64_t bar_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio *v = opaque;
    uint64_t val = 0;
    if (off < ISR_AT)
        return common_read(v, off, size);
    if (off < DEVICE_AT)
        return off == ISR_AT ? take_isr(v) : 0;
    if (off < NOTIFY_AT && off - DEVICE_AT < v->config_bytes)
        memcpy(&val, v->config + (off - DEVICE_AT),
               min_u64(size, v->config_bytes - (off - DEVICE_AT)));
    return val;
}

static void bar_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct virtio *v = opaque;
    if (off < ISR_AT)
        common_write(v, off, val, size);
    else if (off >= NOTIFY_AT && (off - NOTIFY_AT) / NOTIFY_STEP < v->queue_count)
        virtio_kick(v, (unsigned)(off - NOTIFY_AT) / NOTIFY_STEP);
    else if (off >= DEVICE_AT && off - DEVICE_AT < v->config_bytes)
        virtio_config_write(v, (unsigned)(off - DEVICE_AT), val, size);
}

static const struct mem_ops bar_ops = { .read = bar_read, .write = bar_write };

/* --- configuration access, 4.1.4.9: a window to the BAR for those who cannot map it --- */

/* The window's target, or false when it points to nowhere. */
static bool window_target(const struct virtio *v, uint32_t *ret_off, uint32_t *ret_len)
{
    unsigned cap = v->window_cap;
    uint32_t off = pci_get32(&v->pci, cap + CAP_OFFSET), len = pci_get32(&v->pci, cap + CAP_LENGTH);
    if (v->pci.config[cap + CAP_BAR] != BAR_REGISTERS || (len != 1 && len != 2 && len != 4) ||
        off % len || !range_fits(off, len, BAR_BYTES))
        return false;
    *ret_off = off;
    *ret_len = len;
    return true;
}

static bool touches_window(const struct virtio *v, unsigned off, unsigned len)
{
    unsigned data = v->window_cap + CAP_EXTRA;
    return off < data + 4 && off + len > data;
}

static uint32_t config_read(struct pci_device *p, unsigned off, unsigned len)
{
    struct virtio *v = container_of(p, struct virtio, pci);
    uint32_t at, size;
    if (touches_window(v, off, len) && window_target(v, &at, &size)) {
        pthread_mutex_lock(&p->dev.lock);
        uint32_t val = (uint32_t)bar_read(v, at, size);
        pthread_mutex_unlock(&p->dev.lock);
        pci_set32(p, v->window_cap + CAP_EXTRA, val);
    }
    return pci_device_config_read(p, off, len);
}

static void config_written(struct pci_device *p, unsigned off, unsigned len, uint32_t val)
{
    struct virtio *v = container_of(p, struct virtio, pci);
    uint32_t at, size;
    if (touches_window(v, off, len) && window_target(v, &at, &size)) {
        pthread_mutex_lock(&p->dev.lock);
        bar_write(v, at, pci_get32(p, v->window_cap + CAP_EXTRA), size);
        pthread_mutex_unlock(&p->dev.lock);
    }
    /* Notifications that came while DMA was forbidden count now. */
    if (off <= PCI_COMMAND_AT && off + len > PCI_COMMAND_AT && pci_bus_master(p)) {
        for (unsigned n = 0; n < v->queue_count; n++)
            virtio_kick(v, n);
    }
}

/* --- life --- */

static bool add_capability(struct virtio *v, enum cap_type type, uint32_t off, uint32_t len,
                           uint32_t extra)
{
    bool has_extra = type == CAP_NOTIFY || type == CAP_WINDOW;
    uint8_t cap_len = has_extra ? 20 : 16;
    int cap = pci_add_capability(&v->pci, CAP_VENDOR, cap_len);
    if (cap < 0)
        return false;
    pci_set8(&v->pci, cap + 2, cap_len);
    pci_set8(&v->pci, cap + 3, type);
    pci_set8(&v->pci, cap + CAP_BAR, type == CAP_WINDOW ? 0 : BAR_REGISTERS);
    pci_set32(&v->pci, cap + CAP_OFFSET, off);
    pci_set32(&v->pci, cap + CAP_LENGTH, len);
    if (has_extra)
        pci_set32(&v->pci, cap + CAP_EXTRA, extra);
    if (type == CAP_WINDOW) {
        v->window_cap = (uint16_t)cap;
        v->pci.writable[cap + CAP_BAR] = 0xff;
        memset(v->pci.writable + cap + CAP_OFFSET, 0xff, 12);
    }
    return true;
}

static bool add_capabilities(struct virtio *v)
{
    return add_capability(v, CAP_COMMON, COMMON_AT, COMMON_BYTES, 0) &&
           add_capability(v, CAP_ISR, ISR_AT, 1, 0) &&
           add_capability(v, CAP_DEVICE, DEVICE_AT, 0x1000, 0) &&
           add_capability(v, CAP_NOTIFY, NOTIFY_AT, NOTIFY_STEP * v->queue_count, NOTIFY_STEP) &&
           add_capability(v, CAP_WINDOW, 0, 0, 0);
}

/* Identifiers of devices that also drivers of the time before VIRTIO 1.0 know. */
static uint16_t transitional_id(uint16_t id)
{
    static const uint16_t ids[] = { [VIRTIO_ID_NET] = 0x1000, [VIRTIO_ID_BLOCK] = 0x1001,
                                    [VIRTIO_ID_CONSOLE] = 0x1003, [VIRTIO_ID_RNG] = 0x1005 };
    return id < ARRAY_COUNT(ids) ? ids[id] : 0;
}

bool virtio_pci_init(struct virtio *v, unsigned vectors, GError **error)
{
    struct pci_device *p = &v->pci;
    const char *name = p->dev.type->name;
    bool transitional = v->disable_legacy == 0;
    struct pci_ids ids = {
        .vendor = VENDOR,
        .device = transitional ? transitional_id(v->ops->id) : 0x1040 + v->ops->id,
        .subsystem_vendor = VENDOR,
        .subsystem = transitional ? v->ops->id : 0x1100,
        .revision = transitional ? 0 : 1,
        .subclass = v->ops->subclass,
        .class_code = v->ops->class_code,
    };
    if (vectors > PCI_MSIX_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: vectors=%u: at most %d are possible",
                           name, vectors, PCI_MSIX_MAX);
    if (!pci_device_init(p, &ids, error))
        return false;
    int err = vectors ? pci_add_msix(p, BAR_MSIX, vectors) : 0;
    if (err < 0 || !add_capabilities(v) || (p->bus && pci_add_express(p) < 0))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no room for PCI capabilities", name);
    v->vectors = vectors;
    init_vectors(v);
    pci_set_intx_pin(p, 1);
    p->config_read = config_read;
    p->config_written = config_written;
    mem_region_init_io(&v->bar, name, &bar_ops, v, BAR_BYTES, &p->dev.lock);
    pci_bar_register(p, BAR_REGISTERS, PCI_BAR_MEM64_PREFETCH, &v->bar);
    for (unsigned n = 0; v->prop_ioeventfd && n < v->queue_count; n++) {
        err = mem_eventfd_add(&v->bar, NOTIFY_AT + NOTIFY_STEP * n, 0, false, 0, v->watch[n].fd);
        if (err < 0)
            return ruche_error_errno(error, -err, "%s: queue %u cannot be watched", name, n);
    }
    return true;
}

void virtio_pci_done(struct virtio *v)
{
    for (unsigned n = 0; v->bar.ops && v->prop_ioeventfd && n < v->queue_count; n++)
        mem_eventfd_remove(&v->bar, NOTIFY_AT + NOTIFY_STEP * n, 0, false, 0, v->watch[n].fd);
    pci_msix_on_change(&v->pci, NULL);
    free_vectors(v);
    pci_device_done(&v->pci);
}
