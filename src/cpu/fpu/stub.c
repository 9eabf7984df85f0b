/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store of generated stubs. Contract in stub.h. */
#include "cpu/fpu/stub.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct stub_entry {
    uint64_t key;
    uint32_t slot; /* 0: free */
};

const uint8_t *stub_base;

static struct {
    pthread_mutex_t lock;
    uint8_t *write;             /* the writable mapping of what stub_base maps executable */
    uint32_t next;              /* first free grain */
    struct stub_entry *entries; /* open addressing */
    uint32_t size, used;        /* of entries; size is a power of two */
} store = { .lock = PTHREAD_MUTEX_INITIALIZER, .next = 1 };

static int arena_map(void)
{
    int fd = memfd_create("ruche-stubs", MFD_CLOEXEC);
    int ret = 0;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, STUB_ARENA_BYTES) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    void *w = mmap(NULL, STUB_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *x = mmap(NULL, STUB_ARENA_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (w == MAP_FAILED || x == MAP_FAILED) {
        ret = -errno;
        if (w != MAP_FAILED)
            munmap(w, STUB_ARENA_BYTES);
        if (x != MAP_FAILED)
            munmap(x, STUB_ARENA_BYTES);
    } else {
        store.write = w;
        stub_base = x;
    }
    close(fd);
    return ret;
}

int stub_init(void)
{
    int ret = 0;

    pthread_mutex_lock(&store.lock);
    if (!stub_base)
        ret = arena_map();
    pthread_mutex_unlock(&store.lock);
    return ret;
}

static uint32_t hash(uint64_t key)
{
    return (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 32);
}

/* Where `key` is, or the free entry where it would go. The table is never full. */
static struct stub_entry *entry_of(uint64_t key)
{
    uint32_t at = hash(key) & (store.size - 1);

    while (store.entries[at].slot && store.entries[at].key != key)
        at = (at + 1) & (store.size - 1);
    return &store.entries[at];
}

static int table_grow(void)
{
    struct stub_entry *old = store.entries;
    uint32_t old_size = store.size;
    struct stub_entry *grown = calloc(old_size ? 2 * (size_t)old_size : 1024, sizeof(*grown));

    if (!grown)
        return -ENOMEM;
    store.entries = grown;
    store.size = old_size ? 2 * old_size : 1024;
    for (uint32_t k = 0; k < old_size; k++)
        if (old[k].slot)
            *entry_of(old[k].key) = old[k];
    free(old);
    return 0;
}

uint32_t stub_find(uint64_t key)
{
    uint32_t slot = 0;

    pthread_mutex_lock(&store.lock);
    if (store.size)
        slot = entry_of(key)->slot;
    pthread_mutex_unlock(&store.lock);
    return slot;
}

static uint32_t add_locked(uint64_t key, const uint8_t *code, unsigned len)
{
    uint32_t grains = (len + STUB_GRAIN - 1) / STUB_GRAIN;

    if (store.used >= store.size / 4 * 3 && table_grow() < 0)
        return 0;
    struct stub_entry *e = entry_of(key);
    if (e->slot)
        return e->slot;
    if (!store.write || (store.next + grains) * (uint64_t)STUB_GRAIN > STUB_ARENA_BYTES)
        return 0;
    memcpy(store.write + (size_t)store.next * STUB_GRAIN, code, len);
    *e = (struct stub_entry){ .key = key, .slot = store.next };
    store.next += grains;
    store.used++;
    return e->slot;
}

uint32_t stub_add(uint64_t key, const uint8_t *code, unsigned len)
{
    pthread_mutex_lock(&store.lock);
    uint32_t slot = add_locked(key, code, len);
    pthread_mutex_unlock(&store.lock);
    return slot;
}
