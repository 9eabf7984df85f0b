/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices: a const descriptor per kind in a linker set, instances, properties, saved state.
 *
 * Options (-device, -global, device_add), help text, QMP schema and saved state derive from the descriptor.
 *
 * Owner     struct machine owns all devices; a device owns what it made in realize and undoes it in unrealize
 *           (also after a failed realize: everything must take half-built objects).
 * Thread    Creation, properties, realize, unrealize, reset: the main thread, vCPUs stopped for reset. At run
 *           time registers are reached by any vCPU with dev->lock held, timers and I/O from the home loop.
 */
#pragma once

#include "base/error.h"
#include "base/linkset.h"
#include "base/loop.h"
#include "base/state_field.h"
#include "machine/clock.h"
#include "machine/irq.h"
#include "machine/memory.h"

struct machine;
struct device;

enum prop_kind { PROP_KIND_BOOL, PROP_KIND_U8, PROP_KIND_U16, PROP_KIND_U32, PROP_KIND_U64, PROP_KIND_I32,
                 PROP_KIND_SIZE, PROP_KIND_STRING, PROP_KIND_ENUM, PROP_KIND_MAC, PROP_KIND_ONOFFAUTO };

struct prop {
    const char *name;
    enum prop_kind kind;
    size_t offset;            /* in the device's struct */
    const char *help;
    uint64_t def;             /* numbers, booleans, enums (index) */
    const char *def_str;      /* strings; NULL: NULL */
    uint64_t min, max;        /* numbers; both 0: the type's range */
    const char *const *words; /* enums: NULL-terminated; the field is an int index */
    bool power_of_2;
};

/* Extra members follow as designated initialisers: PROP_U16("queue-size", struct vnet, queue_size,
 * .def = 256, .min = 2, .max = 1024, .help = "..."). Strings are char *, g_malloc'd, freed by the core. */
#define PROP_ROW(kind_, ctype, n, type, field, ...)                                                \
    {                                                                                              \
        .name = n, .kind = kind_,                                                                  \
        .offset = offsetof(type, field) + 0 * sizeof((ctype *)0 == &((type *)0)->field), __VA_ARGS__ \
    }
#define PROP_BOOL(n, type, field, ...) PROP_ROW(PROP_KIND_BOOL, bool, n, type, field, __VA_ARGS__)
#define PROP_U8(n, type, field, ...) PROP_ROW(PROP_KIND_U8, uint8_t, n, type, field, __VA_ARGS__)
#define PROP_U16(n, type, field, ...) PROP_ROW(PROP_KIND_U16, uint16_t, n, type, field, __VA_ARGS__)
#define PROP_U32(n, type, field, ...) PROP_ROW(PROP_KIND_U32, uint32_t, n, type, field, __VA_ARGS__)
#define PROP_U64(n, type, field, ...) PROP_ROW(PROP_KIND_U64, uint64_t, n, type, field, __VA_ARGS__)
#define PROP_I32(n, type, field, ...) PROP_ROW(PROP_KIND_I32, int32_t, n, type, field, __VA_ARGS__)
#define PROP_SIZE(n, type, field, ...) PROP_ROW(PROP_KIND_SIZE, uint64_t, n, type, field, __VA_ARGS__)
#define PROP_STRING(n, type, field, ...) PROP_ROW(PROP_KIND_STRING, char *, n, type, field, __VA_ARGS__)
#define PROP_ENUM(n, type, field, ...) PROP_ROW(PROP_KIND_ENUM, int, n, type, field, __VA_ARGS__)
#define PROP_MAC(n, type, field, ...)                                                              \
    {                                                                                              \
        .name = n, .kind = PROP_KIND_MAC, .offset = offsetof(type, field), __VA_ARGS__             \
    }
/* int: -1 auto, 0 off, 1 on; .def as (uint64_t)-1 for auto. */
#define PROP_ONOFFAUTO(n, type, field, ...)                                                        \
    PROP_ROW(PROP_KIND_ONOFFAUTO, int, n, type, field, __VA_ARGS__)

/* What kinds of devices share (a PCI function, a virtio device): its state is saved with each, before the device's own
 * fields, and it stops with the machine. Set by the kind's init function. */
struct device_base {
    const char *name;
    const struct device_base *below; /* comes first; NULL: none */
    const struct state_field *state; /* offsets in the device's struct */
    bool (*save_before)(struct device *d, GError **error);
    bool (*load_after)(struct device *d, GError **error);
    /* The machine has stopped, or is about to run; no vCPU executes. */
    void (*stopped)(struct device *d, bool stopped);
};

/* Where a device plugs in: decides which base struct its own struct begins with. */
enum device_bus {
    BUS_SYSTEM, /* the board: struct device */
    BUS_ISA,    /* legacy ports and IRQs: struct device */
    BUS_PCI,    /* devices/pci/pci.h: struct pci_device */
    BUS_VIRTIO_SERIAL, /* a port of a virtio console: struct device, `bus=` names the console */
};

