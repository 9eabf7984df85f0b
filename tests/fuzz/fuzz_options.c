/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option parser: the first byte chooses an option (or the bare key=value parser), the rest is
 * its argument. */
#include "vmm/options.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Options whose handlers only look at their argument: no file, no log, no probing of the host. */
static const char *const options[] = {
    "-machine", "-smp",  "-m",     "-rtc",      "-uuid",   "-name",   "-smbios",
    "-fw_cfg",  "-boot", "-drive", "-blockdev", "-device", "-global", "-object",
    "-netdev",  "-nic",  "-net",   "-chardev",  "-serial", "-mon",    "-action",
};

static void print_nothing(const char *text)
{
}

static void fuzz_key_values(const char *text)
{
    struct kv_list *l = kv_parse(text, text[0] == 't' ? "type" : NULL, NULL);
    bool flag = false;
    uint64_t number = 0;
    for (size_t i = 0; l && i < l->count; i++) {
        if (!kv_get(l, l->pairs[i].key) || strlen(l->pairs[i].key) > KV_MAX_KEY)
            __builtin_trap();
        kv_get_bool(l, l->pairs[i].key, &flag, NULL);
        kv_get_u64(l, l->pairs[i].key, 1, 9, &number, NULL);
        kv_get_size(l, l->pairs[i].key, 1, &number, NULL);
    }
    kv_list_free(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size || size > 1 << 16)
        return 0;
    g_set_print_handler(print_nothing);
    g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
    size_t choice = data[0] % (G_N_ELEMENTS(options) + 1);
    if (choice == G_N_ELEMENTS(options)) {
        fuzz_key_values(text);
        return 0;
    }
    char *argv[] = { (char *)"ruche-vmm", (char *)options[choice], text, NULL };
    g_autoptr(GError) error = NULL;
    struct vm_options o;
    vm_options_init(&o);
    bool ok = vm_options_parse(&o, 3, argv, &error);
    if (ok == (error != NULL))
        __builtin_trap();
    vm_options_done(&o);
    return 0;
}
