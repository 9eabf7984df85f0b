/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the manager reads of pools, volumes, processors, images and emulators: the first byte
 * chooses the parser. */
#include "manager/node/cpu.h"
#include "manager/node/emulator.h"
#include "manager/storage/qcow2_head.h"
#include "manager/storage/storage_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was accepted is accepted again as it is printed. */
static void fuzz_pool(const char *text)
{
    struct pool_def *d = pool_def_new(text, false, NULL);
    if (!d)
        return;
    struct pool_def *again = pool_def_new(d->text, true, NULL);
    if (!again || g_strcmp0(again->target, d->target) != 0)
        __builtin_trap();
    pool_def_free(again);
    pool_unref(pool_new(d));
}

static void fuzz_volume(const char *text)
{
    struct volume_def d;
    if (!volume_def_parse(&d, pool_backend_find("dir"), text, false, NULL))
        return;
    if (strchr(d.name, '/') || d.capacity > INT64_MAX)
        __builtin_trap();
    volume_def_done(&d);
}

static void fuzz_cpu_xml(const char *text)
{
    char *const cpus[] = {(char *)text};
    g_free(node_baseline_cpu(cpus, 1, 0, NULL));
    node_compare_cpu(text, 0, NULL);
}

static void fuzz_emulator(const char *text)
{
    g_autoptr(JsonObject) answer = emulator_answer_parse(text, NULL);
    if (answer)
        emulator_full_free(emulator_from_answer("/emulator", answer, NULL));
}

static void fuzz_head(const char *text, size_t size)
{
    struct qcow2_head h;
    if (qcow2_head_parse((const uint8_t *)text, size, &h) == 0 &&
        (h.backing_bytes > QCOW2_BACKING_MAX || h.capacity > INT64_MAX))
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
    switch (data[0] % 5) {
    case 0:
        fuzz_pool(text);
        break;
    case 1:
        fuzz_volume(text);
        break;
    case 2:
        fuzz_cpu_xml(text);
        break;
    case 3:
        fuzz_emulator(text);
        break;
    default:
        fuzz_head((const char *)data + 1, size - 1);
    }
    return 0;
}