struct device_type {
    const char *name;     /* as in -device */
    const char *const *aliases; /* NULL-terminated; may be NULL */
    const char *summary;  /* one line for -device help */
    const char *spec;     /* specification and section */
    enum device_bus bus;
    size_t size;          /* of the instance's struct, which begins with struct device (or pci_device) */
    const struct prop *props;         /* ends with a row without a name; may be NULL */
    const struct state_field *state;  /* same; may be NULL */
    bool internal;        /* made by the board only; not for -device */
    bool (*realize)(struct device *d, GError **error);
    void (*reset)(struct device *d);     /* guest-visible state to power-on values; may be NULL */
    void (*unrealize)(struct device *d); /* may be NULL */
    /* Brings fields up to date before they are saved; false: it cannot be saved now. May be NULL. */
    bool (*save_before)(struct device *d, GError **error);
    /* All devices' fields are loaded, each alone within its row's limits: checks what depends on other fields, then
     * makes what is not a field of its own: timers, addresses, levels of lines (receivers are there already, and take
     * a level that they know for no change). In machine order. May be NULL. */
    bool (*load_after)(struct device *d, GError **error);
    /* For a device whose memory another process writes: from now on it notes which pages, or no longer; false: it cannot.
     * log_harvest() tells by mem_written() what was noted, and begins anew. Main thread. May be NULL. */
    bool (*log_writes)(struct device *d, bool on, GError **error);
    void (*log_harvest)(struct device *d);
    /* QMP: a JSON-less way to report: fill name/value pairs for x-ruche-query-device; may be NULL. */
    const struct device_counter *counters;
};

/* Counters in place of logs; shown by QMP's x-ruche-query-counters. uint64_t fields. */
struct device_counter {
    const char *name;
    size_t offset;
    const char *help;
};
#define COUNTER(type, field, help_)                                                                \
    {                                                                                              \
        .name = #field, .offset = offsetof(type, field), .help = help_                             \
    }

LINKSET_DECLARE(device_types);
#define DEVICE_TYPE(t) LINKSET_ENTRY(device_types, t)

struct device {
    const struct device_type *type;
    const struct device_base *base; /* NULL: none */
    struct machine *machine;
    char *id;              /* the user's id=, or NULL */
    char *bus_name;        /* the user's bus=, or NULL */
    char *path;            /* QOM-like path for events: /machine/peripheral/<id> or /machine/peripheral-anon/... */
    struct loop *loop;     /* home loop; the main loop unless an I/O thread was given */
    pthread_mutex_t lock;  /* guards registers and run-time state */
    bool realized;
    int64_t unplug_asked_ms; /* when the guest was asked to let go of it, on the monotonic clock; 0: it was not */
    /* Set once by device_broken(): the guest broke the protocol; the device ignores it until reset. */
    _Atomic bool broken;
    char broken_why[160];
    struct device *next;   /* in machine order */
};

const struct device_type *device_type_find(const char *name); /* name or alias; NULL */
/* "; did you mean ...?" for a wrong name. */
const char *device_type_suggest(const char *name);
/* Sorted array of all, NULL-ended; static. */
const struct device_type *const *device_type_list(void);

/* A new instance with default properties (and -global ones), owned by the machine, not realized. */
struct device *device_new(struct machine *m, const char *type_name, GError **error);
/* Text value, as in -device name,prop=value. */
bool device_set(struct device *d, const char *prop, const char *value, GError **error);
/* g_malloc'd text of a property's value, or NULL. */
char *device_get(const struct device *d, const char *prop);
bool device_realize(struct device *d, GError **error); /* on failure the device is freed */
void device_reset(struct device *d);
void device_free(struct device *d); /* unrealizes; unlinks from the machine; NULL is fine */
/* Convenience for boards: new + realize with NULL-ended (prop, value) pairs. */
struct device *device_make(struct machine *m, const char *type_name, GError **error, ...)
    G_GNUC_NULL_TERMINATED;

/* A guest broke the device's rules: marks it, counts it, tells QMP (event DEVICE_BROKEN... see vmm/) once until
 * reset. Any thread; `why` is copied. Cheap when already broken. */
void device_broken(struct device *d, const char *why);

/* Parses / formats one property value; used by -device, -global and QMP. */
bool prop_parse(const struct prop *p, void *base, const char *owner, const char *value, GError **error);
char *prop_format(const struct prop *p, const void *base);
void prop_set_defaults(const struct prop *props, void *base);
void prop_free_strings(const struct prop *props, void *base);

/* Before the state of any device is saved; false: it cannot be now. */
bool device_state_prepare(struct device *d, GError **error);
/* Saved state of one device: that of its bases, then its own. */
GByteArray *device_state_save(const struct device *d);
/* The fields. Each table is taken whole or not at all. */
bool device_state_load(struct device *d, const uint8_t *data, size_t len, GError **error);
/* After all devices were loaded. */
bool device_state_loaded(struct device *d, GError **error);
void device_stopped(struct device *d, bool stopped);
