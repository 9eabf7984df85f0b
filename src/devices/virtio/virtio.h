/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A virtio device on PCI: features, status, queues, configuration, interrupts; the kind behind it
 * is a table of calls.
 *
 * Spec      VIRTIO 1.2, chapters 2, 3 and 4.1.
 * Owner     A device's struct begins with VIRTIO_BASE; virtio_init() in realize, virtio_done() last
 *           in unrealize.
 * Thread    Registers: any vCPU. Queues: the home loop, woken by one eventfd a queue. Both with the
 *           device's lock, which ops are called with unless noted.
 * Trust     Every register write is the guest's. A guest that breaks the rules breaks its device
 *           until reset.
 */
#pragma once

#include "devices/pci/pci.h"
#include "devices/virtio/virtqueue.h"

#define VIRTIO_MAX_QUEUES 65
#define VIRTIO_CONFIG_BYTES 128
#define VIRTIO_AUTO_VECTORS UINT32_MAX

enum { VIRTIO_ID_NET = 1, VIRTIO_ID_BLOCK = 2, VIRTIO_ID_CONSOLE = 3, VIRTIO_ID_RNG = 4, VIRTIO_ID_BALLOON = 5 };

/* Device status, 2.1. */
enum { VIRTIO_ACKNOWLEDGE = 1, VIRTIO_DRIVER = 2, VIRTIO_DRIVER_OK = 4, VIRTIO_FEATURES_OK = 8,
       VIRTIO_NEEDS_RESET = 0x40, VIRTIO_FAILED = 0x80 };

/* Features that all kinds share, chapter 6. */
#define VIRTIO_F(n) (1ULL << (n))
enum {
    VIRTIO_F_INDIRECT = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_PACKED = 34,
    VIRTIO_F_RESET = 40
};

struct virtio;

struct virtio_ops {
    uint16_t id;
    uint8_t class_code, subclass;
    /* Home loop: the driver notified the queue, or virtio_kick() did. */
    void (*handle)(struct virtio *v, unsigned queue);
    void (*driver_ok)(struct virtio *v);                        /* may be NULL */
    void (*features_set)(struct virtio *v);                     /* may be NULL */
    /* `len` bytes at `off` of config[] were written, as far as config_writable lets. May be NULL. */
    void (*config_written)(struct virtio *v, unsigned off, unsigned len);
    /* forget what belongs to it; may be NULL */
    void (*queue_reset)(struct virtio *v, unsigned queue);
    /* guest-visible state; may be NULL */
    void (*reset)(struct virtio *v);
    /* Home loop, without the lock: returns when no chain is held but by an error. NULL: never holds one. */
    void (*drain)(struct virtio *v);
    bool keeps_held; /* the kind's own state has the chains that are held when drain has returned */
    /* Main thread, without the lock: the machine has stopped, or is about to run. NULL: needs nothing. */
    void (*stopped)(struct virtio *v, bool stopped);
    /* Any thread, with the lock: interrupts of the queues may go another way now. NULL: needs nothing. */
    void (*rerouted)(struct virtio *v);
};

struct virtio_queue_watch {
    struct virtio *v;
    struct loop_fd watch;
    int fd;
};

/* A vector whose messages the accelerator sends by itself when `fd` is signalled. */
struct virtio_vector {
    int fd;    /* -1: not made yet */
    int route; /* of accel_ops.irqfd_add, or -1: pci_msix_notify() does it */
};

struct virtio {
    struct pci_device pci;
    const struct virtio_ops *ops;
    /* Properties. */
    bool prop_packed, prop_event_idx, prop_indirect, prop_queue_reset, prop_ioeventfd, prop_iommu,
        disable_modern;
    int disable_legacy;
    uint32_t vectors;
    char *romfile;
    /* What the guest sees. */
    uint64_t offered, accepted;
    uint32_t offered_select, accepted_select;
    uint16_t queue_select, config_vector;
    uint8_t status, generation, isr;
    bool reset_pending;          /* chains are still held: the status reads as not yet 0 */
    uint8_t status_before, status_after;
    uint8_t config[VIRTIO_CONFIG_BYTES];
    uint8_t config_writable[VIRTIO_CONFIG_BYTES];
    unsigned config_bytes;
    struct vq queue[VIRTIO_MAX_QUEUES];
    uint32_t queue_resets;       /* private: queues with a reset that waits, as a count */
    bool queue_reset_pending[VIRTIO_MAX_QUEUES];
    unsigned queue_count;
    /* The bus. */
    struct mem_region bar;
    uint16_t window_cap;         /* offset of the configuration access capability */
    struct virtio_queue_watch watch[VIRTIO_MAX_QUEUES];
    struct virtio_vector *vector; /* `vectors` of them; NULL: the accelerator has no irqfds */
    bool frozen;                 /* the machine is stopped: rings are not touched */
    uint16_t saved_queues;       /* queue_count, in a saved state */
    bool ready;                  /* virtio_init() got to its end */
    uint64_t notifications, interrupts, resets, broken_count;
};

/* First members of a device's struct: `pci` for PCI_PROPS, `v` for us. */
#define VIRTIO_BASE                                                                                \
    union {                                                                                        \
        struct pci_device pci;                                                                     \
        struct virtio v;                                                                           \
    }

