/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LUKS headers as hostile bytes: shown, unlocked, changed. Iterations and stripes are kept few, as
 * what they cost is known. */
#include "fuzz_image.h"

#include "image/context.h"
#include "image/luks.h"
#include "image/secret.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { AREA = 64 * 1024, SLOT_AT = 208, SLOT_BYTES = 48 };

static uint8_t area[AREA];

static int area_read(void *opaque, uint64_t off, void *buf, size_t len)
{
    if (!range_fits(off, len, AREA))
        abort(); /* offsets are checked before they get here */
    memcpy(buf, area + off, len);
    return 0;
}

static int area_write(void *opaque, uint64_t off, const void *buf, size_t len)
{
    if (!range_fits(off, len, AREA))
        abort();
    memcpy(area + off, buf, len);
    return 0;
}

static int area_flush(void *opaque)
{
    return 0;
}

static const struct luks_io io = {area_read, area_write, area_flush, NULL, AREA};

static void change(struct luks *l, const char *options)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) n = json_from_string(options, NULL);
    if (!luks_amend(l, json_node_get_object(n), false, &error) && !error)
        abort();
}

static int try_it(void *opaque)
{
    struct context *ctx = opaque;
    for (unsigned locked = 0; locked < 2; locked++) {
        g_autoptr(GError) error = NULL;
        struct luks *l =
            luks_open(ctx, &io, locked ? NULL : "k", locked ? LUKS_NO_KEY : 0, "fuzz", &error);
        if (!l && !error)
            abort();
        if (!l)
            continue;
        json_object_unref(luks_describe(l));
        uint8_t sector[512] = {0};
        luks_decrypt(l, 0, sector, sizeof(sector));
        change(l, "{\"state\": \"inactive\", \"keyslot\": 1}");
        change(l, "{\"state\": \"inactive\", \"old-secret\": \"k\", \"force\": true}");
        luks_free(l);
    }
    return 0;
}

static struct context *start(void)
{
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_string_member(o, "data", "key");
    secret_add("k", o, NULL);
    return context_new(NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct context *ctx;
    if (!ctx)
        ctx = start();
    memset(area, 0, sizeof(area));
    memcpy(area, data, MIN(size, sizeof(area)));
    memset(area + 164, 0, 3); /* of the digest, big-endian */
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        memset(area + SLOT_AT + i * SLOT_BYTES + 4, 0, 3);
        memset(area + SLOT_AT + i * SLOT_BYTES + 44, 0, 2);
    }
    return context_run(ctx, try_it, ctx);
}
