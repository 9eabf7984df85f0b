/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVA: any archive is listed, verified and its disks opened, or refused with a sentence. */
#include "fuzz_image.h"

#include "image/ova/ova.h"
#include "image/testbed.h"

#include <stdlib.h>

static bool deny(const struct node *parent, const char *filename, void *opaque, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "no further files");
}

/* All or a sentence. */
static void judge(bool ok, const GError *error)
{
    if (ok == !!error)
        abort();
}

static int try_archive(void *opaque)
{
    struct bed *bed = opaque;
    GError *error = NULL;
    struct ova *o = ova_open(bed->graph, "memory://fuzz-ova", &error);
    judge(o, error);
    g_clear_error(&error);
    if (!o)
        return 0;
    unsigned count;
    const struct ova_disk *d = ova_disks(o, &count);
    for (unsigned i = 0; i < count && i < 4; i++) {
        judge(ova_verify(o, (int)i, NULL, &error), error);
        g_clear_error(&error);
        struct node *n = ova_open_disk(o, i, d[i].format ? NULL : "raw", &error);
        judge(n, error);
        g_clear_error(&error);
        node_unref(n);
    }
    ova_close(o);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bed *bed;
    static struct memory_file *file;
    if (!bed) {
        bed = bed_new();
        graph_set_policy(bed->graph, deny, NULL);
        file = memory_file_new("fuzz-ova", 0);
    }
    memory_file_set(file, data, size);
    return bed_run(bed, try_archive, bed);
}