#define VIRTIO_PROPS(type)                                                                         \
    PCI_PROPS(type),                                                                               \
    PROP_U32("vectors", type, v.vectors, .def = VIRTIO_AUTO_VECTORS, .min = 0, .max = UINT32_MAX,  \
             .help = "MSI-X vectors; 0: none, 4294967295: what the queues need"),                  \
    PROP_BOOL("ioeventfd", type, v.prop_ioeventfd, .def = true,                                    \
              .help = "Notifications signal an eventfd"),                                          \
    PROP_BOOL("packed", type, v.prop_packed, .help = "Offer packed rings"),                        \
    PROP_BOOL("event_idx", type, v.prop_event_idx, .def = true, .help = "Offer event indexes"),    \
    PROP_BOOL("indirect_desc", type, v.prop_indirect, .def = true,                                 \
              .help = "Offer indirect descriptors"),                                               \
    PROP_BOOL("queue_reset", type, v.prop_queue_reset, .def = true,                                \
              .help = "Offer the reset of single queues"),                                         \
    PROP_BOOL("iommu_platform", type, v.prop_iommu, .help = "Only 'off': there is no IOMMU"),      \
    PROP_ONOFFAUTO("disable-legacy", type, v.disable_legacy, .def = (uint64_t)-1,                  \
                   .help = "off: use the transitional PCI id"),                                    \
    PROP_BOOL("disable-modern", type, v.disable_modern, .help = "Only 'off'"),                     \
    PROP_STRING("romfile", type, v.romfile, .help = "Only '': there is no option ROM")

#define VIRTIO_COUNTERS(type)                                                                      \
    COUNTER(type, v.notifications, "Notifications of queues handled"),                             \
        COUNTER(type, v.interrupts, "Interrupts sent"),                                            \
        COUNTER(type, v.resets, "Resets by the driver"),                                           \
        COUNTER(type, v.broken_count, "Times that the guest broke the device")

static inline struct virtio *virtio_of(struct device *d)
{
    return container_of(d, struct virtio, pci.dev);
}

/* Puts the device on its PCI bus. `features`: the kind's own; queues of at most queue_sizes[n] (0:
 * as the one before). dev.loop is the home loop from here. */
bool virtio_init(struct virtio *v, const struct virtio_ops *ops, uint64_t features,
                 unsigned queue_count, const uint16_t *queue_sizes, unsigned config_bytes,
                 GError **error);
void virtio_done(struct virtio *v);
/* For device_type.reset. */
void virtio_reset(struct device *d);

static inline bool virtio_has(const struct virtio *v, unsigned feature)
{
    return v->accepted & VIRTIO_F(feature);
}

/* DMA and interrupts are allowed. Lock held. */
bool virtio_running(const struct virtio *v);
/* Makes pushed chains visible and interrupts if the driver wants it. Lock held. */
void virtio_publish(struct virtio *v, unsigned queue);
/* config[] changed. Lock held. */
void virtio_config_changed(struct virtio *v);
/* The guest broke the rules. Lock held. */
void virtio_broken(struct virtio *v, const char *why);
/* Pops; a broken queue breaks the device. 1 or 0. Lock held. */
int virtio_pop(struct virtio *v, unsigned queue, struct vq_elem *e);
/* For queues that somebody else serves: their notifications do not come here meanwhile. Home loop. */
void virtio_lend_queue(struct virtio *v, unsigned queue, bool lent);
/* The eventfd of such a queue's notifications; and the one that interrupts the guest by itself, or -1. Lock held. */
int virtio_notify_fd(const struct virtio *v, unsigned queue);
int virtio_interrupt_fd(const struct virtio *v, unsigned queue);
/* As if it had been used. Lock held. */
void virtio_interrupt_queue(struct virtio *v, unsigned queue);
/* Calls ops->handle soon, on the home loop. Any thread. */
void virtio_kick(struct virtio *v, unsigned queue);
void virtio_kick_all(struct virtio *v); /* enabled ones */
/* Returns when ops->drain has. Main thread, without the lock. */
void virtio_drain(struct virtio *v);
/* For queues that are emptied as they fill: asks for the next notification, or looks again at once.
 * Lock held. */
void virtio_rearm(struct virtio *v, unsigned queue);
/* A chain is held by an asynchronous request, no longer is. Lock held. */
void virtio_hold(struct virtio *v, unsigned queue);
void virtio_unhold(struct virtio *v, unsigned queue);

/* state.c: what every virtio device's saved state has. */
extern const struct device_base virtio_base;

/* Between virtio.c and virtio_pci.c. */
bool virtio_pci_init(struct virtio *v, unsigned vectors, GError **error);
void virtio_pci_done(struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t status);
uint8_t virtio_get_status(const struct virtio *v);
void virtio_enable_queue(struct virtio *v, unsigned queue);
void virtio_reset_queue(struct virtio *v, unsigned queue);
void virtio_config_write(struct virtio *v, unsigned off, uint64_t val, unsigned len);
void virtio_raise(struct virtio *v, uint8_t isr_bit, uint16_t vector);

#define VIRTIO_SET(v, off, type, val)                                                              \
    do {                                                                                           \
        type set_ = (val);                                                                         \
        memcpy((v)->config + (off), &set_, sizeof(set_));                                          \
    } while (0)
